"""Graphs through the whole compiler, past every cache: for a given target, memory plan and kind of buffers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ml_dtypes
import numpy as np

from graphc.codegen.llvm.host import host_target
from graphc.codegen.package import make_artifact
from graphc.codegen.target import Target
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.small_matrices import ELIMINATIONS
from graphc.ir.types import f64
from graphc.pipeline import build_program
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.fuzz.graphs import error_bounds


def executable(graph: Graph, target: Target | None = None, donated: Iterable[int] = ()) -> Executable:
    """Native code for `graph`, built anew."""
    target = target or host_target()
    program = build_program(graph, frozenset(donated), target)
    return Executable(make_artifact(program, target, {}), get_device("cpu"))


def buffers(arrays: Sequence[np.ndarray], misaligned: bool = False) -> list[Buffer]:
    """Copies of `arrays` as buffers; `misaligned` ones start one element past a 64-byte boundary."""
    return [_misaligned(a) if misaligned else Buffer.from_array(np.array(a, order="C")) for a in arrays]


def _misaligned(array: np.ndarray) -> Buffer:
    memory = np.empty(array.nbytes + 64 + array.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + array.itemsize
    view = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return Buffer.from_array(view)


def results(graph: Graph, outputs: Sequence[Buffer]) -> list[np.ndarray]:
    """Output buffers as arrays."""
    return [o.view(n.dtype.numpy, n.shape).copy() for o, n in zip(outputs, graph.outputs, strict=True)]


def run(
    graph: Graph,
    arrays: Sequence[np.ndarray],
    target: Target | None = None,
    misaligned: bool = False,
) -> list[np.ndarray]:
    """Compile `graph` and run it on copies of `arrays`."""
    return results(graph, executable(graph, target).run(buffers(arrays, misaligned)))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def difference(
    got: np.ndarray, expected: np.ndarray, bound: float | np.ndarray, signs: bool | np.ndarray = True
) -> str:
    """What is wrong with `got`, or nothing.

    Integers and bools are equal; floats are NaN and infinite where `expected` is, zeros have its sign (where `signs`),
    and others are within `bound` of it.
    """
    if got.shape != expected.shape:
        return f"shape {got.shape}, not {expected.shape}"
    if got.dtype.kind in "iub":
        wrong = got != expected
    else:
        got, expected = got.astype(np.float64), expected.astype(np.float64)
        zeros = (got == 0) & (expected == 0)
        with np.errstate(invalid="ignore"):
            near = np.isfinite(got) & np.isfinite(expected) & (np.abs(got - expected) <= bound)
        near &= ~(zeros & signs) | (np.signbit(got) == np.signbit(expected))
        wrong = ~(near | (np.isnan(got) & np.isnan(expected)) | (np.isinf(got) & (got == expected)))
    if not wrong.any():
        return ""
    first = tuple(map(int, np.argwhere(wrong)[0]))
    near_by = np.broadcast_to(bound, got.shape)[first]
    return f"{int(wrong.sum())} of {wrong.size}, first at {first}: {got[first]!r}, not {expected[first]!r} (±{near_by})"


def free_signs(graph: Graph) -> set[Node]:
    """The values whose zeros may have either sign, since they come from a `fold`, or from an elimination: the reference
    asks LAPACK, which says nothing of the order of its sums.
    """
    free: set[Node] = set()
    for node in graph.nodes:
        if node.op == "fold" or node.op in ELIMINATIONS or not free.isdisjoint(node.inputs):
            free.add(node)
    return free


def _classes(array: np.ndarray) -> np.ndarray:
    """Of each float whether it is NaN, an infinity of which sign, or a number."""
    return np.where(np.isnan(array), 2, np.where(np.isinf(array), np.sign(array), 0))


def _has_subnormals(array: np.ndarray) -> bool:
    if array.dtype.kind in "iub":
        return False
    with np.errstate(invalid="ignore"):
        size = np.abs(array)
        return bool(((size > 0) & (size < ml_dtypes.finfo(array.dtype).smallest_normal)).any())


def mismatches(graph: Graph, arrays: Sequence[np.ndarray], got: Sequence[np.ndarray]) -> list[str]:
    """How results differ from the NumPy oracle in f64 by more than the bounds allow.

    Where the reference in the graph's own dtypes is NaN or infinite and the oracle is not, or the other way round (a
    product was too small or too large for the dtype), what is computed from it is the reference's. With subnormals
    among the inputs a rounded zero may be a number that was too small, and have that number's sign. A zero whose sign
    is not the same in both references (that of a number near zero times zero) may have either.
    """
    tiny = any(map(_has_subnormals, arrays))
    expected = evaluate(graph, arrays, floats=f64)
    own: list[np.ndarray] = []
    free = free_signs(graph)
    found = []
    for k, (g, e, bound, node) in enumerate(zip(got, expected, error_bounds(graph), graph.outputs, strict=True)):
        signs = node not in free and not (tiny and bound)
        text = difference(g, e, bound, signs)
        if text and node.dtype.is_float:
            own = own or evaluate(graph, arrays)
            near = own[k].astype(np.float64)
            sure = (near != 0) | (e != 0) | (np.signbit(near) == np.signbit(e))
            text = difference(g, np.where(_classes(near) != _classes(e), near, e), bound, sure & signs)
        if text:
            found.append(f"output {k} ({node.op} {node.type}): {text}")
    return found
