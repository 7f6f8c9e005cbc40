"""Many elements that go to places, on a GPU: they are sorted by where they go, and combined row by row."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.cuda.facts import cuda_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue
from graphc.ir.types import DType, TensorType, bf16, f16, f32, i64
from graphc.passes import sort_indices
from graphc.pipeline import optimize
from tests.codegen.gpu_programs import gpu_program, run_for_gpu
from tests.codegen.test_gpu_apart import floats, graph_of, some

H100 = cuda_target("sm_90")


def check(graph: Graph, *arrays: np.ndarray) -> None:
    """Threads that share a segment add in another order; one thread adds as the reference does."""
    (got,), (expected,) = run_for_gpu(graph, arrays), evaluate(graph, arrays)
    assert got.dtype == expected.dtype
    if gpu_program(graph).kernels[-1].threads > 1 and got.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, expected)


SEGMENTS: list[tuple[str, dict[str, AttrValue], tuple[np.ndarray, ...], int]] = [
    ("index_add", {"axis": 0}, (floats(10, 40), some(50, below=12), floats(50, 40)), 1),
    ("index_add", {"axis": 1}, (floats(2, 10, 3), some(5, 20, below=10), floats(2, 5, 20, 3)), 32),
    ("index_add", {"axis": 0}, (some(3, below=9), some(300, below=4), some(300, below=99)), 32),
    ("scatter_add", {"axis": 0}, (floats(100), some(60, below=100), floats(60)), 1),
    ("scatter_reduce", {"axis": 0, "mode": "prod"}, (floats(3), some(50, below=3), floats(50)), 32),
    ("scatter_reduce", {"axis": 0, "mode": "max"}, (floats(3), some(50, below=3), floats(50)), 32),
]


@pytest.mark.parametrize(("op", "attrs", "arrays", "threads"), SEGMENTS)
def test_many_elements_are_sorted_by_where_they_go(
    monkeypatch: pytest.MonkeyPatch,
    op: str,
    attrs: dict[str, AttrValue],
    arrays: tuple[np.ndarray, ...],
    threads: int,
) -> None:
    monkeypatch.setattr(sort_indices, "MANY", 16)
    graph = graph_of(op, attrs, *arrays)
    *_, last = gpu_program(graph).launched
    assert last.roots[0].target.op == "segment_reduce"
    assert gpu_program(graph).kernels[-1].threads == threads
    check(graph, *arrays)


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_segments_of_halves_are_rounded_once(monkeypatch: pytest.MonkeyPatch, dtype: DType) -> None:
    monkeypatch.setattr(sort_indices, "MANY", 16)
    b = Builder()
    x, index, rows = (
        b.input(i, TensorType(d, shape))
        for i, (d, shape) in enumerate([(dtype, (3, 40)), (i64, (90,)), (dtype, (90, 40))])
    )
    graph = Graph((x, index, rows), (b.apply("index_add", (x, index, rows), {"axis": 0}),))
    arrays = [floats(3, 40).astype(dtype.numpy), some(90, below=3), floats(90, 40).astype(dtype.numpy)]
    (expected,), (got,) = evaluate(graph, arrays), run_for_gpu(graph, arrays)
    np.testing.assert_array_equal(got, expected)


def test_one_index_is_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort_indices, "MANY", 16)
    b = Builder()
    x, index, first, second = (
        b.input(i, TensorType(d, shape))
        for i, (d, shape) in enumerate([(f32, (5, 4)), (i64, (40,)), (f32, (40, 4)), (f32, (40, 4))])
    )
    once = b.apply("index_add", (x, index, first), {"axis": 0})
    graph = Graph((x, index, first, second), (b.apply("index_add", (once, index, second), {"axis": 0}),))
    ops = [node.op for node in optimize(graph, H100).nodes]
    assert ops.count("argsort") == 1 and ops.count("segment_reduce") == 2


def test_few_elements_are_compared_unless_rows_are_wide() -> None:
    b = Builder()
    index = b.input(1, TensorType(i64, (100,)))
    for width, op in ((64, "index_add"), (1 << 13, "segment_reduce")):
        x, rows = b.input(0, TensorType(f32, (5, width))), b.input(2, TensorType(f32, (100, width)))
        graph = Graph((x, index, rows), (b.apply("index_add", (x, index, rows), {"axis": 0}),))
        assert optimize(graph, H100).outputs[0].op == op


@pytest.mark.parametrize(
    ("op", "by_rows"), [("take_along", "gather"), ("scatter_add", "index_add"), ("scatter_set", "index_set")]
)
def test_elements_that_go_by_rows_are_rows(op: str, by_rows: str) -> None:
    """As `x.scatter_add(0, index[:, None].expand(-1, n), rows)` writes it."""
    b = Builder()
    x, index, rows = (
        b.input(i, TensorType(d, shape)) for i, (d, shape) in enumerate([(f32, (5, 4)), (i64, (7,)), (f32, (7, 4))])
    )
    wide = b.broadcast(b.reshape(index, (7, 1)), (7, 4))
    across = b.broadcast(b.reshape(b.slice(index, (0,), (4,), (1,)), (1, 4)), (7, 4))
    for places, wanted in ((wide, by_rows), (across, op)):
        operands = (x, places) if op == "take_along" else (x, places, rows)
        graph = Graph((x, index, rows), (b.apply(op, operands, {"axis": 0}),))
        assert optimize(graph).outputs[0].op == wanted
        arrays = [floats(5, 4), some(7, below=5), floats(7, 4)]
        np.testing.assert_array_equal(evaluate(optimize(graph), arrays)[0], evaluate(graph, arrays)[0])
