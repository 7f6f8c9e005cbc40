"""Linear algebra with small matrices on a GPU: a matrix a thread, and nothing goes to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc.errors import LinAlgError
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.small_matrices import MOST_BYTES, has_kernel
from graphc.ir.types import DType, f32, f64
from tests.codegen.test_eliminations import graph_of, matrices
from tests.cuda.machine import Machine
from tests.frontend.test_stored_parts import counted


def check(cuda: Machine, graph: Graph, arrays: list[np.ndarray]) -> None:
    assert has_kernel(graph.outputs[0], on_gpu=True)
    (expected,), (got,) = evaluate(graph, arrays), cuda.run(graph, arrays)
    size = np.abs(np.where(np.isfinite(expected), expected, 0)).max(initial=1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=size * 500 * np.finfo(expected.dtype).eps)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize(("n", "lead"), [(1, (5,)), (2, (70,)), (3, (2, 9)), (6, ())])
def test_all_operators(cuda: Machine, n: int, lead: tuple[int, ...], dtype: DType) -> None:
    rng = np.random.default_rng(n)
    x = matrices(rng, lead, n, dtype)
    y = rng.normal(size=(*lead, n, 2)).astype(dtype.numpy)
    for op in ("inverse", "det", "slogdet"):
        check(cuda, graph_of(op, dtype, x.shape), [x])
    check(cuda, graph_of("solve", dtype, x.shape, y.shape), [x, y])
    check(cuda, graph_of("cholesky", dtype, x.shape), [x @ np.swapaxes(x, -1, -2)])
    tall = (x + 2 * np.eye(n)).astype(dtype.numpy)
    check(cuda, graph_of("solve_triangular", dtype, x.shape, y.shape, upper=True, unit=False), [tall, y])


def test_larger_ones_go_to_the_host() -> None:
    assert MOST_BYTES < 7 * 14 * 8
    assert not has_kernel(graph_of("inverse", f64, (2, 7, 7)).outputs[0], on_gpu=True)
    assert has_kernel(graph_of("inverse", f64, (2, 7, 7)).outputs[0])


def test_a_filter_of_small_matrices_is_one_program(cuda: Machine) -> None:
    """Steps of a Kalman filter: an inverse between products."""
    a, c = torch.eye(3).cuda() * 0.9, torch.linspace(-1, 1, 6).reshape(2, 3).cuda()

    def step(p: Any) -> Any:
        p = a @ p @ a.T + torch.eye(3, device="cuda")
        gain = p @ c.T @ torch.linalg.inv(c @ p @ c.T + torch.eye(2, device="cuda"))
        return p - gain @ c @ p

    p = torch.eye(3).cuda()
    done = counted(lambda: step(p).tolist())
    assert done["host_calls"] == 0
    q, m, k = np.eye(3), np.eye(3) * 0.9, np.linspace(-1, 1, 6).reshape(2, 3)
    q = m @ q @ m.T + np.eye(3)
    q = q - q @ k.T @ np.linalg.inv(k @ q @ k.T + np.eye(2)) @ k @ q
    np.testing.assert_allclose(step(p).tolist(), q, rtol=1e-4, atol=1e-5)


def test_singular_matrices_are_told(cuda: Machine) -> None:
    x = torch.ones(2, 2, 2, device="cuda")
    with pytest.raises(LinAlgError, match="singular"):
        torch.linalg.inv(x).tolist()
    assert torch.linalg.det(x).tolist() == [0, 0]
    with pytest.raises(LinAlgError, match="positive-definite"):
        torch.linalg.cholesky(-x).cpu().tolist()
    inverse, info = torch.linalg.inv_ex(x)
    assert info.tolist() == [2, 2] and inverse.is_cuda
