"""A contraction of which only a part is read computes that part."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32, i64
from graphc.passes.autodiff import grad_graph
from graphc.passes.simplify import Simplify

PARTS = {  # spec, shapes, and (start, size, step) for each dimension of the result
    "plain": ("a b, b c -> a c", (9, 4), (4, 7), ((2, 5, 1), (1, 2, 3))),
    "batched": ("n a b, n b c -> n a c", (4, 3, 5), (4, 5, 6), ((1, 2, 2), (0, 3, 1), (3, 3, 1))),
    "window": ("b c h+r, o c r -> b o h", (2, 3, 12), (4, 3, 5), ((1, 1, 1), (0, 3, 1), (2, 4, 1))),
    "stretched": ("b c 2h+3r, o c r -> b o h", (2, 3, 20), (4, 3, 3), ((0, 2, 1), (1, 3, 1), (2, 3, 1))),
    "taps": ("b c h, b o h+r -> o c r", (2, 3, 6), (2, 4, 10), ((0, 4, 1), (1, 2, 1), (1, 3, 1))),
}


def _graph(case: str) -> Graph:
    spec, first, second, ranges = PARTS[case]
    b = Builder()
    x, y = b.input(0, TensorType(i64, first), "x"), b.input(1, TensorType(i64, second), "y")
    start, size, step = (tuple(column) for column in zip(*ranges, strict=True))
    return Graph((x, y), (b.slice(b.contract(x, y, spec), start, size, step),))


def _arrays(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(-9, 10, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


@pytest.mark.parametrize("case", PARTS)
def test_only_the_part_is_computed(case: str) -> None:
    graph = _graph(case)
    result = Simplify().run(graph)
    (product,) = (n for n in result.nodes if n.op == "contract")
    assert product is result.outputs[0] and product.shape == graph.outputs[0].shape
    arrays = _arrays(graph)
    np.testing.assert_array_equal(evaluate(result, arrays)[0], evaluate(graph, arrays)[0])


def test_a_step_along_a_sliding_window_stays() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(i64, (12,)), "x"), b.input(1, TensorType(i64, (3,)), "y")
    graph = Graph((x, y), (b.slice(b.contract(x, y, "h+r, r -> h"), (0,), (5,), (2,)),))
    assert Simplify().run(graph) is graph


def test_a_contraction_that_others_read_whole_stays() -> None:
    graph = _graph("plain")
    both = graph.with_outputs((graph.outputs[0], graph.outputs[0].inputs[0]))
    assert Simplify().run(both) is both


def test_the_gradient_of_a_padded_convolution_has_no_border() -> None:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (2, 3, 4, 4)), "x"), b.input(1, TensorType(f32, (5, 3, 3, 3)), "w")
    y = b.contract(b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), w, "b c h+r w+s, o c r s -> b o h w")
    graph = grad_graph(Graph((x, w), (b.reduce_sum(b.mul(y, y), (0, 1, 2, 3)),)), wrt=(0,))
    shapes = [n.shape for n in Simplify().run(graph).nodes if n.op == "contract"]
    assert shapes == [(2, 5, 4, 4), (2, 3, 4, 4)]
