"""Contractions over operands with zeros between elements in phases: what they read, how much they multiply, results."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, f64, i32, i64
from graphc.ir.verify import verify
from graphc.passes import phases, skip_zeros
from graphc.passes.autodiff import grad_graph
from graphc.passes.skip_zeros import SkipZeros
from graphc.pipeline import optimize
from tests.codegen.programs import run

Ints = tuple[int, ...]
SPATIAL = (("p", "r"), ("q", "s"), ("u", "v"))


def products(graph: Graph) -> int:
    """Multiplications of all contractions."""
    total = 0
    for node in graph.nodes:
        if node.op == "contract":
            spec = parse_spec(node.text("spec"))
            total += math.prod(spec.extents(node.inputs[0].shape, node.inputs[1].shape).values())
    return total


def contracts(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op == "contract"]


def reads_between(graph: Graph) -> bool:
    """Whether a contraction reads zeros between elements."""
    stack = [x for n in contracts(graph) for x in n.inputs]
    while stack:
        node = stack.pop()
        if node.op == "pad" and any(node.ints("interior")):
            return True
        if node.op in ("pad", "slice", "reshape", "permute", "materialize"):
            stack.extend(node.inputs)
    return False


def spread(
    size: Ints,
    kernel: Ints,
    stride: Ints,
    low: Ints,
    high: Ints,
    dilation: int = 1,
    channels: Ints = (2, 5, 4),
    dtype: DType = f64,
    flipped: bool = True,
    kernel_first: bool = False,
) -> Graph:
    """The gradient of a convolution by its input, in as many dimensions as `size` has."""
    b = Builder()
    batch, many, few = channels
    x = b.input(0, TensorType(dtype, (batch, many, *size)))
    w = y = b.input(1, TensorType(dtype, (many, few, *kernel)))
    between = tuple(s - 1 for s in stride)
    padded = b.pad(x, (0, 0, *low), (0, 0, *high), (0, 0, *between))
    if flipped:
        y = b.flip(w, tuple(range(2, 2 + len(size))))
    letters = SPATIAL[: len(size)]
    far = str(dilation) if dilation > 1 else ""
    first = "b o " + " ".join(f"{p}+{far}{r}" for p, r in letters)
    second = "o c " + " ".join(r for _, r in letters)
    out = "b c " + " ".join(p for p, _ in letters)
    if kernel_first:
        return Graph((x, w), (b.contract(y, padded, f"{second}, {first} -> {out}"),))
    return Graph((x, w), (b.contract(padded, y, f"{first}, {second} -> {out}"),))


def sliced(graph: Graph, start: Ints, size: Ints, step: Ints) -> Graph:
    return graph.with_outputs((Builder.of(graph).slice(graph.outputs[0], start, size, step),))


def arrays_for(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(-9, 10, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def check(graph: Graph, native: bool = False) -> Graph:
    """The graph after the pass, which gives the same: small integers, so that every order of adding up is exact."""
    result = SkipZeros().run(graph)
    verify(result)
    assert SkipZeros().run(result) is result
    assert result.outputs[0].type == graph.outputs[0].type
    arrays = arrays_for(graph)
    (expected,) = evaluate(graph, arrays)
    np.testing.assert_array_equal(evaluate(result, arrays)[0], expected)
    if native:
        np.testing.assert_array_equal(run(graph, arrays)[0], expected)
    return result


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small contractions are split too."""
    monkeypatch.setattr(skip_zeros, "COPY", 0)
    monkeypatch.setattr(skip_zeros, "STEP", 0)


