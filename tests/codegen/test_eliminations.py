"""Kernels of linear algebra with small matrices: what they give, and where they fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphc.codegen.target import Target
from graphc.errors import UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.small_matrices import MOST_COLUMNS, MOST_ROWS, has_kernel
from graphc.ir.types import DType, TensorType, f32, f64
from graphc.pipeline import build_program
from tests.codegen.programs import run
from tests.codegen.targets import runnable

TARGETS = runnable()
LEADS = [(), (1,), (3,), (2, 9), (41,)]


def graph_of(op: str, dtype: DType, *shapes: tuple[int, ...], **attrs: Any) -> Graph:
    b = Builder()
    inputs = tuple(b.input(i, TensorType(dtype, shape)) for i, shape in enumerate(shapes))
    return Graph(inputs, (b.apply(op, inputs, attrs),))


def check(graph: Graph, arrays: list[np.ndarray], target: Target | None = None) -> None:
    assert has_kernel(graph.outputs[0])
    (expected,), (got,) = evaluate(graph, arrays), run(graph, arrays, target)
    # Errors grow with the condition of the matrices, which is below 100.
    size = np.abs(np.where(np.isfinite(expected), expected, 0)).max(initial=1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=size * 500 * np.finfo(expected.dtype).eps)


def matrices(rng: np.random.Generator, lead: tuple[int, ...], n: int, dtype: DType) -> np.ndarray:
    """Well conditioned, with rows in disorder, so that pivots are not on the diagonal."""
    x = rng.uniform(-0.5, 0.5, (*lead, n, n)) / n + np.eye(n)[rng.permutation(n)]
    return x.astype(dtype.numpy)


@pytest.mark.share(2)
@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("n", [1, 2, 3, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 6, 7)), MOST_ROWS])
def test_all_sizes(n: int, dtype: DType) -> None:
    rng = np.random.default_rng(n)
    for lead in LEADS:
        x = matrices(rng, lead, n, dtype)
        y = rng.normal(size=(*lead, n, 2)).astype(dtype.numpy)
        for op in ("inverse", "det", "slogdet"):
            check(graph_of(op, dtype, x.shape), [x])
        check(graph_of("solve", dtype, x.shape, y.shape), [x, y])
        check(graph_of("cholesky", dtype, x.shape), [x @ np.swapaxes(x, -1, -2)])
        for upper in (False, True):
            for unit in (False, True):
                tall = (x + 2 * np.eye(n)).astype(dtype.numpy)
                graph = graph_of("solve_triangular", dtype, x.shape, y.shape, upper=upper, unit=unit)
                check(graph, [tall, y])


@pytest.mark.share(2)
@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str) -> None:
    rng = np.random.default_rng(0)
    for dtype in (f32, f64):
        for count in (1, 5, 37):
            x = matrices(rng, (count,), 3, dtype)
            y = rng.normal(size=(count, 3, MOST_COLUMNS)).astype(dtype.numpy)
            check(graph_of("solve", dtype, x.shape, y.shape), [x, y], TARGETS[name])
            check(graph_of("slogdet", dtype, x.shape), [x], TARGETS[name])
            check(graph_of("cholesky", dtype, x.shape), [x @ np.swapaxes(x, -1, -2)], TARGETS[name])


def test_matrices_that_fail_are_told_by_lapacks_numbers() -> None:
    rng = np.random.default_rng(1)
    x = matrices(rng, (20,), 4, f64)
    x[3] = 0
    x[5, :, 2] = 0
    x[7, 3] = x[7, 0]
    for op in ("inverse", "solve"):
        arrays = [x, x[:, :, :1].copy()][: 1 + (op == "solve")]
        graph = graph_of(op, f64, *[a.shape for a in arrays])
        (expected,), (got,) = evaluate(graph, arrays), run(graph, arrays)
        assert got[:, -1, 0].tolist() == expected[:, -1, 0].tolist()
        assert np.isnan(got[[3, 5, 7], :-1]).all()
        assert np.isfinite(np.delete(got, [3, 5, 7], 0)).all()
    (signs,) = run(graph_of("slogdet", f64, x.shape), [x])
    assert signs[[3, 5]].tolist() == [[0, -np.inf]] * 2
    (det,) = run(graph_of("det", f64, x.shape), [x])
    assert det[[3, 5]].tolist() == [0, 0]
    p = x @ np.swapaxes(x, -1, -2)
    p[9, 2, 2] = -1
    graph = graph_of("cholesky", f64, p.shape)
    (expected,), (got,) = evaluate(graph, [p]), run(graph, [p])
    np.testing.assert_allclose(np.delete(got, 7, 0), np.delete(expected, 7, 0), atol=1e-12)  # rounding decides there
    assert got[[3, 9], -1, 0].tolist() == [1, 3]


def test_what_is_not_a_number_stays_none() -> None:
    x = np.stack([np.full((3, 3), np.nan), np.eye(3)])
    (inverse,) = run(graph_of("inverse", f64, x.shape), [x])
    assert np.isnan(inverse[0, :3]).all()
    assert inverse[1, :3].tolist() == np.eye(3).tolist()
    (sign,) = run(graph_of("slogdet", f64, x.shape), [x])
    assert np.isnan(sign[0]).all()
    assert sign[1].tolist() == [1, 0]


def test_larger_matrices_run_on_the_host() -> None:
    n = MOST_ROWS + 1
    for graph in (
        graph_of("inverse", f32, (2, n, n)),
        graph_of("solve", f32, (2, 2), (2, MOST_COLUMNS + 1)),
        graph_of("inverse", f32, (0, 2, 2)),
    ):
        assert not has_kernel(graph.outputs[0])
        with pytest.raises(UnsupportedError, match="run on the host"):
            build_program(graph)
    b = Builder()
    assert not has_kernel(b.apply("inverse", (b.input(0, TensorType(f64, (7, 7), "cuda:0")),)))
