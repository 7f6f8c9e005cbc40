"""Vectors whose lanes lie apart in memory, and others between them: they are zipped, and stored whole."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, boolean, f16, f32, f64, i32, i64, u8
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

TARGETS = {"host": host_target(), **runnable()}


def _repeated(shape: tuple[int, ...], times: int, dtype: DType = f32) -> Graph:
    """Each element some times in a row."""
    b = Builder()
    x = b.input(0, TensorType(dtype, shape))
    wide = b.broadcast(b.reshape(x, (*shape, 1)), (*shape, times))
    return Graph((x,), (b.reshape(wide, (*shape[:-1], shape[-1] * times)),))


def _interleaved(shape: tuple[int, ...], count: int, dtype: DType = f32, also: bool = False) -> Graph:
    """Elements of some sums, one of each in turns; `also` behind others, as parts of one value."""
    b = Builder()
    x, y = (b.input(i, TensorType(dtype, shape)) for i in range(2))
    sums = [b.reshape(b.add(x, b.mul(y, k)), (*shape, 1)) for k in range(count)]
    joined = b.reshape(b.concat(tuple(sums), len(shape)), (*shape[:-1], shape[-1] * count))
    if not also:
        return Graph((x, y), (joined,))
    other = b.input(2, TensorType(dtype, (3, *joined.shape[1:])))
    return Graph((x, y, other), (b.concat((joined, other), 0),))


def _stores(graph: Graph, target: Target) -> list[str]:
    """The stores of the last kernel."""
    kernel = build_program(graph, target=target).kernels[-1]
    verify_kernel(kernel)
    return [line for line in print_kernel(kernel).splitlines() if line.lstrip().startswith("store")]


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512], ids=["sse2", "avx2", "avx512"])
@pytest.mark.parametrize("count", [2, 4, 8])
def test_what_fills_the_places_between_lanes_is_stored_whole(target: Target, count: int) -> None:
    if count > target.lanes(4):
        pytest.skip("more than a vector holds")
    for graph in (_repeated((6, 40), count), _interleaved((6, 40), count)):
        stores = _stores(graph, target)
        assert stores
        assert not any("stride" in line for line in stores)
        assert any(f"f32x{target.lanes(4)}" in line for line in stores)


@pytest.mark.share(6)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("shape", [(6, 40), (3, 5, 7), (2, 65), (1, 3), (4, 16)], ids=str)
def test_results(shape: tuple[int, ...], count: int, target: str) -> None:
    """Also where the last vector is not full, or no power of two lies between lanes."""
    rng = np.random.default_rng(count)
    for dtype in (f32, f64, i32, i64, u8, f16, boolean):
        graphs = [_repeated(shape, count, dtype)]
        if dtype in (f32, f64, i32):
            graphs += [_interleaved(shape, count, dtype), _interleaved(shape, count, dtype, also=True)]
        for graph in graphs:
            arrays = [rng.integers(0, 4, n.shape).astype(dtype.numpy) for n in graph.inputs]
            (got,) = run(graph, arrays, TARGETS[target])
            np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])


def test_a_joined_value_is_stored_before_it_is_joined_again() -> None:
    """Each of its elements would be computed from all parts, and chosen."""
    assert len(schedule(_interleaved((4, 40), 4), AVX2).groups) == 1
    assert len(schedule(_interleaved((4, 40), 4, also=True), AVX2).groups) == 2


def test_what_is_only_moved_is_joined_at_once() -> None:
    b = Builder()
    x = b.input(0, TensorType(f32, (8, 64)))
    halves = [b.slice(x, (0, at), (8, 32), (1, 1)) for at in (32, 0)]
    turned = b.concat(tuple(halves), 1)
    graph = Graph((x,), (b.concat((turned, x), 0),))
    assert len(schedule(graph, AVX2).groups) == 1
    array = np.arange(512, dtype=np.float32).reshape(8, 64)
    (got,) = run(graph, [array])
    np.testing.assert_array_equal(got, evaluate(graph, [array])[0])
