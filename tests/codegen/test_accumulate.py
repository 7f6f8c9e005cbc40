"""Kernels that write rows at indices: parts of rows for several cores, rows asked for early, the same results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen import accumulate
from graphc.codegen.accumulate import lower_accumulate
from graphc.codegen.kernel import Kernel
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, f32, f64, i8, i64
from tests.codegen.programs import run
from tests.codegen.targets import AVX2

PLACES = 40


def written(op: str, shape: tuple[int, ...], axis: int = 0, dtype: DType = f32, places: int = PLACES) -> Graph:
    """Rows of a third input go to places of an axis of the first, which the second names."""
    b = Builder()
    x, at = b.input(0, TensorType(dtype, shape), "x"), b.input(1, TensorType(i64, (places,)), "at")
    rows = b.input(2, TensorType(dtype, (*shape[:axis], places, *shape[axis + 1 :])), "rows")
    return Graph((x, at, rows), (b.apply(op, (x, at, rows), {"axis": axis}),))


def kernel_of(graph: Graph, cores: int) -> Kernel:
    return lower_accumulate(graph.outputs[0], "k", replace(AVX2, cores=cores)).kernel


def test_long_rows_are_cut_for_the_cores() -> None:
    """Into equal parts of whole vectors, of 256 bytes at least; where there are enough rows before the axis, not."""
    rows = written("index_add", (100, 256))
    assert [kernel_of(rows, cores).grid for cores in (1, 2, 3, 4, 16)] == [1, 2, 2, 4, 4]
    assert kernel_of(written("index_add", (100, 250)), 4).grid == 1
    assert kernel_of(written("index_add", (100, 64)), 4).grid == 1
    assert kernel_of(written("index_add", (3, 100, 256), axis=1), 4).grid == 6
    assert kernel_of(written("index_add", (8, 100, 256), axis=1), 4).grid == 8


def test_lines_of_later_rows_are_asked_for() -> None:
    """Rows of 1 KB four places early, in a table that does not stay near the core."""
    large = print_kernel(kernel_of(written("index_add", (4096, 256)), 1))
    assert large.count("prefetch") == 16
    assert f"const {PLACES - 1} : i64" in large
    for near in (
        written("index_add", (100, 256)),
        written("index_add", (1 << 20, 8)),
        written("index_add", (4096, 4096)),  # rows that the machine foresees
        written("index_add", (4096, 256), places=5),
    ):
        assert "prefetch" not in print_kernel(kernel_of(near, 1))


@pytest.mark.parametrize("op", ["index_add", "index_set"])
@pytest.mark.parametrize("dtype", [f32, f64, i8], ids=str)
@pytest.mark.parametrize("cores", [1, 2, 3])
def test_rows_are_right(op: str, dtype: DType, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any length, with several to one place, where the last one stays or all are added in their order."""
    monkeypatch.setattr(accumulate, "STREAMED", 0)
    rng = np.random.default_rng(cores)
    target = replace(host_target(), cores=cores)
    for shape, axis in (
        ((30, 1), 0),
        ((30, 77), 0),
        ((30, 192), 0),
        ((30, 1024), 0),
        ((2, 30, 256), 1),
        ((5, 30, 64), 1),
    ):
        graph = written(op, shape, axis, dtype)
        arrays = [rng.integers(-3, 4, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
        arrays[1] = rng.integers(0, 30, PLACES)
        (got,), (wanted,) = run(graph, arrays, target), evaluate(graph, arrays)
        np.testing.assert_array_equal(got, wanted)
