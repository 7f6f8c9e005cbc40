"""Short rows of which each lane has its own: loaded as vectors along the rows, and transposed in registers."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.dealing import LONG
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, f16, f32, f64, i32, i64, u8
from graphc.pipeline import build_program
from tests.codegen.programs import run, same_bits
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

TARGETS = runnable()


def _reduced(op: str, shape: tuple[int, ...], dtype: DType = f32) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(dtype, shape))
    reduce = b.reduce_sum if op == "reduce_sum" else b.reduce_max
    return Graph((x,), (reduce(x, (len(shape) - 1,)),))


def _centred(shape: tuple[int, ...], dtype: DType = f32) -> Graph:
    """Each row without its largest element: all places of a row are read and stored."""
    b = Builder()
    x = b.input(0, TensorType(dtype, shape))
    last = len(shape) - 1
    return Graph((x,), (b.sub(x, b.expand_dims(b.reduce_max(x, (last,)), (last,), shape)),))


def _some(shape: tuple[int, ...], places: tuple[int, ...], dtype: DType = f32) -> Graph:
    """The product of some columns."""
    b = Builder()
    x = b.input(0, TensorType(dtype, shape))
    ones = (1,) * len(shape)

    def column(place: int) -> Node:
        start = (0,) * (len(shape) - 1) + (place,)
        sliced = b.apply("slice", (x,), {"start": start, "size": (*shape[:-1], 1), "step": ones})
        return b.reshape(sliced, shape[:-1])

    total = column(places[0])
    for place in places[1:]:
        total = b.mul(total, column(place))
    return Graph((x,), (total,))


def _values(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2 if n.dtype is boolean else 9, n.shape).astype(n.dtype.numpy) for n in graph.inputs]


def _loads(graph: Graph, target: Target) -> list[str]:
    """The loads of vectors in the last kernel."""
    kernel = build_program(graph, target=target).kernels[-1]
    verify_kernel(kernel)
    lines = print_kernel(kernel).splitlines()
    return [line.strip() for line in lines if " = load " in line and f"x{target.lanes(4)}" in line]


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512], ids=["sse2", "avx2", "avx512"])
@pytest.mark.parametrize("length", [8, 16])
def test_rows_that_fill_vectors_are_loaded_once(target: Target, length: int) -> None:
    for graph in (_reduced("reduce_sum", (640, length)), _reduced("reduce_max", (640, length))):
        loads = _loads(graph, target)
        assert loads
        assert not any("stride" in line for line in loads)
        assert len(loads) % length == 0
        assert len(set(loads)) == len(loads)


@pytest.mark.parametrize(("length", "masked"), [(5, True), (11, True), (16, False)])
def test_a_row_shorter_than_a_vector_is_loaded_without_what_lies_behind_it(length: int, masked: bool) -> None:
    loads = _loads(_reduced("reduce_max", (640, length)), AVX512)
    assert loads
    assert all(("mask" in line) == masked and "stride" not in line for line in loads)


def test_a_long_row_is_loaded_by_parts_that_end_where_it_does() -> None:
    loads = _loads(_some((640, 40), (*range(16), *range(32, 40))), AVX512)
    assert len(loads) == 2 * 16
    assert not any("mask" in line or "stride" in line for line in loads)
    assert any("+ 24]" in line for line in loads), "the last part begins at 24 of 40"


@pytest.mark.parametrize("length", [4, 2 * LONG])
def test_other_rows_are_not(length: int) -> None:
    """Neither rows so short that each place is picked from whole vectors, nor those too long to stay in registers."""
    loads = _loads(_some((640, length), (0, 1, 2)), AVX512)
    assert loads
    assert all(f"stride {length}" in line for line in loads)


def test_one_place_of_a_row_alone_is_read_by_itself() -> None:
    assert all("stride 24" in line for line in _loads(_some((640, 24), (7,)), AVX512))


@pytest.mark.share(6)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [5, 8, 10, 16])
@pytest.mark.parametrize("rows", [(64,), (3, 37), (1, 5)], ids=str)
def test_results(rows: tuple[int, ...], length: int, target: str) -> None:
    """Also where the last vector is not full, and under another order of dimensions."""
    shape = (*rows, length)
    graphs = [_reduced("reduce_max", shape, dtype) for dtype in (f64, i64, u8, boolean)]
    graphs += [_centred(shape, dtype) for dtype in (f32, f64, i32, f16, u8)]
    graphs += [_reduced("reduce_sum", shape), _some(shape, (length - 1, 0, 2)), _some(shape, (0, 3, 4, 2), i64)]
    for graph in graphs:
        arrays = _values(graph)
        (got,) = run(graph, arrays, TARGETS[target])
        np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [24, 40, LONG])
def test_results_of_long_rows(length: int, target: str) -> None:
    graph = _some((50, length), (length - 1, 0, 16, length // 2, 2))
    arrays = _values(graph)
    (got,) = run(graph, arrays, TARGETS[target])
    np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_read_behind_the_last_row(target: str) -> None:
    """What follows a matrix in memory is no part of a result, whatever it is."""
    b = Builder()
    x = b.input(0, TensorType(f32, (33, 16 + 10)))
    rows = b.apply("slice", (x,), {"start": (0, 16), "size": (33, 10), "step": (1, 1)})
    graph = Graph((x,), (b.reduce_max(rows, (1,)),))
    array = np.full((33, 26), np.nan, np.float32)
    array[:, 16:] = np.arange(330, dtype=np.float32).reshape(33, 10)
    (got,) = run(graph, [array], TARGETS[target])
    assert same_bits(got, array[:, 16:].max(axis=1))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [2, 7, 16])
def test_a_short_vector_times_rows(length: int, target: str) -> None:
    b = Builder()
    x, y = b.input(0, TensorType(f32, (300, length))), b.input(1, TensorType(f32, (length,)))
    for spec, operands in (("a b, b -> a", (x, y)), ("b, a b -> a", (y, x))):
        graph = Graph((x, y), (b.contract(*operands, spec),))
        arrays = _values(graph)
        (got,) = run(graph, arrays, TARGETS[target])
        np.testing.assert_array_equal(got, arrays[0] @ arrays[1])


def test_a_short_vector_times_rows_is_a_sum_in_line() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(f32, (6400, 16))), b.input(1, TensorType(f32, (16,)))
    loads = _loads(Graph((x, y), (b.contract(x, y, "a b, b -> a"),)), AVX512)
    assert len(loads) == 16
    assert not any("stride" in line for line in loads)
