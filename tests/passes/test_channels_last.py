"""Pictures with their channels last: the same values, whatever stands around the convolutions."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bf16, boolean, f16, f32, f64, i64
from graphc.ir.verify import verify
from graphc.passes import channels_last
from graphc.passes.base import run_passes
from graphc.passes.channels_last import ChannelsLast
from graphc.pipeline import graph_passes
from tests.codegen.networks import arrays_for, training_step

CONVOLUTION = "b c h+r w+s, o c r s -> b o h w"
STRIDED = "b c 2h+r 2w+s, o c r s -> b o h w"


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders change however little work there is."""
    monkeypatch.setattr(channels_last, "MIN_USES", 0)


def same(graph: Graph, other: Graph, arrays: list[np.ndarray]) -> None:
    """Both give the same values. Sums are formed in another order: of f64, so that it does not matter."""
    verify(other)
    assert [o.type for o in other.outputs] == [o.type for o in graph.outputs]
    for one, two in zip(evaluate(graph, arrays, floats=f64), evaluate(other, arrays, floats=f64), strict=True):
        np.testing.assert_allclose(two.astype(np.float64), one.astype(np.float64), rtol=1e-9, atol=1e-11)


def specs(graph: Graph) -> list[str]:
    return [n.text("spec") for n in graph.nodes if n.op == "contract"]


def moved(graph: Graph, least: int) -> list[tuple[int, ...]]:
    """Shapes of what is permuted and has at least so many elements."""
    return [n.shape for n in graph.nodes if n.op == "permute" and n.type.size >= least]


def convolution(dtype: DType, c: int = 8, o: int = 16, size: int = 6) -> tuple[Builder, list[Node], Node]:
    b = Builder()
    x = b.input(0, TensorType(dtype, (2, c, size, size)), "x")
    w = b.input(1, TensorType(dtype, (o, c, 3, 3)), "w")
    edges = (0, 0, 1, 1)
    return b, [x, w], b.contract(b.pad(x, edges, edges), w, CONVOLUTION)


@pytest.mark.usefixtures("always")
def test_a_training_step_permutes_what_comes_from_outside_alone() -> None:
    """Pooling, its gradients and those of the convolutions go on in the order that the first one gives."""
    graph = run_passes(training_step(2, 14, (8, 16, 24), (10,), 5, bf16), graph_passes())
    result = ChannelsLast().run(graph)
    same(graph, result, arrays_for(graph))
    windows = [s for s in specs(result) if "+" in s]
    assert len(windows) == 5 and all(s.endswith(("b h w o", "b p0 p1 c", "o r s c")) for s in windows)
    pictures = [shape for shape in moved(result, 1000) if 2 in shape]
    assert pictures == [(2, 14, 14, 8)], "the input alone"


def test_what_is_left_alone() -> None:
    b, (x, w), z = convolution(f32)
    exact = Graph((x, w), (z,))
    assert ChannelsLast().run(exact) is exact
    b, (x, w), z = convolution(bf16)
    little = Graph((x, w), (z,))
    assert ChannelsLast().run(little) is little, "72 multiply-adds for an element"
    b, (x, w), z = convolution(bf16, 12)
    odd = Graph((x, w), (z,))
    assert ChannelsLast().run(odd) is odd, "24 bytes of channels are not whole pieces"
    b = Builder()
    x = b.input(0, TensorType(bf16, (2, 4, 16, 6, 6)), "x")
    w = b.input(1, TensorType(bf16, (4, 16, 16, 3, 3)), "w")
    groups = Graph((x, w), (b.contract(x, w, "b g c h+r w+s, g o c r s -> b g o h w"),))
    assert ChannelsLast().run(groups) is groups
    b = Builder()
    x, y = (b.input(i, TensorType(bf16, (64, 64)), name) for i, name in enumerate("xy"))
    product = Graph((x, y), (b.contract(x, y, "a k, k c -> a c"),))
    assert ChannelsLast().run(product) is product


