"""Scans that compute what they read: a few plain operations on each element, which is stored nowhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DTYPES, TensorType, boolean, f32, i64
from graphc.pipeline import build_program
from tests.codegen.programs import run, same_bits
from tests.codegen.targets import AVX2, runnable

TARGETS = runnable()
BY_NAME = {dtype.name: dtype for dtype in DTYPES}
SHAPES = [((13, 1024), 1), ((600, 257), 1), ((40, 30), 0), ((5, 7, 3), 1), ((3, 50), 1), ((1, 1), 0), ((16, 2, 259), 2)]

Change = Callable[[Builder, Node, Node], Node]


def _number(b: Builder, number: Node, like: Node) -> Node:
    return b.broadcast(b.reshape(number, (1,) * like.type.rank), like.shape)


CHANGES: dict[str, tuple[str, Change]] = {
    "cast": ("i32", lambda b, x, s: b.cast(x, i64)),
    "from bool": ("bool", lambda b, x, s: b.cast(x, i64)),
    "from bytes": ("u8", lambda b, x, s: b.cast(b.mul(x, 3), f32)),
    "count": ("f32", lambda b, x, s: b.cast(b.apply("gt", (x, b.constant(0.5, x.type))), i64)),
    "scaled": ("f32", lambda b, x, s: b.sub(b.mul(x, _number(b, s, x)), 1.0)),
    "twice": ("f64", lambda b, x, s: b.apply("maximum", (b.mul(x, x), x))),
    "half": ("f16", lambda b, x, s: b.add(x, x)),
    "brain": ("bf16", lambda b, x, s: b.mul(x, 2.0)),
    "flat": ("f32", lambda b, x, s: b.reshape(b.neg(b.reshape(x, (x.type.size,))), x.shape)),
}


def _graph(op: str, shape: tuple[int, ...], axis: int, reverse: bool, dtype: str, change: Change) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], shape))
    s = b.input(1, TensorType(f32, ()))
    return Graph((x, s), (b.scan(op, change(b, x, s), axis, reverse),))


@pytest.mark.share(3)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_results_are_those_of_the_reference(shape: tuple[int, ...], axis: int, kind: str, target: str) -> None:
    dtype, change = CHANGES[kind]
    arrays = [np.asarray(np.random.default_rng(5).integers(0, 3, shape)).astype(BY_NAME[dtype].numpy), np.float32(2)]
    for op, reverse in (("scan_sum", False), ("scan_max", True)):
        graph = _graph(op, shape, axis, reverse, dtype, change)
        given = [np.asarray(a) for a in arrays]
        (got,), (expected,) = run(graph, given, TARGETS[target]), evaluate(graph, given)
        assert same_bits(got, expected)


@pytest.mark.parametrize("kind", CHANGES)
def test_one_kernel_does_it_without_memory_between(kind: str) -> None:
    program = build_program(_graph("scan_sum", (600, 512), 1, False, *CHANGES[kind]), target=AVX2)
    assert len(program.kernels) == 1
    assert program.plan.arena_bytes == 0


@pytest.mark.parametrize("target", TARGETS)
def test_both_operands_of_a_recurrence(target: str) -> None:
    b = Builder()
    a, x = (b.input(i, TensorType(f32, (9, 40, 21))) for i in range(2))
    graph = Graph((a, x), (b.recurrence(b.mul(a, 0.5), b.add(x, a), 1),))
    assert len(build_program(graph, target=TARGETS[target]).kernels) == 1
    arrays = [np.random.default_rng(i).integers(-2, 3, (9, 40, 21)).astype(np.float32) for i in range(2)]
    (got,), (expected,) = run(graph, arrays, TARGETS[target]), evaluate(graph, arrays)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def _kept(b: Builder, x: Node) -> tuple[Node, ...]:
    scaled = b.mul(x, 2.0)
    return b.scan("scan_sum", scaled, 1), scaled


def _read_twice(b: Builder, x: Node) -> tuple[Node, ...]:
    scaled = b.mul(x, 2.0)
    return b.scan("scan_sum", scaled, 1), b.scan("scan_max", scaled, 1)


def _heavy(b: Builder, x: Node) -> tuple[Node, ...]:
    return (b.scan("scan_sum", b.exp(x), 1),)


def _by_rows(b: Builder, x: Node) -> tuple[Node, ...]:
    return (b.scan("scan_sum", b.sub(x, b.expand_dims(b.reduce_max(x, (1,)), (1,), x.shape)), 1),)


def _turned(b: Builder, x: Node) -> tuple[Node, ...]:
    return (b.scan("scan_sum", b.mul(b.permute(x, (1, 0)), 2.0), 0),)


@pytest.mark.parametrize("make", [_kept, _read_twice, _heavy, _by_rows])
def test_what_others_need_or_takes_long_is_stored(make: Callable[[Builder, Node], tuple[Node, ...]]) -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (64, 300)))
    graph = Graph((x,), make(b, x))
    assert len(build_program(graph, target=AVX2).kernels) > 1
    array = np.random.default_rng(0).integers(-2, 3, (64, 300)).astype(np.float32)
    for got, expected in zip(run(graph, [array]), evaluate(graph, [array]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_elements_in_another_order_are_right() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (64, 300)))
    graph = Graph((x,), _turned(b, x))
    array = np.random.default_rng(0).integers(-2, 3, (64, 300)).astype(np.float32)
    (got,), (expected,) = run(graph, [array]), evaluate(graph, [array])
    assert same_bits(got, expected)


def test_bools_are_no_different() -> None:
    b = Builder()
    x = b.input(0, TensorType(boolean, (20, 300)))
    graph = Graph((x,), (b.scan("scan_max", b.apply("bitwise_not", (x,)), 1),))
    array = np.random.default_rng(0).random((20, 300)) < 0.99
    (got,), (expected,) = run(graph, [array]), evaluate(graph, [array])
    assert same_bits(got, expected)


def test_a_constant_that_another_scan_reads_too_is_computed_by_each() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (6, 9)))
    zero = b.constant(0.0, x.type)
    positive = b.select(b.apply("le", (x, zero)), zero, x)
    outputs = b.apply("recurrence", (zero, x), {"axis": 1, "reverse": False}), b.scan("scan_prod", positive, 1, True)
    graph = Graph((x,), outputs)
    values = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)
    for got, expected in zip(run(graph, [values]), evaluate(graph, [values]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
