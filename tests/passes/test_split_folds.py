"""Sums over windows in phases: what is stored, by how many kernels, and results."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule_verify import verify_fused
from graphc.ir.types import DType, TensorType, f32, f64, i64
from graphc.ir.verify import verify
from graphc.passes.autodiff import grad_graph
from graphc.passes.split_folds import MAX_PHASES, MAX_PLACES, SplitFolds
from graphc.pipeline import build_program, optimize, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512

Ints = tuple[int, ...]


def pooled(
    shape: Ints, size: Ints, stride: Ints, low: Ints, high: Ints, dilation: Ints, kind: str, dtype: DType = f32
) -> Graph:
    """The gradient of maxima (the first of equal ones) or sums of windows over the last axes, padded."""
    b = Builder()
    count = len(size)
    front = len(shape) - count
    x = b.input(0, TensorType(dtype, shape), "x")
    edges = ((0,) * front + low, (0,) * front + high)
    padded = b.pad(x, *edges, value=-math.inf if kind == "max" else 0.0)
    axes = tuple(range(front, len(shape)))
    windows = b.window(padded, axes, size, stride, dilation)
    inner = tuple(range(len(shape), len(shape) + count))
    y = b.reduce_max(windows, inner, "first") if kind == "max" else b.reduce_sum(windows, inner)
    weight = b.input(1, y.type, "w")
    return grad_graph(Graph((x, weight), (b.reduce_sum(b.mul(y, weight), tuple(range(y.type.rank))),)), (0,))


def arrays_of(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Few different whole numbers: many are equal, and sums are exact."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-2, 3, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def overlapping(graph: Graph) -> list[Node]:
    """Folds that add something up."""
    return [
        n
        for n in graph.nodes
        if n.op == "fold"
        and any(
            s < d * (k - 1) + 1
            for s, d, k in zip(n.ints("stride"), n.ints("dilation"), n.inputs[0].shape[n.type.rank :], strict=True)
        )
    ]


CASES = [
    ((2, 3, 8, 8), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1)),
    ((2, 3, 9, 7), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    ((1, 2, 7, 20), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    ((2, 2, 11, 6), (3, 2), (2, 1), (1, 0), (0, 1), (1, 1)),
    ((1, 2, 13, 12), (3, 3), (2, 2), (1, 1), (2, 1), (2, 2)),
    ((1, 3, 13, 17), (4, 4), (3, 3), (1, 1), (2, 1), (1, 1)),
    ((2, 1, 9, 33), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1)),
    ((2, 1, 9, 33), (2, 2), (4, 4), (0, 0), (0, 0), (1, 1)),
    ((1, 2, 5, 6, 7), (3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ((4, 2, 37), (5,), (2,), (2,), (2,), (1,)),
]


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results(case: tuple[Ints, ...], kind: str, dtype: DType) -> None:
    shape, *rest = case
    graph = pooled(shape, *rest, kind, dtype)
    before = optimize(graph)
    after = SplitFolds().run(before)
    verify(after)
    assert after is not before and not overlapping(after)
    arrays = arrays_of(graph)
    expected = evaluate(before, arrays)
    for made in (evaluate(after, arrays), run(graph, arrays)):
        for got, wanted in zip(made, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(4, 3, 20, 34), (2, 5, 19, 33)], ids=str)
@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
def test_nothing_is_stored_for_each_place_of_a_window(target: Target, shape: Ints) -> None:
    graph = pooled(shape, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), "max")
    fused = schedule(graph, target)
    verify_fused(fused)
    largest = max(t.type.size for g in fused.groups for t in g.targets)
    assert largest <= math.prod(shape[:2]) * (shape[2] + 2) * (shape[3] + 2)  # the padded input


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
@pytest.mark.parametrize("kind", ["max", "sum"])
def test_phases_are_stored_as_whole_vectors(target: Target, kind: str) -> None:
    """Vectors of two phases fill each other's places: no lane is stored by itself, also at the end of a row."""
    program = build_program(pooled((2, 3, 20, 70), (2, 2), (2, 2), (0, 0), (0, 0), (1, 1), kind), target=target)
    text = print_kernel(program.kernels[-1])
    stores = [line for line in text.splitlines() if line.lstrip().startswith("store")]
    assert stores and not any("stride 2" in line for line in stores) and "zip_low" in text


def test_the_winner_is_computed_once_for_each_window() -> None:
    graph = SplitFolds().run(optimize(pooled((1, 1, 12, 12), (3, 3), (2, 2), (1, 1), (0, 0), (1, 1), "max")))
    (winner,) = (n for n in graph.nodes if n.op == "argmax")
    assert [u.op for u in graph.users[winner]] == ["materialize"]


def test_what_reads_the_gradient_reads_it_from_memory() -> None:
    """Each element of a fold is computed for itself, not all that lies in windows around for each reader."""
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 3, 16, 16)), "x")
    windows = b.window(b.elementwise("tanh", x), (2, 3), (2, 2), (2, 2), (1, 1))
    y = b.reduce_max(windows, (4, 5), "first")
    graph = grad_graph(Graph((x,), (b.reduce_sum(b.mul(y, y), (0, 1, 2, 3)),)), (0,))
    fused = schedule(graph, AVX2)
    assert any(t.op == "fold" for g in fused.groups for t in g.targets)
    arrays = [np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)]
    for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_columns_that_lie_apart_are_left_alone() -> None:
    """Each place of a window has a value of its own, which goes to one place of its own in any case."""
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 8, 8, 4, 4)), "x")
    graph = Graph((x,), (b.fold(x, (2, 32, 32), (1, 2), (4, 4), (1, 1)),))
    assert SplitFolds().run(graph) is graph


@pytest.mark.parametrize("dtype", [f32, i64], ids=str)
def test_columns_that_overlap(dtype: DType) -> None:
    b = Builder()
    x = b.input(0, TensorType(dtype, (2, 7, 8, 3, 2)), "x")
    graph = Graph((x,), (b.slice(b.fold(x, (2, 15, 9), (1, 2), (2, 1), (1, 1)), (0, 1, 0), (2, 13, 8), (1, 1, 1)),))
    after = SplitFolds().run(graph)
    assert not overlapping(after)
    arrays = arrays_of(graph)
    for made in (evaluate(after, arrays), run(graph, arrays)):
        np.testing.assert_array_equal(made[0], evaluate(graph, arrays)[0])


@pytest.mark.parametrize(("size", "stride"), [((MAX_PLACES + 1,), (2,)), ((MAX_PHASES + 3,), (MAX_PHASES + 1,))])
def test_large_windows_are_left_alone(size: Ints, stride: Ints) -> None:
    graph = optimize(pooled((2, 3, 150), size, stride, (0,), (0,), (1,), "sum"))
    assert SplitFolds().run(graph) is graph