def test_only_elements_are_multiplied() -> None:
    # 7x7 with stride 2: of the 49 taps 9, 12, 12 and 16 meet elements
    graph = spread((112, 112), (7, 7), (2, 2), (5, 5), (6, 6), channels=(1, 64, 3))
    result = SkipZeros().run(graph)
    assert not reads_between(result)
    taps = [products(result.with_outputs((n,))) // (n.type.size * 64) for n in contracts(result)]
    assert sorted(taps) == [9, 12, 12, 16]
    assert 3.9 < products(graph) / products(result) <= 4


def test_a_single_tap_is_stored_among_zeros() -> None:
    graph = spread((28, 28), (1, 1), (2, 2), (0, 0), (1, 1), channels=(1, 128, 64))
    result = SkipZeros().run(graph)
    (product,) = contracts(result)
    assert product.shape == (1, 64, 28, 28) and product.text("spec") == "b o p q, o c -> b c p q"
    assert result.outputs[0].op == "pad" and result.outputs[0].ints("interior") == (0, 0, 1, 1)
    assert products(graph) == 4 * products(result)


def test_phases_of_equal_length_are_one_contraction() -> None:
    graph = spread((56, 56), (4, 4), (4, 4), (3, 3), (3, 3), channels=(1, 96, 3))
    result = SkipZeros().run(graph)
    (product,) = contracts(result)
    assert product.shape == (4, 4, 1, 3, 56, 56) and products(graph) == 16 * products(result)
    wide = SkipZeros().run(spread((14,), (16,), (16,), (15,), (15,), channels=(1, 768, 3)))
    assert len(contracts(wide)) == 1


def test_a_crop_is_not_computed() -> None:
    graph = spread((8, 8), (3, 3), (1, 1), (2, 2), (2, 2))
    assert SkipZeros().run(graph) is graph
    cropped = sliced(graph, (0, 0, 1, 1), (2, 4, 8, 8), (1, 1, 1, 1))
    result = check(cropped, native=True)
    assert [n.shape for n in contracts(result)] == [(2, 4, 8, 8)] and result.outputs[0].op == "contract"
    assert products(result) * 100 == products(cropped) * 64


def test_every_other_result_is_not_computed_to_be_dropped() -> None:
    graph = spread((9, 9), (3, 3), (1, 1), (1, 1), (1, 1))
    strided = sliced(graph, (1, 0, 0, 1), (1, 4, 5, 4), (1, 1, 2, 2))
    result = check(strided, native=True)
    assert contracts(result)[0].text("spec") == "b o 2p+r 2q+s, o c r s -> b c p q"
    assert products(result) == 1 * 4 * 5 * 4 * 5 * 9


def test_what_is_no_gain_stays_the_same_object() -> None:
    small = spread((3, 3), (3, 3), (2, 2), (2, 2), (2, 2), channels=(1, 1, 1))
    plain = spread((9, 9), (3, 3), (1, 1), (1, 1), (1, 1))
    for graph in (small, plain):
        assert SkipZeros().run(graph) is graph
    b = Builder()
    x, y = b.input(0, TensorType(f32, (8, 8))), b.input(1, TensorType(f32, (8, 8)))
    for graph in (Graph((x, y), (b.add(x, y),)), Graph((x, y), (b.contract(x, y, "m k, k n -> m n"),))):
        assert SkipZeros().run(graph) is graph


def test_nan_reaches_the_results_that_meet_it(eager: None) -> None:
    """Where the reference multiplies it by the zeros between elements too: the one thing that is not kept."""
    graph = spread((4,), (3,), (2,), (2,), (3,), channels=(1, 1, 1), flipped=False)
    x, w = np.ones((1, 1, 4)), np.array([[[1.0, np.nan, 2.0]]])
    (expected,), (got,) = evaluate(graph, [x, w]), evaluate(SkipZeros().run(graph), [x, w])
    assert np.isnan(expected).all()
    np.testing.assert_array_equal(got[0, 0], [2, np.nan, 3, np.nan, 3, np.nan, 3, np.nan, 1, np.nan])


def test_few_products_are_left_alone() -> None:
    """A single phase needs no copy; still some hundred products are not worth what an infinity would have given."""
    graph = spread((4,), (1,), (2,), (0,), (1,), channels=(1, 4, 4))
    assert SkipZeros().run(graph) is graph


def test_a_value_between_elements_other_than_zero_stays() -> None:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (1, 64, 56))), b.input(1, TensorType(f32, (64, 64, 3)))
    padded = b.pad(x, (0, 0, 2), (0, 0, 2), (0, 0, 1), 1.0)
    graph = Graph((x, w), (b.contract(padded, w, "b o p+r, o c r -> b c p"),))
    assert SkipZeros().run(graph) is graph


def test_a_contraction_with_other_readers_keeps_all_results() -> None:
    graph = spread((8, 8), (3, 3), (1, 1), (2, 2), (2, 2))
    whole = graph.outputs[0]
    cut = Builder.of(graph).slice(whole, (0, 0, 1, 1), (2, 4, 8, 8), (1, 1, 1, 1))
    both = graph.with_outputs((cut, whole))
    assert SkipZeros().run(both) is both


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_one_dimension(stride: int, kernel: int, dilation: int, eager: None) -> None:
    cuts = (None, (0, 1), (1, 1), (2, 1), (0, 2), (1, 3), (1, -1), (0, -2))
    for size, low, high, cut in itertools.product((1, 4), (0, 1, 3), (0, 2), cuts):
        if low + high + (size - 1) * stride + 1 <= dilation * (kernel - 1):
            continue
        flip = (low + kernel) % 2 == 0
        graph = spread((size,), (kernel,), (stride,), (low,), (high,), dilation, (1, 2, 3), i64, flip, not flip)
        length = graph.outputs[0].shape[2]
        if cut is not None and cut[0] < length:
            start, step = cut
            count = (length - start - 1) // abs(step) + 1
            begin = start if step > 0 else length - 1 - start
            graph = sliced(graph, (0, 1, begin), (1, 2, count), (1, 1, step))
        result = check(graph)
        assert products(result) <= products(graph)
        # A few results alone may need no zero of those that lie between elements.
        assert not reads_between(result) or length < stride or products(result) == products(graph)


