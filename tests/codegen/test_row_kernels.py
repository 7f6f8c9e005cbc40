"""Reductions along rows: which run in vectors, and that ties, NaN, tails and partial results come out right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.extremes import BLOCK_VECTORS, FEWEST_BLOCKS
from graphc.codegen.kernel import For, Op
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DTYPES, TensorType, f32, f64
from graphc.pipeline import build_program
from tests.codegen.programs import buffers as copies
from tests.codegen.programs import executable, run, same_bits
from tests.codegen.programs import results as arrays_of
from tests.codegen.targets import AVX2, AVX512, SSE2, runnable

TARGETS = runnable()
BY_NAME = {d.name: d for d in DTYPES}


def _places(shape: tuple[int, ...], dtype: str, axes: tuple[int, ...], kept: str) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], shape))
    attrs = {"axes": axes, "dtype": BY_NAME[kept]}
    return Graph((x,), tuple(b.apply(op, (x,), attrs) for op in ("argmax", "argmin")))


def _rows(dtype: str, length: int) -> Iterator[np.ndarray]:
    """Rows with ties, with extremes at every place, all equal, all the identity of the reduction, with NaN."""
    rng = np.random.default_rng(length)
    type = BY_NAME[dtype].numpy
    yield rng.integers(0, 2, (5, length)).astype(type)
    yield rng.permutation(length).astype(type)[None]
    extreme = np.eye(length, dtype=np.int64)
    yield (extreme * 3 + 1).astype(type)
    yield (1 - extreme).astype(type)
    yield np.full((2, length), 7, type)
    if dtype[0] in "iu":
        info = np.iinfo(type)
        yield np.full((2, length), info.min, type)
        yield np.full((2, length), info.max, type)
        return
    yield np.full((2, length), -np.inf, type)
    yield np.full((2, length), np.inf, type)
    zeros = np.zeros((3, length), type)
    zeros[0, ::2] = -0.0
    zeros[1, 1::2] = -0.0
    yield zeros
    with np.errstate(invalid="ignore"):
        one_nan = rng.standard_normal((length, length)).astype(type)
        np.fill_diagonal(one_nan, np.nan)
        yield one_nan
        yield np.where(rng.random((9, length)) < 0.3, np.nan, np.inf).astype(type)
        yield np.where(rng.random((9, length)) < 0.3, np.nan, -np.inf).astype(type)
    yield np.full((2, length), np.nan, type)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i32", "i64", "u8"])
@pytest.mark.parametrize("length", [2, 9, 33, 77])
def test_places_of_extremes(length: int, dtype: str) -> None:
    x = np.concatenate(list(_rows(dtype, length)))
    for kept in ("i64", "i32"):
        graph = _places(x.shape, dtype, (1,), kept)
        for got, expected in zip(run(graph, [x]), evaluate(graph, [x]), strict=True):
            assert same_bits(got, expected), (got, expected)


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8"])
@pytest.mark.parametrize("target", TARGETS)
def test_long_rows_are_searched_by_blocks(target: str, dtype: str) -> None:
    """With a vector and a part of one behind the last block, or nothing; a row shorter by one is not searched so."""
    lanes = TARGETS[target].lanes(max(4, BY_NAME[dtype].itemsize))
    least = FEWEST_BLOCKS * BLOCK_VECTORS * lanes
    for length in (least - 1, least, least + 2 * lanes + 1):
        x = np.concatenate(list(_rows(dtype, length)))
        graph = _places(x.shape, dtype, (1,), "i64")
        for got, expected in zip(run(graph, [x], TARGETS[target]), evaluate(graph, [x]), strict=True):
            assert same_bits(got, expected), (got, expected)
        for kernel in build_program(graph, target=TARGETS[target]).kernels:
            text = print_kernel(kernel)
            loads = text[text.index("carry") : text.index("yield")].count("load")
            assert loads == (BLOCK_VECTORS if length >= least else 4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("axes", [(2,), (1, 2), (0, 2), (0, 1, 2), (1,), (0,), (0, 1)])
def test_places_along_several_axes(axes: tuple[int, ...], target: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-3, 4, (6, 5, 43)).astype(np.float32)
    x[rng.random(x.shape) < 0.02] = np.nan
    graph = _places(x.shape, "f32", axes, "i64")
    for got, expected in zip(run(graph, [x], TARGETS[target]), evaluate(graph, [x]), strict=True):
        assert same_bits(got, expected), (got, expected)


@pytest.mark.parametrize(("target", "lanes"), [(SSE2, 4), (AVX2, 8), (AVX512, 16)])
@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_places_are_looked_for_in_vectors_of_one_width(dtype: str, target: Target, lanes: int) -> None:
    for kernel in build_program(_places((64, 1024), dtype, (1,), "i64"), target=target).kernels:
        text = print_kernel(kernel)
        loop = text[text.index("carry") : text.index("yield")]
        assert f": {dtype}x{lanes}" in loop
        assert f": i32x{lanes}" in loop
        assert "i64x" not in loop


def _transposed(
    shape: tuple[int, ...], perm: tuple[int, ...], with_other: bool, dtype: str = "f32", backwards: bool = False
) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], shape))
    moved = b.permute(x, perm)
    if backwards:
        start, steps = tuple(n - 1 for n in moved.shape), (-1,) * len(shape)
        moved = b.apply("slice", (moved,), {"start": start, "size": moved.shape, "step": steps})
    if not with_other:
        return Graph((x,), (moved,))
    y = b.input(1, moved.type)
    return Graph((x, y), (b.sub(y, moved), b.mul(moved, 2.0)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("with_other", [False, True])
@pytest.mark.parametrize(
    ("shape", "perm"),
    [((300, 37), (1, 0)), ((16, 16), (1, 0)), ((9, 500), (1, 0)), ((33, 3, 70), (2, 1, 0)), ((5, 129, 31), (0, 2, 1))],
)
def test_transpositions(shape: tuple[int, ...], perm: tuple[int, ...], with_other: bool, target: str) -> None:
    graph = _transposed(shape, perm, with_other)
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal(x.shape).astype(np.float32) for x in graph.inputs]
    donated = executable(graph, TARGETS[target], donated=range(1, len(arrays)))
    for got, expected in zip(arrays_of(graph, donated.run(copies(arrays))), evaluate(graph, arrays), strict=True):
        assert same_bits(got, expected)


@pytest.mark.parametrize(("target", "lanes"), [(SSE2, 4), (AVX2, 8), (AVX512, 16)])
def test_a_transposition_reads_and_writes_whole_cache_lines_block_by_block(target: Target, lanes: int) -> None:
    (kernel,) = build_program(_transposed((4096, 1024), (1, 0), False), target=target).kernels
    assert kernel.grid == 4096 // 128 * (1024 // 16)
    text = print_kernel(kernel)
    assert text.count("load") == text.count("store") == 16 * 16 // lanes


@pytest.mark.share(2)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", ["f64", "i64", "i32", "f16", "u8", "bool"])
def test_transpositions_of_all_sizes(dtype: str, backwards: bool, target: str) -> None:
    rng = np.random.default_rng(4)
    for shape, perm in (((70, 37), (1, 0)), ((2, 33, 50), (2, 0, 1))):
        graph = _transposed(shape, perm, False, dtype, backwards)
        x = rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(BY_NAME[dtype].numpy)
        (got,) = run(graph, [x], TARGETS[target])
        assert same_bits(got, evaluate(graph, [x])[0])


@pytest.mark.parametrize("target", [SSE2, AVX2, AVX512], ids=["sse2", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", ["i32", "f16", "u8", "bool"])
def test_a_transposition_of_any_size_loads_along_its_rows(dtype: str, target: Target) -> None:
    for backwards in (False, True):
        graph = _transposed((4096, 1024), (1, 0), False, dtype, backwards)
        (kernel,) = build_program(graph, target=target).kernels
        lines = [line for line in print_kernel(kernel).splitlines() if " = load " in line or " store " in line]
        assert lines
        assert not any("stride" in line for line in lines)


def _scan(op: str, shape: tuple[int, ...], axis: int, reverse: bool = False, dtype: str = "f32") -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], shape))
    return Graph((x,), (b.apply(op, (x,), {"axis": axis, "reverse": reverse}),))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 9), 1), ((7, 33), 1), ((64, 5), 1), ((50, 4, 3), 1), ((9, 300), 0), ((3, 6, 129), 1), ((40, 5, 9), 1)],
)
def test_scans_of_chains_side_by_side(shape: tuple[int, ...], axis: int, reverse: bool, target: str) -> None:
    rng = np.random.default_rng(3)
    for op, dtype in (("scan_sum", "i32"), ("scan_max", "f32"), ("scan_sum", "f64")):
        x = rng.integers(-1000, 1000, shape).astype(BY_NAME[dtype].numpy)
        graph = _scan(op, shape, axis, reverse, dtype)
        (got,), (expected,) = run(graph, [x], TARGETS[target]), evaluate(graph, [x])
        assert same_bits(got, expected)


@pytest.mark.parametrize(
    ("shape", "axis", "chains", "grid"),
    [((4096, 7), 1, 4, 1024), ((4096, 1024), 0, 8, 32), ((4096, 3, 2), 1, 4, 1024), ((3, 1024), 1, 1, 3)],
)
def test_how_many_chains_run_side_by_side(shape: tuple[int, ...], axis: int, chains: int, grid: int) -> None:
    (kernel,) = build_program(_scan("scan_sum", shape, axis), target=AVX2).kernels
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    assert (len(loop.phis), kernel.grid) == (chains, grid)


@pytest.mark.share(3)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(13, 1024), (16, 2, 259), (600, 257), (8, 8, 1), (13, 300, 1, 1), (64, 1)])
def test_scans_along_rows(shape: tuple[int, ...], reverse: bool, target: str) -> None:
    rng = np.random.default_rng(3)
    kinds = [("scan_sum", "i32"), ("scan_max", "f32"), ("scan_sum", "f64"), ("scan_sum", "f32"), ("scan_min", "i64")]
    for op, dtype in [*kinds, ("scan_max", "bf16"), ("scan_sum", "f16"), ("scan_max", "u8"), ("scan_prod", "i32")]:
        x = rng.integers(0, 3, shape).astype(BY_NAME[dtype].numpy)
        graph = _scan(op, shape, max(d for d, n in enumerate(shape) if n > 1), reverse, dtype)
        (got,), (expected,) = run(graph, [x], TARGETS[target]), evaluate(graph, [x])
        assert same_bits(got, expected)


def test_scans_treat_special_numbers_as_one_by_one() -> None:
    x = np.tile(np.array([-0.0, 1.0, np.inf, -2.0, -np.inf, 3.0, np.nan, 4.0], np.float32), (64, 40))
    x[:, 3:] = np.roll(x, 5, 1)[:, 3:]
    for op in ("scan_sum", "scan_prod", "scan_max", "scan_min"):
        for rows in (x, np.negative(x), np.full_like(x, -0.0)):
            graph = _scan(op, x.shape, 1)
            (got,), (expected,) = run(graph, [rows]), evaluate(graph, [rows])
            np.testing.assert_array_equal(got, expected)
            assert (np.signbit(got) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("rows", [1, 4096])
def test_rows_are_scanned_in_the_order_of_memory(rows: int) -> None:
    """Four vectors in a round of the loop, each combined three times with itself, and one addition in f64."""
    kernel = build_program(_scan("scan_sum", (rows, 1024), 1), target=AVX2).kernels[0]
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    assert ([p.type.dtype for p in loop.phis], loop.step, kernel.grid) == ([BY_NAME["f64"]], 32, rows)
    ops = [s for s in loop.body if isinstance(s, Op)]
    assert sum(s.name == "splice" for s in ops) == 12
    assert sum(s.name == "add" and s.result.type.dtype.bits == 64 for s in ops) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reverse", [False, True])
def test_long_sums_that_run_lose_little(reverse: bool, target: str) -> None:
    """What came before is kept in f64: a million sums are right to the last places of the largest."""
    x = np.random.default_rng(5).standard_normal((1, 1_000_003)).astype(np.float32)
    (got,) = run(_scan("scan_sum", x.shape, 1, reverse), [x], TARGETS[target])
    wide = x.astype(np.float64)
    exact = np.cumsum(wide[:, ::-1], 1)[:, ::-1] if reverse else np.cumsum(wide, 1)
    assert np.abs(got - exact).max() <= 2 * np.spacing(np.abs(exact).max().astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
def test_products_that_run_leave_the_range_of_f32_and_come_back(target: str) -> None:
    x = np.tile(np.array([1e30, 1e30, 1e-30, 1e-30], np.float32), (3, 64))
    (got,) = run(_scan("scan_prod", x.shape, 1), [x], TARGETS[target])
    np.testing.assert_allclose(got[:, 3::4], 1, rtol=1e-4)


def _softmax(shape: tuple[int, ...]) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], shape))
    powers = b.exp(b.sub(x, b.expand_dims(b.reduce_max(x, (1,)), (1,), shape)))
    return Graph((x,), (b.div(powers, b.expand_dims(b.reduce_sum(powers, (1,)), (1,), shape)),))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("shape", [(100, 10), (7, 3), (1029, 16), (40, 2)])
def test_softmax_over_few_classes(shape: tuple[int, ...], target: str) -> None:
    graph = _softmax(shape)
    x = np.random.default_rng(4).standard_normal(shape).astype(np.float32)
    (got,), (expected,) = run(graph, [x], TARGETS[target]), evaluate(graph, [x])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_softmax_over_few_classes_computes_each_exponential_once() -> None:
    (kernel,) = build_program(_softmax((4096, 10)), target=AVX2).kernels
    text = print_kernel(kernel)
    assert "stride" not in text  # rows run across lanes, and are loaded and stored along themselves
    assert text.count(" = load ") == 2 * 8  # places 0 to 7 of eight rows, and 2 to 9
    assert text.count("= div %") == 10
    assert text.count(" scale ") == 10  # one in each exponential


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_joined_and_padded_rows(dtype: str, target: str) -> None:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], (9, 45)))
    turned = b.apply("concat", (b.slice(x, (0, 42), (9, 3), (1, 1)), b.slice(x, (0, 0), (9, 42), (1, 1))), {"axis": 1})
    padded = b.apply("pad", (x,), {"low": (1, 2), "high": (0, 5), "interior": (0, 1), "value": -1.0})
    graph = Graph((x,), (b.mul(turned, 2.0), b.mul(padded, 2.0)))
    array = np.random.default_rng(5).standard_normal((9, 45)).astype(BY_NAME[dtype].numpy)
    for got, expected in zip(run(graph, [array], TARGETS[target]), evaluate(graph, [array]), strict=True):
        assert same_bits(got, expected)


def test_conditions_across_lanes_are_compared_in_vectors_of_one_register() -> None:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME["f32"], (64, 1024)))
    first = b.slice(x, (0, 0), (64, 3), (1, 1))
    graph = Graph((x,), (b.apply("concat", (first, x), {"axis": 1}),))
    (kernel,) = build_program(graph, target=AVX2).kernels
    text = print_kernel(kernel)
    loop = text[text.index("for %") :].split("}")[0]
    assert "lt %" in loop
    assert "i64x" not in loop


def _long_reduction(op: str, length: int, dtype: str) -> Graph:
    b = Builder()
    x = b.input(0, TensorType(BY_NAME[dtype], (3, length)))
    attrs = {"axes": (1,)} if op in ("reduce_sum", "reduce_prod") else {"axes": (1,), "ties": "even"}
    return Graph((x,), (b.apply(op, (x,), attrs),))


def test_long_rows_are_read_in_several_stretches_at_once() -> None:
    """Each partial result is that of a stretch; short rows are read in one."""
    length = 1 << 17
    (kernel,) = build_program(_long_reduction("reduce_sum", length, "f32"), target=AVX2).kernels
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    assert (loop.hi, loop.step, len(loop.phis)) == (length // 4, 8, 4)
    text = print_kernel(kernel)
    assert all(f"+ {k * length // 4}]" in text for k in (1, 2, 3))
    (short,) = build_program(_long_reduction("reduce_sum", 1 << 12, "f32"), target=AVX2).kernels
    (loop,) = (s for s in short.body if isinstance(s, For))
    assert (loop.hi, loop.step) == (1 << 12, 32)


def test_two_long_rows_are_read_side_by_side() -> None:
    """They are several stretches already."""
    length = 1 << 17
    b = Builder()
    x, y = (b.input(i, TensorType(BY_NAME["f32"], (3, length))) for i in range(2))
    total = b.apply("reduce_sum", (b.apply("mul", (x, y)),), {"axes": (1,)})
    (kernel,) = build_program(Graph((x, y), (total,)), target=AVX2).kernels
    (loop,) = (s for s in kernel.body if isinstance(s, For))
    assert (loop.hi, loop.step, len(loop.phis)) == (length, 32, 4)


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min"])
@pytest.mark.parametrize(
    ("dtype", "length"), [("f32", 65536 + 8 * 3 + 5), ("f64", 1 << 16), ("i32", 70001), ("f16", 140003)]
)
def test_long_rows_of_any_length(dtype: str, length: int, op: str) -> None:
    graph = _long_reduction(op, length, dtype)
    rng = np.random.default_rng(length)
    x = rng.standard_normal((3, length)) if dtype[0] == "f" else rng.integers(-1000, 1000, (3, length))
    x = x.astype(BY_NAME[dtype].numpy)
    x[1, length // 2 + 1] = 5000
    for target in TARGETS.values():
        (got,), (expected,) = run(graph, [x], target), evaluate(graph, [x], floats=f64)
        if op == "reduce_sum" and dtype[0] == "f":
            np.testing.assert_allclose(
                got.astype(np.float64),
                expected,
                rtol=2e-3 if dtype == "f16" else 1e-5,
                atol=0.5 if dtype == "f16" else 1e-2,
            )
        else:
            assert (got.astype(np.float64) == expected.astype(np.float64)).all()


def test_a_nan_in_any_stretch_is_found() -> None:
    x = np.zeros((3, 1 << 17), np.float32)
    x[0, 5] = x[1, 100_000] = x[2, -1] = np.nan
    for op in ("reduce_sum", "reduce_max"):
        (got,) = run(_long_reduction(op, 1 << 17, "f32"), [x])
        assert np.isnan(got).all()


@pytest.mark.parametrize(("rows", "columns", "grid"), [(2048, 1024, 16), (8, 1024, 1), (2048, 96, 2)])
def test_columns_that_take_long_are_shared_among_threads(rows: int, columns: int, grid: int) -> None:
    """A tile of columns is a piece where each of them is long to reduce; there are no more pieces than needed."""
    b = Builder()
    x = b.input(0, TensorType(f32, (rows, columns)))
    most = Graph((x,), (b.reduce_max(b.mul(x, 2.0), (0,)),))
    for cores, pieces in ((AVX512.cores, grid), (1, 1)):
        (kernel,) = build_program(most, target=replace(AVX512, cores=cores)).kernels
        assert kernel.grid == pieces
