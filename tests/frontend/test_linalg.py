"""Linear algebra: errors that depend on values come when a value is looked at, and leave everything usable."""

from __future__ import annotations

import pytest

import graphc as torch
from graphc.errors import UnsupportedError

ONES = [[1.0, 1.0], [1.0, 1.0]]


def test_an_error_names_operator_and_line_and_leaves_pending_work() -> None:
    singular, other = torch.tensor(ONES), torch.arange(3.0) * 2
    made = torch.linalg.inv(singular)
    with pytest.raises(
        torch.linalg.LinAlgError, match=r"linalg.inv: The diagonal element 2 is zero.*\n  at .*test_linalg.py:\d+$"
    ):
        made.tolist()
    assert other.tolist() == [0.0, 2.0, 4.0]
    assert all(x != x for row in made.tolist() for x in row)
    assert torch.linalg.inv(torch.eye(2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_the_error_is_pytorch_s_kind() -> None:
    assert issubclass(torch.linalg.LinAlgError, RuntimeError)
    assert torch.linalg.LinAlgError.__name__ == "LinAlgError"


def test_the_error_comes_although_nobody_keeps_the_result() -> None:
    torch.linalg.cholesky(-torch.eye(2))
    with pytest.raises(torch.linalg.LinAlgError, match="minor of order 1"):
        torch.ones(2).add(1).tolist()


def test_compiled_functions_raise_at_every_failing_call() -> None:
    solve = torch.compile(lambda a, y: torch.linalg.solve(a, y) + 1)
    good, y = 2 * torch.eye(2), torch.ones(2)
    for _ in range(3):
        assert solve(good, y).tolist() == [1.5, 1.5]
    for _ in range(2):
        with pytest.raises(torch.linalg.LinAlgError, match=r"torch\.linalg\.solve: The solver failed"):
            solve(torch.tensor(ONES), y).tolist()
        assert solve(good, y).tolist() == [1.5, 1.5]


def test_gradients_pass_through_factorisations() -> None:
    a = (2 * torch.eye(2)).requires_grad_()
    torch.linalg.inv(a).sum().backward()
    assert a.grad.tolist() == [[-0.25, -0.25], [-0.25, -0.25]]


def test_complex_results_are_refused_by_name() -> None:
    for name in ("eig", "eigvals"):
        with pytest.raises(UnsupportedError, match=f"linalg.{name}: eigenvalues of general matrices are complex"):
            getattr(torch.linalg, name)(torch.eye(2))


def test_missing_modules_are_named() -> None:
    with pytest.raises(AttributeError, match="'fft'"):
        _ = torch.fft


def test_trace_of_a_matrix_and_of_a_call() -> None:
    assert torch.trace(torch.tensor([[1, 2], [3, 4]])).item() == 5
    assert torch.trace(input=torch.eye(3)).item() == 3
    assert "add" in str(torch.trace(lambda x: x + 1, torch.ones(2)))


def test_names_of_results() -> None:
    assert torch.linalg.qr(torch.eye(2))._fields == ("Q", "R")
    assert torch.linalg.svd(torch.eye(2))._fields == ("U", "S", "Vh")
    assert torch.svd(torch.eye(2))._fields == ("U", "S", "V")
    assert torch.linalg.eigh(torch.eye(2))._fields == ("eigenvalues", "eigenvectors")
    assert torch.linalg.slogdet(torch.eye(2))._fields == ("sign", "logabsdet")
