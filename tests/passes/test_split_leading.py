"""Sums over a leading axis in two steps: which are cut, and that the results stay."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, bf16, f32
from graphc.passes.split_leading import SplitLeading
from graphc.pipeline import optimize
from tests.codegen.programs import run

CACHE = 1 << 12  # bytes


def weight_gradient(n: int, places: int, stored: bool, dtype: object = f32) -> Graph:
    """`n k p, n l p -> k l` of inputs, or of values computed from them."""
    b = Builder()
    shapes = ((n, 6, places), (n, 5, places))
    inputs = tuple(b.input(i, TensorType(dtype, shape)) for i, shape in enumerate(shapes))  # type: ignore[arg-type]
    x, y = (b.elementwise("maximum", v, b.constant(0, v.type)) for v in inputs) if stored else inputs
    return Graph(inputs, (b.contract(x, y, "n k p, n l p -> k l"),))


@pytest.mark.parametrize(
    ("n", "places", "stored", "is_cut"),
    [
        (16, 64, True, True),  # together more than the cache, small results
        (16, 4, True, False),  # all fits the cache
        (4, 4096, True, False),  # too few places
        (16, 64, False, False),  # from outside, and a place fits the cache
        (16, 4096, False, True),  # from outside, but a place does not fit
    ],
)
def test_what_is_cut(n: int, places: int, stored: bool, is_cut: bool) -> None:
    graph = weight_gradient(n, places, stored)
    cut = SplitLeading(CACHE).run(graph)
    assert (cut is not graph) == is_cut
    if is_cut:
        assert [node.shape for node in cut.nodes if node.op == "contract"] == [(n, 6, 5)]
        rng = np.random.default_rng(n)
        arrays = [rng.integers(-3, 4, node.shape).astype(np.float32) for node in graph.inputs]
        expected = evaluate(graph, arrays)[0]
        np.testing.assert_array_equal(evaluate(cut, arrays)[0], expected)
        np.testing.assert_array_equal(run(optimize(cut), arrays)[0], expected)


def test_results_of_places_are_not_rounded() -> None:
    graph = weight_gradient(16, 64, True, bf16)
    assert SplitLeading(CACHE).run(graph) is graph
