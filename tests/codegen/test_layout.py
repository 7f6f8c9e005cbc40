"""The layout pass: which axis it takes, that values stay what they are, and what that does to kernels."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32
from graphc.ir.verify import verify
from graphc.passes import layout
from graphc.passes.axes import Axes, Dim
from graphc.passes.layout import MAX_WASTE, Layout
from graphc.pipeline import optimize
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.programs import run
from tests.fuzz.graphs import random_graph, random_inputs


def assert_close(got: np.ndarray, expected: np.ndarray, what: object) -> None:
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected, err_msg=str(what))
    else:
        most = float(np.abs(expected).max(initial=1.0))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * most, err_msg=str(what))


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("batch", [16, 17, 29, 32, 60])
def test_a_training_step_keeps_its_values(batch: int, lanes: int) -> None:
    graph = optimize(training_step(batch))
    changed = Layout(lanes).run(graph)
    padded = -(-batch // lanes) * lanes
    if padded > batch * MAX_WASTE:
        assert changed is graph
        return
    verify(changed)
    assert any(node.shape[0] == padded // lanes and node.shape[-1:] == (lanes,) for node in changed.nodes)
    arrays = arrays_for(graph)
    for k, (a, b) in enumerate(zip(evaluate(changed, arrays), evaluate(graph, arrays), strict=True)):
        assert_close(a, b, f"output {k}")


@pytest.mark.parametrize("batch", [1, 16, 17, 29, 60])
def test_a_training_step_runs(batch: int) -> None:
    graph = training_step(batch)
    arrays = arrays_for(graph)
    for k, (a, b) in enumerate(zip(run(graph, arrays), evaluate(graph, arrays), strict=True)):
        assert_close(a, b, f"output {k}")


@pytest.mark.parametrize(
    ("lanes", "seeds"),
    [
        (4, range(100)),
        pytest.param(4, range(100, 300), marks=pytest.mark.slow),
        pytest.param(3, range(300), marks=pytest.mark.slow),
    ],
)
def test_any_separable_axis_of_any_graph_may_be_cut(lanes: int, seeds: range) -> None:
    """The choice is forced: each axis that the analysis calls separable, whatever the graph computes."""
    cut = 0
    for seed in seeds:
        graph = optimize(random_graph(seed, 30))
        axes = Axes(graph)
        arrays = random_inputs(graph, seed)
        for axis in _separable(graph, axes)[:3]:
            changed = layout._Rewriter(graph, axes, axis, lanes).run()
            verify(changed)
            cut += 1
            for k, (a, b) in enumerate(zip(evaluate(changed, arrays), evaluate(graph, arrays), strict=True)):
                assert_close(a, b, f"graph {seed}, output {k}, axis {axis}")
    assert cut > len(seeds) // 3


def _separable(graph: Graph, axes: Axes) -> list[Dim]:
    found: dict[Dim, int] = {}
    for node in graph.nodes:
        for d, n in enumerate(node.shape):
            axis = axes.of((node, d))
            if n > 1 and axes.separable(axis):
                found[axis] = found.get(axis, 0) + 1
    return sorted(found, key=lambda a: -found[a])


def convolution(batch: int, also: str = "") -> Graph:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (batch, 2, 9, 9))), b.input(1, TensorType(f32, (3, 2, 3, 3)))
    if also == "one place":
        w = b.input(1, TensorType(f32, (3, 2, 1, 1)))
    if also == "depthwise":
        w = b.input(1, TensorType(f32, (2, 3, 3)))
        return Graph((x, w), (b.contract(x, w, "b c h+r w+s, c r s -> b c h w"),))
    if also.endswith("rows"):
        x = b.input(0, TensorType(f32, (batch, 2, 9, 40 if also == "wide rows" else 24)))
        w = b.input(1, TensorType(f32, (2, 5, 5)))
        return Graph((x, w), (b.contract(x, w, "b c h+r w+s, c r s -> b c h w"),))
    if also.endswith("channels"):
        channels = 16 if also.startswith("many") else 8
        x = b.input(0, TensorType(f32, (batch, channels, 34, 34)))
        w = b.input(1, TensorType(f32, (4 if also.endswith("few channels") else channels, channels, 3, 3)))
    y = b.contract(x, w, "b c h+r w+s, o c r s -> b o h w")
    if also == "mixed":
        y = b.flip(y, (0,))
    if also == "product":
        large = b.contract(b.reshape(y, (batch, 147)), b.input(2, TensorType(f32, (147, 5000))), "b i, i o -> b o")
        return Graph((x, w, large.inputs[1]), (large,))
    return Graph((x, w), (y,))


@pytest.mark.parametrize(
    ("graph", "taken"),
    [
        (convolution(16), True),
        (convolution(64), True),
        (convolution(15), False),  # most of a vector would be empty
        (convolution(17), False),  # nearly half of it
        (convolution(24), True),
        (convolution(16, "one place"), False),  # its windows do not slide: it is a product
        (convolution(16, "depthwise"), False),  # too little work to turn everything around for
        (convolution(16, "short rows"), True),
        (convolution(16, "wide rows"), False),  # they fill vectors by themselves
        (convolution(16, "many channels"), False),  # and their rows are a cache's work
        (convolution(16, "many to few channels"), True),
        (convolution(16, "some channels"), True),
        (convolution(16, "mixed"), False),  # samples change places
        (convolution(16, "product"), False),  # most of the work is no convolution
    ],
)
def test_which_graphs_are_laid_out(graph: Graph, taken: bool) -> None:
    assert (Layout(16).run(graph) is not graph) == taken


def test_layout_is_idempotent() -> None:
    once = optimize(Layout(16).run(optimize(training_step(32))))
    assert str(Layout(16).run(once)) == str(once)


def test_equal_axes_are_chosen_between_by_their_place() -> None:
    """A convolution alone does the same arithmetic along samples and channels."""
    graph = convolution(32)
    texts = {str(Layout(16).run(Graph(graph.inputs, graph.outputs))) for _ in range(3)}
    assert len(texts) == 1
    assert "f32[2,3,7,7,16]" in texts.pop()


@pytest.mark.parametrize("channels", [32, 24])
def test_one_number_for_samples_and_for_channels_ties_them_not_together(channels: int) -> None:
    """Equal constants are one node: with as many samples as channels `1.0` is that of both."""
    b = Builder()
    x, w = b.input(0, TensorType(f32, (32, 2, 9, 9))), b.input(1, TensorType(f32, (channels, 2, 3, 3)))
    each, scalar = b.input(2, TensorType(f32, (channels,))), b.input(3, TensorType(f32, ()))
    y = b.contract(x, w, "b c h+r w+s, o c r s -> b o h w")
    of_samples = b.reduce_sum(y, (1, 2, 3))
    for number in (b.constant(1.0, of_samples.type), b.broadcast(scalar, of_samples.shape)):
        of_samples = b.mul(b.add(of_samples, number), of_samples)
    for number in (b.constant(1.0, each.type), b.broadcast(scalar, each.shape)):
        each = b.mul(b.add(each, number), each)
    y = b.mul(y, b.expand_dims(each, (0, 2, 3), y.shape))
    graph = Graph((x, w, b.input(2, each.type), scalar), (y, of_samples))
    changed = Layout(16).run(graph)
    verify(changed)
    assert f"f32[2,{channels},7,7,16]" in str(changed)
    arrays = random_inputs(graph, 0)
    for k, (a, c) in enumerate(zip(evaluate(changed, arrays), evaluate(graph, arrays), strict=True)):
        assert_close(a, c, f"output {k}")
