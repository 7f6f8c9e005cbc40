"""Row 1 of the reliability goals: random graphs through the whole compiler against the NumPy oracle in float64.

Integers, bools, NaN, infinities and the sign of zeros are exact; other floats are within an error bound that is
computed for each graph, so no tolerance is tuned by hand. Each graph runs on ordinary numbers, and on ones with NaN,
zeros, and infinities or subnormals among them in memory that is aligned to its elements only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np
import pytest

from graphc.host import is_host
from graphc.ir.graph import Graph
from graphc.ir.parser import parse_graph
from graphc.programs import build, run
from graphc_runtime.buffer import Buffer
from tests.codegen.programs import buffers, executable, mismatches, results
from tests.fuzz.graphs import random_graph, random_inputs

FEW, MANY, AT_ONCE = 120, 10_000, 20
ZEROS = (np.nan, 0.0, -0.0)


def salts(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Special values with infinities, and with subnormals.

    Not both at once: a product of subnormals is 0 in one order and not in another (or not in f64), and an infinity
    makes NaN of that.
    """
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    return np.array([*ZEROS, np.inf, -np.inf], dtype), np.array([*ZEROS, tiny, -7 * tiny], dtype)


def salted(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The arrays with a tenth of their floats replaced by special values."""
    rng = np.random.default_rng(seed)
    found = []
    for array in arrays:
        if array.dtype.kind not in "iub":
            special = rng.choice(salts(array.dtype)[seed % 2], array.shape)
            array = np.asarray(np.where(rng.random(array.shape) < 0.1, special, array)).astype(array.dtype)
        found.append(array)
    return found


Run = Callable[[list[Buffer]], Sequence[Buffer]]


def program(graph: Graph, host: bool) -> Run:
    """`graph` compiled; with `host`, in parts around the operators that run there, as the front end runs it."""
    if not host:
        return executable(graph).run
    parts = build(graph.outputs, set(graph.inputs).__contains__)

    def run_parts(inputs: list[Buffer]) -> list[Buffer]:
        bound = dict(zip(graph.inputs, inputs, strict=True))
        made = {**bound, **run(parts, bound)}
        return [made[node] for node in graph.outputs]

    return run_parts


def check(seeds: range) -> None:
    """Every fourth graph has operators that run on the host."""
    wrong = []
    for seed in seeds:
        graph = random_graph(seed, host=seed % 4 == 3)
        compiled = program(graph, any(map(is_host, graph.nodes)))
        plain = random_inputs(graph, seed)
        for what, arrays, misaligned in (("", plain, False), (" with NaN", salted(plain, seed), True)):
            got = results(graph, compiled(buffers(arrays, misaligned)))
            wrong += [f"graph {seed}{what}: {text}" for text in mismatches(graph, arrays, got)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("first", range(0, FEW, AT_ONCE))
def test_random_graphs(first: int) -> None:
    check(range(first, first + AT_ONCE))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, FEW + MANY, 10 * AT_ONCE))
def test_many_random_graphs(first: int) -> None:
    check(range(first, first + 10 * AT_ONCE))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_zero_made_of_a_rounding_error_has_either_sign(sign: float) -> None:
    """sinc(1) is a number near zero, of one sign in f16 and of another in f64; sinc(0.5) is 2/pi."""
    graph = parse_graph(
        "graph @f(%x: f16[1], %y: f16[1]) {\n  %2 = sinc %x : f16[1]\n  %3 = mul %2, %y : f16[1]\n  return %3\n}"
    )
    one, half, zero = (np.array([value], np.float16) for value in (1.0, 0.5, 0.0))
    assert not mismatches(graph, [one, zero], [np.float16(sign) * zero])
    assert bool(mismatches(graph, [half, zero], [np.float16(sign) * zero])) == (sign < 0)