def test_much_work_is_worth_it_and_tf32_counts() -> None:
    for dtype, tf32 in ((bf16, False), (f16, False), (f32, True)):
        _, inputs, z = convolution(dtype, 128, 256, 32)
        graph = Graph(tuple(inputs), (z,))
        result = ChannelsLast(tf32).run(graph)
        assert specs(result) == ["b h+r w+s c, o r s c -> b h w o"]
        assert (ChannelsLast().run(graph) is graph) == tf32
        assert Counter(n.op for n in result.nodes)["materialize"] == 2


@pytest.mark.usefixtures("always")
def test_factors_that_are_converted_are_permuted_before() -> None:
    """A convolution with a bias computes in f32 what 16 bits hold: these are what moves."""
    b = Builder()
    x, w = (b.input(i, TensorType(bf16, s)) for i, s in enumerate(((2, 8, 6, 6), (16, 8, 3, 3))))
    bias = b.input(2, TensorType(bf16, (16,)))
    edges = (0, 0, 1, 1)
    z = b.contract(b.pad(b.cast(x, f32), edges, edges), b.cast(w, f32), CONVOLUTION)
    z = b.cast(b.add(z, b.broadcast(b.reshape(b.cast(bias, f32), (1, 16, 1, 1)), z.shape)), bf16)
    graph = Graph((x, w, bias), (z,))
    result = ChannelsLast().run(graph)
    assert {n.dtype for n in result.nodes if n.op == "materialize"} == {bf16}
    rng = np.random.default_rng(1)
    same(graph, result, [rng.integers(-4, 5, n.shape).astype(n.dtype.numpy) for n in graph.inputs])


@pytest.mark.usefixtures("always")
def test_tensors_whose_channels_lie_last_are_taken_as_they_are() -> None:
    """The memory format `channels_last` of pictures and kernels; what is given out is in the graph's order."""
    b = Builder()
    x, w = (b.input(i, TensorType(bf16, s)) for i, s in enumerate(((2, 6, 6, 8), (16, 3, 3, 8))))
    z = b.contract(b.permute(x, (0, 3, 1, 2)), b.permute(w, (0, 3, 1, 2)), CONVOLUTION)
    graph = Graph((x, w), (z, b.permute(z, (0, 2, 3, 1))))
    result = ChannelsLast().run(graph)
    assert Counter(n.op for n in result.nodes)["permute"] == 1, "of the first output"
    rng = np.random.default_rng(1)
    same(graph, result, [rng.integers(-4, 5, n.shape).astype(n.dtype.numpy) for n in graph.inputs])


