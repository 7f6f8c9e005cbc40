"""Contractions whose results lie far apart along the lanes: vectors are transposed when they are stored."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.crossing import blocks, crossing_cost, zipped
from graphc.codegen.kernel import INDEX, Affine, Kernel, Op, Param, Value, VType
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.host import host_target
from graphc.codegen.prepare import prepare
from graphc.codegen.schedule import Schedule
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64, i32, i64, u8
from graphc.options import scope
from graphc.pipeline import build_program, schedule
from tests.codegen.native import baseline
from tests.codegen.native import run as run_kernel
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, AVX512, runnable


def _convolution(
    batch: int, inputs: int, outputs: int, side: int, window: int, stride: int, dtype: DType = f32, extra: bool = False
) -> Graph:
    """A convolution; `extra`: with a bias, a maximum, and sums of its results as a second output."""
    b = Builder()
    x = b.input(0, TensorType(dtype, (batch, inputs, side, side)), "x")
    w = b.input(1, TensorType(dtype, (outputs, inputs, window, window)), "w")
    y = b.contract(x, w, f"b c {stride}h+r {stride}w+s, o c r s -> b o h w")
    if not extra:
        return Graph((x, w), (y,))
    bias = b.input(2, TensorType(dtype, (outputs, 1, 1)), "bias")
    y = b.elementwise("maximum", b.add(y, b.broadcast(bias, y.shape)), b.constant(0, y.type))
    return Graph((x, w, bias), (y, b.add(y, y)))


def _made(graph: Graph, target: Target) -> tuple[Schedule, Kernel]:
    """The schedule of the contraction as it is, and its kernel."""
    with scope(minimal_filtering=False):
        group = schedule(graph, target).groups[-1]
        return prepare(group, target).schedule, build_program(graph, target=target).kernels[-1]


@pytest.mark.parametrize("target", [baseline(), *runnable().values()], ids=["baseline", *runnable()])
@pytest.mark.parametrize("dtype", [u8, f16, bf16, i32, f32, i64, f64], ids=str)
@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_squares_are_transposed_within_segments_and_then_among_them(target: Target, dtype: DType, lanes: int) -> None:
    size = lanes * lanes
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    x, y = (Param(name, dtype, size, mode) for name, mode in (("x", "in"), ("y", "out")))
    rows = [e.load(VType(dtype, lanes), x, Affine(i * lanes), 1, None, None) for i in range(lanes)]
    columns = zipped(e, rows, lanes.bit_length() - 1)
    for i, column in enumerate(columns):
        e.store(y, Affine(i * lanes), column, 1, None, None)
    kernel = Kernel("k", (x, y), 1, grid, tuple(e.body))
    ops = [s.name for s in kernel.body if isinstance(s, Op)]
    assert len(ops) == lanes * (lanes.bit_length() - 1)
    assert any(name.startswith("zip") for name in ops) == (lanes * dtype.itemsize < 16)  # there is no segment
    source = np.arange(size).astype(dtype.numpy)
    out = np.zeros_like(source)
    run_kernel(kernel, [source, out], target)
    assert np.array_equal(out.reshape(lanes, lanes), source.reshape(lanes, lanes).T)


@pytest.mark.parametrize("target", [AVX2, AVX512], ids=["avx2", "avx512"])
@pytest.mark.parametrize(("window", "stride"), [(7, 2), (5, 2), (3, 2), (11, 4)])
def test_strided_windows_have_channels_across_the_lanes(target: Target, window: int, stride: int) -> None:
    graph = _convolution(1, 3, 64, 75, window, stride)
    choice, kernel = _made(graph, target)
    assert choice.lane is not None and choice.lane.hi == 63 and choice.crossed is not None
    verify_kernel(kernel)
    stores = [line for line in print_kernel(kernel).splitlines() if line.lstrip().startswith("store")]
    parts = blocks(choice.tile[choice.crossed], choice.lanes)
    assert parts[0] > 1 and not any("stride" in line for line in stores if ": f32x" in line)
    tile = choice.tile[choice.lane]
    assert len(stores) == (tile + 64 // choice.lanes % tile) * choice.lanes * len(parts)  # the rest is a tile too


def test_rows_without_strides_stay_across_the_lanes() -> None:
    choice, kernel = _made(_convolution(1, 3, 64, 82, 3, 1), AVX2)
    assert choice.lane is not None and choice.lane.hi == 79 and choice.crossed is None
    assert "extract" not in print_kernel(kernel)


TARGETS = {"host": host_target(), **runnable()}
SHAPES = [
    (1, 3, 20, 31, 7, 2),
    (2, 3, 13, 33, 5, 2),
    (1, 3, 64, 47, 11, 4),
    (4, 5, 9, 9, 3, 1),
    (1, 16, 33, 15, 1, 2),
    (3, 2, 8, 5, 3, 2),
]


@pytest.mark.share(4)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("target", TARGETS)
def test_results(target: str, shape: tuple[int, int, int, int, int, int]) -> None:
    """Whole numbers, so that sums are exact: parts of vectors, of tiles and of blocks of places."""
    for number, dtype in enumerate((f32, f64, i32)):
        graph = _convolution(*shape, dtype, extra=number == 0)
        rng = np.random.default_rng(number)
        arrays = [rng.integers(-3, 4, n.shape).astype(dtype.numpy) for n in graph.inputs]
        with scope(minimal_filtering=False):
            found = run(graph, arrays, TARGETS[target])
        for got, expected in zip(found, evaluate(graph, arrays), strict=True):
            np.testing.assert_array_equal(got, expected)


def _with_shares(rows: int, columns: int, steps: int = 33, dtype: DType = f32) -> Graph:
    """A step of a recurrence: a product for few samples, and what the inputs add to it."""
    b = Builder()
    x = b.input(0, TensorType(dtype, (rows, steps)), "x")
    w = b.input(1, TensorType(dtype, (columns, steps)), "w")
    shares = b.input(2, TensorType(dtype, (3, rows, columns)), "shares")
    share = b.reshape(b.slice(shares, (1, 0, 0), (1, rows, columns), (1, 1, 1)), (rows, columns))
    return Graph((x, w, shares), (b.add(b.contract(x, w, "m k, n k -> m n"), share),))


def test_what_is_added_across_the_lanes_is_transposed_too() -> None:
    choice, kernel = _made(_with_shares(16, 1024, 256), AVX512)
    assert choice.crossed is not None and choice.tile[choice.crossed] % choice.lanes == 0
    loads = [line for line in print_kernel(kernel).splitlines() if "= load" in line and ": f32x" in line]
    assert loads and not any("stride" in line for line in loads)


@pytest.mark.share(2)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 64), (16, 50), (8, 96), (19, 80), (4, 33)])
def test_results_with_what_is_added(target: str, rows: int, columns: int) -> None:
    for number, dtype in enumerate((f32, f64, i32)):
        graph = _with_shares(rows, columns, 256, dtype)
        rng = np.random.default_rng(number)
        arrays = [rng.integers(-3, 4, n.shape).astype(dtype.numpy) for n in graph.inputs]
        (got,) = run(graph, arrays, TARGETS[target])
        np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])


def test_places_are_cut_into_powers_of_two() -> None:
    assert [blocks(n, 8) for n in (1, 4, 6, 7, 20)] == [[1], [4], [4, 2], [4, 2, 1], [8, 8, 4]]
    assert crossing_cost(4, 8) < crossing_cost(2, 8) < crossing_cost(1, 8)
