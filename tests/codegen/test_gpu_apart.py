"""Kernels of a GPU for operators that are no nests of loops: scans, sorting, writes at indices."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen import gpu_accumulate, gpu_scans, gpu_sorting
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue
from graphc.ir.types import TensorType, dtype_of_numpy, f32, i64
from tests.codegen.gpu_programs import gpu_program, run_for_gpu

RNG = np.random.default_rng(3)


def graph_of(op: str, attrs: dict[str, AttrValue], *arrays: np.ndarray) -> Graph:
    b = Builder()
    inputs = tuple(b.input(i, TensorType(dtype_of_numpy(a.dtype), a.shape)) for i, a in enumerate(arrays))
    return Graph(inputs, (b.apply(op, inputs, attrs),))


def check(graph: Graph, *arrays: np.ndarray) -> None:
    """Compare with the reference: sums of floats may differ by rounding, all else is equal."""
    (got,), (expected,) = run_for_gpu(graph, arrays), evaluate(graph, arrays)
    assert got.dtype == expected.dtype
    if graph.outputs[0].op in ("scan_sum", "scan_prod", "recurrence"):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, expected)


def floats(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def some(*shape: int, below: int) -> np.ndarray:
    return RNG.integers(0, below, shape)


def with_specials(*shape: int) -> np.ndarray:
    found = floats(*shape)
    flat = found.reshape(-1)
    flat[::5], flat[1::7], flat[2::11], flat[3::13] = 0.0, -0.0, np.nan, -np.inf
    return found


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("array", "axis"),
    [
        (some(3, 20, below=5), 1),
        (with_specials(2, 50), 1),
        (with_specials(30, 3), 0),
        (floats(4, 1), 1),
        (floats(20, dtype=np.float64), 0),
        (some(40, below=2).astype(bool), 0),
        (some(2, 60, below=9).astype(np.uint8), 1),
    ],
)
def test_rows_of_a_tile_are_sorted_by_a_block(array: np.ndarray, axis: int, descending: bool) -> None:
    for op in ("argsort", "sort"):
        graph = graph_of(op, {"axis": axis, "descending": descending}, array)
        (kernel,) = gpu_program(graph).kernels
        assert kernel.threads >= 32
        assert kernel.grid == array.size // array.shape[axis]
        check(graph, array)


def test_a_part_of_an_order() -> None:
    x = with_specials(3, 40)
    check(graph_of("argselect", {"axis": 1, "descending": True, "start": 2, "count": 5}, x), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", [33, 64, 130, 200])
def test_tiles_of_long_rows_are_merged(monkeypatch: pytest.MonkeyPatch, length: int, dtype: type) -> None:
    monkeypatch.setattr(gpu_sorting, "TILE", 32)
    monkeypatch.setattr(gpu_sorting, "MAX_BLOCK", 16)
    x = with_specials(2, length).astype(dtype)
    for op in ("argsort", "sort"):
        graph = graph_of(op, {"axis": 1, "descending": False}, x)
        assert [k.threads for k in gpu_program(graph).kernels][:2] == [16, 1]
        check(graph, x)


LINES = ((floats(3, 200), 1), (floats(128, 2), 0), (some(2, 77, below=9), 1))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("op", "lines"),
    [("scan_sum", LINES), ("scan_prod", LINES[1:2]), ("scan_max", LINES[2:]), ("scan_min", LINES[:1])],
    ids=["scan_sum", "scan_prod", "scan_max", "scan_min"],
)
def test_scans_by_blocks(op: str, lines: tuple[tuple[np.ndarray, int], ...], reverse: bool) -> None:
    for x, axis in lines:
        graph = graph_of(op, {"axis": axis, "reverse": reverse}, x)
        (kernel,) = gpu_program(graph).kernels
        assert kernel.threads > 1
        check(graph, x)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1000, 1024])
def test_few_long_lines_are_scanned_in_parts(monkeypatch: pytest.MonkeyPatch, length: int, reverse: bool) -> None:
    for name, value in {"THREADS": 32, "PART": 2 * gpu_scans.EACH * 32}.items():
        monkeypatch.setattr(gpu_scans, name, value)
    for x, axis in ((floats(2, length), 1), (some(length, 3, below=100), 0)):
        graph = graph_of("scan_sum", {"axis": axis, "reverse": reverse}, x)
        assert len(gpu_program(graph).kernels) == 3
        check(graph, x)


def test_many_lines_side_by_side_and_recurrences_are_threads() -> None:
    x = floats(40, 1 << 14)
    (kernel,) = gpu_program(graph_of("scan_sum", {"axis": 0, "reverse": False}, x)).kernels
    assert (kernel.threads, kernel.grid) == (1, 1 << 14)
    a, y = floats(3, 50), floats(3, 50)
    check(graph_of("recurrence", {"axis": 1, "reverse": False}, a, y), a, y)


WRITES: list[tuple[str, dict[str, AttrValue], tuple[np.ndarray, ...]]] = [
    ("index_add", {"axis": 0}, (floats(10, 4), some(50, below=10), floats(50, 4))),
    ("index_add", {"axis": 1}, (floats(2, 10, 3), some(50, below=10), floats(2, 50, 3))),
    ("index_set", {"axis": 0}, (floats(10, 3), some(50, below=10), floats(50, 3))),
    ("scatter_add", {"axis": 0}, (floats(10), some(50, below=10), floats(50))),
    ("scatter_add", {"axis": 1}, (floats(4, 10, 2), some(3, 50, 2, below=10), floats(3, 50, 2))),
    ("scatter_set", {"axis": 0}, (floats(10, 3), some(50, 2, below=10), floats(50, 2))),
    ("scatter_reduce", {"axis": 0, "mode": "prod"}, (floats(10), some(50, below=10), floats(50))),
]


@pytest.mark.parametrize(("op", "attrs", "arrays"), WRITES)
def test_writes_at_indices_are_those_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, op: str, attrs: dict[str, AttrValue], arrays: tuple[np.ndarray, ...]
) -> None:
    """Bit by bit, as the first element for a place adds up all of them in order."""
    graph = graph_of(op, attrs, *arrays)
    match, write = gpu_program(graph).kernels
    assert match.threads > 1
    assert write.grid == arrays[2].size
    check(graph, *arrays)
    monkeypatch.setattr(gpu_accumulate, "CHUNK", 16)
    assert len(gpu_program(graph).kernels) == 8
    check(graph, *arrays)
    monkeypatch.setattr(gpu_accumulate, "LINES", 1)
    assert len(gpu_program(graph).kernels) == 1
    check(graph, *arrays)


def test_searches_are_spread_over_threads() -> None:
    rows, x = np.sort(floats(3, 30)), floats(3, 21)
    graph = graph_of("searchsorted", {"right": False}, rows, x)
    assert gpu_program(graph).kernels[0].grid == 16
    check(graph, rows, x)


def test_zeros_that_are_written_into_are_filled() -> None:
    b = Builder()
    places, rows = b.input(0, TensorType(i64, (50,))), b.input(1, TensorType(f32, (50, 4)))
    zeros = b.zeros_like(b.input(2, TensorType(f32, (10, 4))))
    graph = Graph((places, rows), (b.apply("index_add", (zeros, places, rows), {"axis": 0}),))
    program = gpu_program(graph)
    assert [type(step).__name__ for step in program.steps] == ["Fill", "Launch", "Launch"]
    check(graph, some(50, below=10), floats(50, 4))
