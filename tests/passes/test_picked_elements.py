"""What is picked by an index from values that are computed: where they are computed again, and where stored first."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32, i64
from graphc.pipeline import schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, runnable


def _picked(axis: int, operands: int, taps: int = 1) -> Graph:
    """Elements of a sum of `operands`, along `axis`; with `taps`, sums of so many rows."""
    b = Builder()
    places = b.input(0, TensorType(i64, (70,)))
    inputs = [b.input(i + 1, TensorType(f32, (12, taps, 33) if taps > 1 else (12, 33))) for i in range(operands)]
    value = inputs[0]
    for other in inputs[1:]:
        value = b.add(value, other)
    value = b.reduce_sum(value, (1,)) if taps > 1 else b.mul(value, 2.0)
    return Graph((places, *inputs), (b.apply("gather", (value, places), {"axis": axis}),))


GRAPHS = {
    "rows": (_picked(0, 2), True),  # whole rows: vectors of each operand
    "one": (_picked(1, 1), True),  # one element is picked either way
    "several": (_picked(1, 2), False),
    "sums": (_picked(1, 1, taps=2), False),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_computed_where_it_is_picked(name: str) -> None:
    graph, at_once = GRAPHS[name]
    groups = schedule(graph, AVX2).groups
    assert (len(groups) == 1 and not groups[0].kept) == at_once


@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("name", GRAPHS)
def test_results(name: str, target: str) -> None:
    graph, _ = GRAPHS[name]
    rng = np.random.default_rng(3)
    arrays = [
        rng.integers(0, 12, n.shape) if n.dtype is i64 else rng.integers(-9, 9, n.shape).astype(np.float32)
        for n in graph.inputs
    ]
    (got,) = run(graph, arrays, runnable()[target])
    np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])
