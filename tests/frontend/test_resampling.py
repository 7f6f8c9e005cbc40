"""`interpolate`: what tables say of all elements alike is computed without them, and is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn.functional as F
from graphc import resampling

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def _along(x: np.ndarray, axis: int, times: int) -> np.ndarray:
    """Elements a part of one wide, between those of `x`; the last one goes on past the ends."""
    n = x.shape[axis]
    at = np.clip((np.arange(n * times) + 0.5) / times - 0.5, 0, n - 1)
    low = np.minimum(at.astype(int), n - 1)
    share = (at - low).reshape(-1, *[1] * (x.ndim - axis - 1))
    return x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, n - 1), axis) * share


def _values(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape)


@pytest.mark.parametrize("times", [2, 3, 4, 8])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_factors(rank: int, times: int, dtype: Any) -> None:
    x = _values(2, 3, *(9, 5, 6)[-rank:]).astype(dtype)
    wanted = x.astype(np.float64)
    for axis in range(2, x.ndim):
        wanted = _along(wanted, axis, times)
    for given in ({"scale_factor": times}, {"size": wanted.shape[2:]}):
        got = F.interpolate(torch.tensor(x), mode=MODES[rank], **given)
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5 if dtype is np.float32 else 1e-6)


@pytest.mark.parametrize("mode", ["linear", "bilinear", "trilinear", "bicubic"])
@pytest.mark.parametrize("times", [2, 4])
def test_gradients_are_those_of_tables(mode: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear function: its gradient is the same whatever the elements."""
    rank = {"linear": 1, "trilinear": 3}.get(mode, 2)
    x = torch.tensor(_values(2, 1, *(7, 6, 5)[-rank:]), requires_grad=True)
    found: list[list[np.ndarray]] = []
    for told in (resampling._phases, lambda *_: None):
        monkeypatch.setattr(resampling, "_phases", told)
        resampling._KEPT.tables.cache_clear()
        y = F.interpolate(x, scale_factor=times, mode=mode)
        share = torch.tensor(_values(*y.shape))
        (gradient,) = torch.autograd.grad(y, x, share)
        found.append([y.detach().numpy(), gradient.numpy()])
    resampling._KEPT.tables.cache_clear()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def _reads_by_index(*shape: int, **given: Any) -> bool:
    graph = torch.trace(lambda x: F.interpolate(x, **given), torch.zeros(*shape))
    return any(node.op == "gather" for node in graph.nodes)


def test_which_are_computed_without_tables() -> None:
    assert not _reads_by_index(1, 2, 8, 9, scale_factor=2, mode="bilinear")
    assert not _reads_by_index(1, 2, 8, 9, size=(16, 36), mode="bilinear")
    assert not _reads_by_index(1, 2, 8, scale_factor=8, mode="linear")
    assert not _reads_by_index(1, 2, 8, 9, scale_factor=3, mode="nearest")
    assert _reads_by_index(1, 2, 4, 9, scale_factor=2, mode="bilinear")  # little but ends
    assert _reads_by_index(1, 2, 8, 9, scale_factor=2, mode="bilinear", align_corners=True)
    assert _reads_by_index(1, 2, 8, 9, scale_factor=1.5, mode="bilinear")
    assert _reads_by_index(1, 2, 8, scale_factor=16, mode="linear")
    assert _reads_by_index(1, 2, 9, 9, scale_factor=2, mode="bicubic")  # of four elements each


def test_one_element_goes_on_past_the_ends() -> None:
    """Nothing that is not there is read, not even times zero."""
    x = np.ones((1, 1, 6), np.float32)
    x[..., 1], x[..., -2] = np.inf, np.nan
    y = F.interpolate(torch.tensor(x), scale_factor=2, mode="linear").numpy()[0, 0]
    assert y[0] == 1 and y[-1] == 1
    assert np.isinf(y[1:5]).all() and np.isnan(y[7:11]).all()
