"""Concatenations that are stored part by part: one kernel, one walk over a part's shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_PARTS
from graphc.ir.schedule_text import print_fused
from graphc.ir.schedule_verify import verify_fused
from graphc.ir.types import TensorType, f32, i64
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run, same_bits
from tests.codegen.raw import program_for
from tests.codegen.targets import AVX512, SSE2, runnable

Join = Callable[[Builder, Node, int, int], Node]


def compare(graph: Graph, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    arrays = [
        (0.3 * rng.standard_normal(n.shape)).astype(np.float32) if n.dtype is f32 else rng.integers(0, 9, n.shape)
        for n in graph.inputs
    ]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 16, 24), (1, 1, 33), (4, 9, 1)])
def test_parts_along_any_axis(axis: int, shape: tuple[int, ...]) -> None:
    b = Builder()
    type = TensorType(f32, shape)
    x, y = b.input(0, type), b.input(1, type)
    whole = b.concat((b.exp(x), y, b.sub(x, y), b.constant(2.5, type), y), axis)
    graph = Graph((x, y), (whole, b.neg(whole)))
    verify_fused(schedule(graph, host_target()))
    compare(graph)


def test_one_kernel_walks_a_part_and_stores_all_of_them() -> None:
    b = Builder()
    type = TensorType(f32, (16, 256))
    gates = [b.input(i, type) for i in range(4)]
    weight = b.input(4, TensorType(f32, (1024, 32)))
    whole = b.concat(tuple(b.mul(b.neg(g), gates[0]) for g in gates), 1)
    graph = Graph((*gates, weight), (b.contract(whole, weight, "b o, o i -> b i"),))
    fused = schedule(graph, host_target())
    verify_fused(fused)
    assert [g.domain for g in fused.groups] == [(16, 256), (16, 32)]
    first = fused.groups[0]
    assert len(first.roots) == 4 and len(first.targets) == 1
    assert print_fused(fused).startswith("// kernel 0: over [16, 256], stores %")
    program = program_for(graph)
    assert [p.mode for p in program.kernels[0].params].count("out") == 1
    compare(graph)


def test_parts_that_are_turned_or_made_by_products() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(f32, (4, 24, 16))), b.input(1, TensorType(f32, (4, 16, 24)))
    product = b.contract(x, y, "b i k, b k j -> b i j")
    other = b.contract(y, x, "b k j, b i k -> b j i")
    parts = (product, b.permute(other, (0, 2, 1)), b.mul(product, b.constant(0.5, product.type)))
    whole = b.concat(tuple(b.reshape(p, (1, 4, 24, 24)) for p in parts), 0)
    graph = Graph((x, y), (b.reduce_sum(whole, (2,)), b.contract(whole, x, "p b i j, b i k -> p b j k")))
    compare(graph)


def test_more_parts_than_one_kernel_takes_and_unequal_ones() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 3)))
    many = b.concat((x,) * (MAX_PARTS + 1), 1)
    unequal = b.concat((x, b.slice(x, (0, 0), (2, 1), (1, 1))), 1)
    compare(Graph((x,), (many, unequal)))


def test_an_operand_is_not_overwritten_by_a_whole_of_its_shape() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (8, 32)))
    stored = b.apply("materialize", (b.exp(x),))
    halves = [b.slice(stored, (0, 16 * i), (8, 16), (1, 1)) for i in (0, 1)]
    compare(Graph((x,), (b.concat((halves[1], b.neg(halves[1])), 1), b.concat((halves[1], halves[0]), 1))))


def test_integers_and_other_targets() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(i64, (6, 10))), b.input(1, TensorType(i64, (6, 10)))
    graph = Graph((x, y), (b.concat((b.add(x, y), b.mul(x, y)), 1),))
    compare(graph)
    for target in (AVX512, SSE2):
        assert len(build_program(graph, target=target).kernels) == 1


def _mirrored(b: Builder, x: Node, axis: int, count: int) -> Node:
    n, rank = x.shape[axis], x.type.rank

    def part(start: int) -> Node:
        size = tuple(count if i == axis else e for i, e in enumerate(x.shape))
        starts = tuple(start if i == axis else 0 for i in range(rank))
        return b.slice(x, starts, size, tuple(-1 if i == axis else 1 for i in range(rank)))

    return b.concat((part(count), x, part(n - 2)), axis)


def _rolled(b: Builder, x: Node, axis: int, count: int) -> Node:
    n, rank = x.shape[axis], x.type.rank
    cuts = [(n - count, count), (0, n - count)]
    parts = [
        b.slice(
            x,
            tuple(start if i == axis else 0 for i in range(rank)),
            tuple(size if i == axis else e for i, e in enumerate(x.shape)),
            (1,) * rank,
        )
        for start, size in cuts
    ]
    return b.concat(tuple(parts), axis)


@pytest.mark.share(3)
@pytest.mark.parametrize("target", runnable())
@pytest.mark.parametrize("make", [_mirrored, _rolled])
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (1, 2), (2, 1), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(7, 6, 40), (4, 9, 5)])
def test_places_of_one_buffer(shape: tuple[int, ...], axes: tuple[int, ...], make: Join, target: str) -> None:
    """With more beside them, at the edges of vectors, and inside a padding."""
    b = Builder()
    x = b.input(0, TensorType(f32, shape))
    y = x
    for axis in axes:
        y = make(b, y, axis, 2)
    edges = b.pad(b.mul(y, 3.0), (1, 0, 2), (0, 1, 1), value=0.5)
    graph = Graph((x,), (b.add(y, 1.0), edges))
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for got, expected in zip(run(graph, [array], runnable()[target]), evaluate(graph, [array]), strict=True):
        assert same_bits(got, expected)


def test_a_place_is_chosen_where_all_lanes_choose_alike() -> None:
    """Then there is one load for a vector of results, without a mask."""
    b = Builder()
    x = b.input(0, TensorType(f32, (40, 64)))
    (kernel,) = build_program(Graph((x,), (b.add(_mirrored(b, x, 0, 3), 1.0),)), target=AVX512).kernels
    text = print_kernel(kernel)
    assert text.count("load") == text.count("store") == 4
    assert " mask " not in text
