"""Linear algebra with small matrices: nothing runs on the host, and native code records it."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
from graphc.counting import FRONT
from graphc.errors import LinAlgError

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


def test_programs_with_small_matrices_are_one() -> None:
    before = FRONT.host_calls
    a = torch.tensor([[4.0, 1.0], [1.0, 3.0]], requires_grad=True)
    y = torch.tensor([1.0, 2.0])
    x = torch.linalg.solve(a, y)
    logs = torch.linalg.cholesky(a).diagonal().log().sum() - torch.linalg.inv(a).sum()
    (x.sum() + logs).backward()
    assert a.grad is not None
    assert FRONT.host_calls == before
    np.testing.assert_allclose(x.detach().numpy(), np.linalg.solve([[4.0, 1], [1, 3]], [1, 2]), rtol=1e-6)


def test_a_singular_matrix_raises_what_lapack_finds() -> None:
    for _ in range(4):  # also when native code records the call again
        x = torch.linalg.inv(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
        with pytest.raises(LinAlgError, match="The diagonal element 2 is zero"):
            x.tolist()
    for _ in range(4):
        x = torch.linalg.cholesky(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [2.0, 1.0]]]))
        with pytest.raises(LinAlgError, match=r"\(Batch element 1\).*order 2 is not positive-definite"):
            x.tolist()


def test_a_filter_is_recorded_natively() -> None:
    """A step of a loop that inverts: its check goes with it."""
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]])

    def step(p: torch.Tensor) -> torch.Tensor:
        s = a @ p @ a.T + 0.1
        return p - p @ a.T @ torch.linalg.inv(s) @ a @ p * 0.5

    expected, p = np.eye(2), torch.eye(2)
    records: list[int] = []
    for _ in range(12):
        before, hosted = FRONT.records - FRONT.native_records, FRONT.host_calls
        p = step(p)
        records.append(FRONT.records - FRONT.native_records - before)
        p[0, 0].item()
        assert FRONT.host_calls == hosted
        m = np.array(a.tolist())
        expected = expected - expected @ m.T @ np.linalg.inv(m @ expected @ m.T + 0.1) @ m @ expected * 0.5
    assert records[-1] == 0
    np.testing.assert_allclose(p.numpy(), expected, rtol=1e-4)
