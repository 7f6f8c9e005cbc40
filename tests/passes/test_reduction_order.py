"""Reductions of transposed values, of pairs of rows, and selections: which order of memory they read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.ir.builder import Builder
from graphc.ir.demand import UNROLLED_REDUCTION
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32
from graphc.passes.reduction_order import FEW, ReductionOrder
from graphc.pipeline import build_program, optimize
from tests.codegen.programs import run
from tests.codegen.targets import AVX512, runnable

TARGETS = runnable()
Combine = Callable[[Builder, Node, Node], Node]


def _pairs(rows: int, columns: int, length: int, combine: Combine, reduce: str = "reduce_sum") -> Graph:
    """What `combine` makes of the elements of each two rows of two matrices, reduced."""
    b = Builder()
    x, y = b.input(0, TensorType(f32, (rows, length))), b.input(1, TensorType(f32, (columns, length)))
    shape = (rows, columns, length)
    wide = [b.broadcast(b.reshape(x, (rows, 1, length)), shape), b.broadcast(b.reshape(y, (1, columns, length)), shape)]
    made = combine(b, *wide)
    return Graph((x, y), (b.reduce_max(made, (2,)) if reduce == "reduce_max" else b.reduce_sum(made, (2,)),))


def _distance(b: Builder, x: Node, y: Node) -> Node:
    off = b.sub(x, y)
    return b.mul(off, off)


def _statistics(shape: tuple[int, ...], perm: tuple[int, ...], axes: tuple[int, ...]) -> Graph:
    """The sum of squares of a permuted value less its mean over `axes`."""
    b = Builder()
    x = b.input(0, TensorType(f32, shape))
    moved = b.permute(x, perm)
    count = float(np.prod([moved.shape[a] for a in axes]))
    mean = b.mul(b.reduce_sum(moved, axes), 1 / count)
    off = b.sub(moved, b.expand_dims(mean, axes, moved.shape))
    return Graph((x,), (b.reduce_sum(b.mul(off, off), axes), off))


def _agree(graph: Graph, target: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, x.shape).astype(np.float32) for x in graph.inputs]
    for got, expected in zip(run(graph, arrays, TARGETS[target]), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


def _reduced(graph: Graph) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes that reductions read, and their axes."""
    return [(n.inputs[0].shape, n.ints("axes")) for n in graph.nodes if n.op.startswith("reduce")]


def test_rows_are_put_side_by_side_for_pairs() -> None:
    graph = _pairs(100, 80, 64, _distance)
    (turned,) = [n for n in ReductionOrder(16).run(graph).nodes if n.op == "materialize"]
    assert turned.shape == (1, 64, 80)


@pytest.mark.parametrize(
    "graph",
    [
        _pairs(100, 80, UNROLLED_REDUCTION, _distance),  # computed in line: rows are loaded as they lie
        _pairs(100, 8, 64, _distance),  # fewer results than lanes
        _pairs(4, 80, 64, _distance),  # each element is used too seldom
        _pairs(100, 80, 64, lambda b, x, y: b.mul(x, x)),  # nothing but the first rows
    ],
    ids=["short", "few results", "seldom used", "one operand"],
)
def test_rows_that_stay(graph: Graph) -> None:
    assert ReductionOrder(16).run(graph) is graph


def test_a_value_of_its_own_for_each_pair_stays() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(f32, (100, 80, 64))), b.input(1, TensorType(f32, (80, 64)))
    graph = Graph((x, y), (b.reduce_sum(b.mul(x, b.broadcast(y, x.shape)), (2,)),))
    assert ReductionOrder(16).run(graph) is graph


def test_pairs_run_in_vectors_over_the_results() -> None:
    """The rows turned, and one kernel without sums across lanes that loads each vector once for several rows."""
    kernels = build_program(_pairs(128, 128, 64, _distance), target=AVX512).kernels
    assert len(kernels) == 2
    text = print_kernel(kernels[-1])
    assert "reduce_add" not in text
    assert "stride 64" not in text
    loop = text[text.index("carry") : text.index("yield")]
    assert loop.count(": f32x16\n") - loop.count("splat") > 0
    assert loop.count(" = fma ") == 16
    assert loop.count("load %p") == 4 + 4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reduce", ["reduce_sum", "reduce_max"])
@pytest.mark.parametrize(("rows", "columns", "length"), [(40, 33, 17), (9, 130, 70), (64, 64, 32)])
def test_results_of_pairs(rows: int, columns: int, length: int, reduce: str, target: str) -> None:
    _agree(_pairs(rows, columns, length, _distance, reduce), target)


@pytest.mark.parametrize(
    ("shape", "perm", "axes", "expected"),
    [
        ((300, 200), (1, 0), (1,), (0,)),
        ((30, 20, 40), (2, 0, 1), (0,), (2,)),
        ((30, 20, 40), (0, 2, 1), (1, 2), None),  # elements would be added in another order
        ((30, 20, 40), (2, 0, 1), (1, 2), (0, 1)),
    ],
)
def test_transposed_values_are_reduced_as_they_lie(
    shape: tuple[int, ...], perm: tuple[int, ...], axes: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    graph = optimize(_statistics(shape, perm, axes))
    after = ReductionOrder(16).run(graph)
    if expected is None:
        assert after is graph
    else:
        assert _reduced(after) == [(shape, expected)] * 2
    assert [n.type for n in after.outputs] == [n.type for n in graph.outputs]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("shape", "perm", "axes"),
    [((300, 70), (1, 0), (1,)), ((30, 20, 40), (2, 0, 1), (0,)), ((9, 20, 33), (2, 0, 1), (1, 2))],
)
def test_results_of_transposed_values(
    shape: tuple[int, ...], perm: tuple[int, ...], axes: tuple[int, ...], target: str
) -> None:
    _agree(_statistics(shape, perm, axes), target)


def test_a_transposed_result_is_stored_by_a_kernel_that_only_moves() -> None:
    """The statistics of its rows are not made in the loops that would stride through memory."""
    programs = build_program(_statistics((2048, 1024), (1, 0), (1,)), target=AVX512)
    text = print_kernel(programs.kernels[-1])
    assert "even_segments" in text
    assert "stride 1024" not in text


@pytest.mark.parametrize(("axis", "length"), [(0, FEW + 1), (1, FEW + 1), (0, FEW), (2, FEW + 1)])
def test_few_are_selected_from_rows(axis: int, length: int) -> None:
    b = Builder()
    shape = tuple(length if d == axis else 6 for d in range(3))
    x = b.input(0, TensorType(f32, shape))
    attrs = {"axis": axis, "descending": True, "start": 0, "count": 3}
    graph = Graph((x,), (b.apply("argselect", (x,), attrs),))
    after = ReductionOrder(16).run(graph)
    if axis == 2 or length == FEW:
        assert after is graph
        return
    (selection,) = [n for n in after.nodes if n.op == "argselect"]
    assert selection.integer("axis") == 2
    assert selection.inputs[0].shape == (6, 6, length)
    array = np.random.default_rng(1).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    np.testing.assert_array_equal(run(graph, [array])[0], evaluate(graph, [array])[0])
