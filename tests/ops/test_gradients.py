"""Gradients of every differentiable operator, of first and second order, against central differences in f64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from graphc.errors import AutodiffError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.types import TensorType, f32, f64
from graphc.ir.verify import verify
from graphc.passes.autodiff import vjp
from tests.samples import SAMPLES, Sample, twice_differentiable, type_of

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3

CASES = [
    pytest.param(op, sample, id=f"{op}-{i}")
    for op, samples in SAMPLES.items()
    if samples.smooth
    for i, sample in enumerate(samples.smooth(np.random.default_rng(7)))
]


def total(b: Builder, nodes: Sequence[Node | None], weights: Sequence[Node]) -> Node:
    """The sum of all elements of the nodes times their weights; None counts as zero."""
    result = b.constant(0, TensorType(f64, ()))
    for node, weight in zip(nodes, weights, strict=True):
        if node is not None:
            product = b.mul(node, weight)
            result = b.add(result, b.reduce_sum(product, tuple(range(product.type.rank))))
    return result


def check_against_differences(
    inputs: Sequence[Node],
    arrays: Sequence[np.ndarray],
    scalar: Node,
    wrt: Sequence[Node],
    gradients: Sequence[Node | None],
) -> None:
    """`gradients` of `scalar` at `arrays` agree with central differences."""
    b = Builder()
    dense = [b.zeros_like(x) if g is None else g for x, g in zip(wrt, gradients, strict=True)]
    symbolic = evaluate(verify(Graph(tuple(inputs), tuple(dense))), arrays)
    value = Graph(tuple(inputs), (scalar,))
    for x, gradient in zip(wrt, symbolic, strict=True):
        moved = [a.copy() for a in arrays]
        target = moved[inputs.index(x)]
        expected = np.zeros(target.shape)
        for place in np.ndindex(*target.shape):
            middle = target[place]
            sides = []
            for step in (EPS, -EPS):
                target[place] = middle + step
                sides.append(float(evaluate(value, moved)[0]))
            target[place] = middle
            expected[place] = (sides[0] - sides[1]) / (2 * EPS)
        np.testing.assert_allclose(gradient, expected, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize(("op", "sample"), CASES)
def test_first_and_second_order(op: str, sample: Sample) -> None:
    rng = np.random.default_rng(11)
    b = Builder()
    inputs = [b.input(i, type) for i, type in enumerate(sample.types)]
    node = sample.apply(b, op, inputs)
    arrays = [a.copy() for a in sample.arrays]

    def weight_for(like: Node) -> Node:
        inputs.append(b.input(len(inputs), like.type))
        arrays.append(rng.normal(size=like.shape))
        return inputs[-1]

    wrt = [x for i, x in enumerate(inputs) if x.dtype is f64 and i not in SAMPLES[op].constant]
    cotangent = weight_for(node)
    gradients = vjp(b, [node], [cotangent], wrt)
    assert any(g is not None for g in gradients)
    check_against_differences(inputs, arrays, total(b, [node], [cotangent]), wrt, gradients)

    if not twice_differentiable(gradients):
        return
    slope = total(b, gradients, [weight_for(x) for x in wrt])
    second = vjp(b, [slope], [b.constant(1, slope.type)], [*wrt, cotangent])
    check_against_differences(inputs, arrays, slope, [*wrt, cotangent], second)


@pytest.mark.parametrize(
    "op", [name for name, op in OPS.items() if op.vjp is None and op.arity and op.kind != "composite"]
)
def test_operators_without_gradient_stop_it(op: str) -> None:
    for sample in SAMPLES[op].make(np.random.default_rng(0)):
        b = Builder()
        inputs = [b.input(i, type) for i, type in enumerate(sample.types)]
        node = sample.apply(b, op, inputs)
        if node.dtype.is_float and OPS[op].why_no_vjp.startswith("undefined"):
            with pytest.raises(AutodiffError, match="has no gradient: undefined"):
                vjp(b, [node], [node], [x for x in inputs if x.dtype.is_float])
        elif node.dtype.is_float:
            floats = [x for x in inputs if x.dtype.is_float]
            assert vjp(b, [node], [node], floats) == [None] * len(floats)


def gradients_at(make: Callable[..., Node], *arrays: np.ndarray, ct: np.ndarray | None = None) -> list[np.ndarray]:
    """Gradients of `make(b, *inputs)` with a cotangent of ones (or `ct`)."""
    b = Builder()
    inputs = [b.input(i, type_of(a)) for i, a in enumerate(arrays)]
    node = make(b, *inputs)
    weight = b.input(len(inputs), node.type)
    found = vjp(b, [node], [weight], [x for x in inputs if x.dtype.is_float])
    graph = Graph((*inputs, weight), tuple(g for g in found if g is not None))
    return evaluate(graph, [*arrays, np.ones(node.shape, node.dtype.numpy) if ct is None else ct])


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("op", "x", "y", "dx", "dy"),
    [
        ("maximum", 1.0, 1.0, 0.5, 0.5),
        ("minimum", 1.0, 1.0, 0.5, 0.5),
        ("maximum", 2.0, 1.0, 1.0, 0.0),
        ("minimum", 2.0, 1.0, 0.0, 1.0),
        ("pow", 0.0, 2.0, 0.0, 0.0),
        ("pow", 0.0, 0.0, 0.0, 0.0),
        ("pow", 0.0, 1.0, 1.0, 0.0),
        ("pow", -2.0, 2.0, -4.0, NAN),
        ("pow", 5.0, 0.0, 0.0, np.log(5.0)),
        ("remainder", 5.5, -2.0, 1.0, 3.0),
    ],
)  # fmt: skip
def test_kinks_and_poles_as_pytorch(op: str, x: float, y: float, dx: float, dy: float) -> None:
    """The expected numbers are what torch.autograd gives."""
    found = gradients_at(lambda b, x, y: b.apply(op, (x, y)), np.array([x]), np.array([y]))
    np.testing.assert_allclose([float(g[0]) for g in found], [dx, dy])


def test_abs_and_relu_at_zero() -> None:
    x = np.array([-1.0, 0.0, 2.0, NAN])
    (slope,) = gradients_at(lambda b, x: b.apply("abs", (x,)), x)
    np.testing.assert_array_equal(slope[:3], [-1, 0, 1])

    def relu(b: Builder, x: Node) -> Node:
        return b.select(b.elementwise("le", x, 0), 0, x)

    (slope,) = gradients_at(relu, x)
    np.testing.assert_array_equal(slope, [0, 0, 1, 1])


@pytest.mark.parametrize("op", ["reduce_max", "reduce_min"])
def test_ties(op: str) -> None:
    x = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [NAN, 2.0, NAN], [-INF, -INF, INF]])
    x = -x if op == "reduce_min" else x

    def reduced(ties: str) -> Callable[..., Node]:
        return lambda b, x: b.apply(op, (x,), {"axes": (1,), "ties": ties})

    ct = np.array([6.0, 6.0, 6.0, 6.0])
    (even,) = gradients_at(reduced("even"), x, ct=ct)
    np.testing.assert_array_equal(even, [[3, 3, 0], [2, 2, 2], [3, 0, 3], [0, 0, 6]])
    (first,) = gradients_at(reduced("first"), x, ct=ct)
    np.testing.assert_array_equal(first, [[6, 0, 0], [6, 0, 0], [6, 0, 0], [0, 0, 6]])


def test_first_of_several_axes() -> None:
    x = np.zeros((2, 3, 2))
    x[1, :, :] = 5
    (first,) = gradients_at(lambda b, x: b.reduce_max(x, (0, 2), "first"), x)
    expected = np.zeros((2, 3, 2))
    expected[1, :, 0] = 1
    np.testing.assert_array_equal(first, expected)


def test_duplicate_indices_add_up() -> None:
    x, index = np.arange(6.0).reshape(3, 2), np.array([0, 2, 0, 0])
    (gradient,) = gradients_at(lambda b, x, index: b.apply("gather", (x, index), {"axis": 0}), x, index)
    np.testing.assert_array_equal(gradient, [[3, 3], [0, 0], [1, 1]])


def test_casts_between_floats_carry_the_gradient() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3,)))
    (gradient,) = vjp(b, [b.cast(x, f64)], [b.constant(2, TensorType(f64, (3,)))], [x])
    assert gradient is not None and gradient.type == x.type


def test_a_cotangent_of_another_type_is_refused() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (3,)))
    with pytest.raises(AutodiffError, match=r"f32\[3\] has type f32\[2\]"):
        vjp(b, [b.neg(x)], [b.constant(1, TensorType(f32, (2,)))], [x])