@pytest.mark.parametrize("dtype", [f32, f64, i32], ids=str)
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "low", "high", "dilation"),
    [
        ((5, 6), (3, 3), (2, 2), (1, 1), (2, 1), 1),
        ((5, 6), (7, 7), (2, 2), (3, 3), (4, 3), 1),
        ((5, 6), (1, 1), (2, 2), (0, 0), (1, 0), 1),
        ((4, 5), (3, 1), (2, 3), (1, 0), (1, 2), 1),
        ((4, 5), (3, 3), (1, 2), (2, 1), (2, 2), 2),
        ((4, 5), (2, 4), (2, 4), (1, 3), (1, 3), 1),
        ((4, 5), (4, 4), (2, 2), (2, 2), (2, 2), 1),
        ((3, 2, 4), (3, 2, 3), (2, 2, 3), (1, 1, 2), (2, 1, 0), 1),
    ],
)
def test_natively(
    size: Ints, kernel: Ints, stride: Ints, low: Ints, high: Ints, dilation: int, dtype: DType, eager: None
) -> None:
    graph = spread(size, kernel, stride, low, high, dilation, dtype=dtype)
    assert not reads_between(check(graph, native=True))
    shape = graph.outputs[0].shape
    inner = tuple(n - 2 for n in shape[2:])
    ones = (1,) * len(size)
    if min(inner) > 0:
        check(sliced(graph, (0, 1, *ones), (2, 2, *inner), (1, 1, *ones)), native=True)


def test_batches_across_lanes() -> None:
    check(spread((9, 9), (3, 3), (2, 2), (1, 1), (2, 2), channels=(16, 24, 16), dtype=f32), native=True)
    check(spread((9, 9), (4, 4), (4, 4), (3, 3), (3, 3), channels=(16, 24, 16), dtype=f32), native=True)


def test_merged_phases_cover_results_beyond_the_ends(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    monkeypatch.setattr(phases, "MANY", 1)
    monkeypatch.setattr(phases, "MERGED_EXCESS", 99)
    for low, high in itertools.product(range(5), range(4)):
        graph = spread((4,), (4,), (2,), (low,), (high,))
        assert len(contracts(check(graph))) == 1


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_gradients_of_convolutions_and_transposed_ones(stride: int, kernel: int, eager: None) -> None:
    """First derivatives of both, as they come out of the whole pipeline, read no zeros between elements."""
    b = Builder()
    x, w = b.input(0, TensorType(f64, (2, 3, 11, 10))), b.input(1, TensorType(f64, (4, 3, kernel, kernel)))
    padded = b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1))
    s = "" if stride == 1 else str(stride)
    y = b.contract(padded, w, f"b c {s}h+r {s}w+s, o c r s -> b o h w")
    total = b.reduce_sum(b.mul(y, y), (0, 1, 2, 3))
    graph = grad_graph(Graph((x, w), (total,)))
    assert not reads_between(optimize(graph))
    arrays = arrays_for(graph)
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_what_pooling_leaves_over_is_not_computed() -> None:
    """Of 7x7 results of a convolution windows cover 6x6: no more is computed, forwards or for weights."""
    b = Builder()
    x, w = b.input(0, TensorType(f32, (64, 2, 9, 9))), b.input(1, TensorType(f32, (4, 2, 3, 3)))
    h = b.contract(x, w, "b c h+r w+s, o c r s -> b o h w")
    relu = b.select(b.elementwise("le", h, 0), 0, h)
    covered = b.slice(relu, (0, 0, 0, 0), (64, 4, 6, 6), (1, 1, 1, 1))
    pooled = b.reduce_max(b.window(covered, (2, 3), (2, 2), (2, 2), (1, 1)), (4, 5), "first")
    graph = grad_graph(Graph((x, w), (b.reduce_sum(b.mul(pooled, pooled), (0, 1, 2, 3)),)), wrt=(1,))
    changed = optimize(graph)
    verify(changed)
    shapes = [(tuple(i.shape for i in n.inputs), n.shape) for n in changed.nodes if n.op == "contract"]
    assert (((64, 2, 8, 8), (4, 2, 3, 3)), (64, 4, 6, 6)) in shapes
    assert (((64, 4, 6, 6), (64, 2, 8, 8)), (4, 2, 3, 3)) in shapes
    arrays = arrays_for(graph)
    for a, c in zip(evaluate(changed, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-5)