class Maker:
    """Random values of rank 4 and what can be made of them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.b = Builder()
        self.inputs: list[Node] = []
        self.values = [self.input((2, 8, 6, 6))]
        self.others: list[Node] = []

    def input(self, shape: tuple[int, ...]) -> Node:
        self.inputs.append(self.b.input(len(self.inputs), TensorType(bf16, shape)))
        return self.inputs[-1]

    def graph(self) -> Graph:
        for _ in range(12):
            x = self.rng.choice(self.values[-3:])
            made = getattr(self, self.rng.choice([name for name in dir(self) if name.startswith("op_")]))(x)
            if made is not None and made.type.size:
                (self.values if made.type.rank == 4 else self.others).append(made)
        outputs = (self.values[-1], *self.others[-2:], self.rng.choice(self.values))
        return Graph(tuple(self.inputs), tuple(dict.fromkeys(outputs)))

    def op_convolution(self, x: Node) -> Node | None:
        _, c, h, w = x.shape
        if min(h, w) < 3 or c % 8:
            return None
        kernel = self.input((self.rng.choice((8, 16)), c, 3, 3))
        pad = self.rng.choice((0, 1))
        x = self.b.pad(x, (0, 0, pad, pad), (0, 0, pad, pad))
        return self.b.contract(x, kernel, self.rng.choice((CONVOLUTION, STRIDED)))

    op_again = op_convolution

    def op_small(self, x: Node) -> Node | None:
        return self.b.contract(x, self.input((8, x.shape[1])), "b c h w, o c -> b o h w")

    def op_gradient(self, x: Node) -> Node | None:
        h, w = x.shape[2:]
        if min(h, w) < 3:
            return None
        y = self.input((x.shape[0], 8, h - 2, w - 2))
        return self.b.contract(y, x, "b o h w, b c h+r w+s -> o c r s")

    def op_relu(self, x: Node) -> Node:
        return self.b.elementwise("maximum", x, self.b.constant(0, x.type))

    def op_add(self, x: Node) -> Node:
        others = [v for v in self.values if v.shape == x.shape]
        return self.b.add(x, self.rng.choice(others))

    def op_bias(self, x: Node) -> Node:
        bias = self.b.reshape(self.input((x.shape[1],)), (x.shape[1], 1, 1))
        return self.b.add(x, self.b.broadcast(bias, x.shape))

    def op_normalise(self, x: Node) -> Node:
        mean = self.b.reshape(self.b.reduce_sum(x, (0, 2, 3)), (1, x.shape[1], 1, 1))
        return self.b.sub(x, self.b.broadcast(self.b.mul(mean, 0.125), x.shape))

    def op_count(self, x: Node) -> Node:
        places = self.b.cast(self.b.iota(self.rng.randrange(4), x.type.with_dtype(i64)), bf16)
        return self.b.mul(x, places)

    def op_choose(self, x: Node) -> Node:
        which = self.b.make("lt", (x, self.b.constant(1, x.type)), (), x.type.with_dtype(boolean))
        return self.b.select(which, x, self.b.constant(2, x.type))

    def op_pool(self, x: Node) -> Node | None:
        if min(x.shape[2:]) < 2:
            return None
        windows = self.b.window(x, (2, 3), (2, 2), (2, 2), (1, 1))
        return self.b.reduce_max(windows, (4, 5), "first")

    def op_unpool(self, x: Node) -> Node:
        n, c, h, w = x.shape
        parts = self.b.broadcast(self.b.reshape(x, (n, c, h, w, 1, 1)), (n, c, h, w, 2, 2))
        return self.b.fold(parts, (n, c, 2 * h, 2 * w), (2, 3), (2, 2), (1, 1)) if h * w < 40 else x

    def op_pad(self, x: Node) -> Node:
        return self.b.pad(x, (0, 0, 1, 0), (0, 0, 0, 1), value=self.rng.choice((0.0, 1.0)))

    def op_cut(self, x: Node) -> Node | None:
        n, c, h, w = x.shape
        if h < 3:
            return None
        step = self.rng.choice((1, -1))
        return self.b.slice(x, (0, 0, h - 1 if step < 0 else 1, 0), (n, c, h - 1, w), (1, 1, step, 1))

    def op_join(self, x: Node) -> Node:
        return self.b.concat((x, self.op_relu(x)), self.rng.choice((1, 2, 3))) if x.type.size < 3000 else x

    def op_permute(self, x: Node) -> Node:
        return self.b.permute(x, self.rng.choice(((0, 1, 3, 2), (1, 0, 2, 3), (0, 2, 3, 1))))

    def op_interleave(self, x: Node) -> Node:
        n, c, h, w = x.shape
        halves = self.b.reshape(x, (n, c // 2, 2, h, w)) if c % 2 == 0 else self.b.reshape(x, (n, c, 1, h, w))
        return self.b.reshape(self.b.permute(halves, (0, 1, 3, 2, 4)), (n, halves.shape[1], h * halves.shape[2], w))

    def op_sum(self, x: Node) -> Node:
        return self.b.reduce_sum(x, self.rng.choice(((1,), (2, 3), (0, 1))))

    def op_find(self, x: Node) -> Node:
        return self.b.apply("argmax", (x,), {"axes": self.rng.choice(((1,), (2, 3), (1, 2))), "dtype": i64})

    def op_flatten(self, x: Node) -> Node:
        return self.b.reshape(x, (x.shape[0], x.type.size // x.shape[0]))

    def op_scan(self, x: Node) -> Node:
        return self.b.apply("scan_max", (x,), {"axis": self.rng.randrange(4), "reverse": False})


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("part", range(8))
def test_random_graphs(part: int) -> None:
    changed = 0
    for seed in range(part * 25, part * 25 + 25):
        graph = Maker(seed).graph()
        result = ChannelsLast().run(graph)
        changed += result is not graph
        rng = np.random.default_rng(seed)
        same(graph, result, [rng.integers(-2, 3, n.shape).astype(n.dtype.numpy) for n in graph.inputs])
    assert changed >= 5
