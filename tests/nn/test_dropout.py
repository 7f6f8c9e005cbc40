"""Dropout: one mask forwards and backwards, whole channels, statistics, in place."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
from graphc.nn import functional as F


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d"])
def test_gradient_has_the_mask_of_the_forward_pass(name: str) -> None:
    torch.manual_seed(3)
    x = torch.ones(5, 6, 4, requires_grad=True)
    y = getattr(F, name)(x, 0.4, True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    values, found = y.detach().numpy(), slope.numpy()
    assert len(np.unique(values)) == 2 and len(np.unique(found)) == 2
    assert np.array_equal(found != 0, values == values.max())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("dropout1d", (8, 7, 5)),
        ("dropout2d", (8, 7, 3, 2)),
        ("dropout3d", (8, 7, 2, 2, 2)),
        ("feature_alpha_dropout", (8, 7, 3)),
    ],
)
def test_whole_channels_are_dropped(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    rows = getattr(F, name)(torch.ones(*shape), 0.5, True).numpy().reshape(56, -1)
    assert (rows == rows[:, :1]).all()
    assert len(np.unique(rows[:, 0])) == 2


def test_channels_without_a_batch() -> None:
    torch.manual_seed(0)
    rows = F.dropout1d(torch.ones(40, 3), 0.5).numpy()
    assert (rows == rows[:, :1]).all() and 0 < (rows[:, 0] == 0).sum() < 40


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    torch.manual_seed(1)
    made = F.alpha_dropout(torch.randn(20000), 0.3, True)
    assert abs(float(made.mean())) < 0.05 and abs(float(made.var()) - 1) < 0.05


def test_same_seed_gives_the_same_mask_and_each_call_another() -> None:
    torch.manual_seed(5)
    first, second = F.dropout(torch.ones(64)), F.dropout(torch.ones(64))
    torch.manual_seed(5)
    again = F.dropout(torch.ones(64))
    assert bool((first == again).all()) and not bool((first == second).all())


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d"])
def test_in_place(name: str) -> None:
    x = torch.ones(4, 5, 3)
    assert getattr(F, name)(x, 0.5, True, True) is x
    assert len(np.unique(x.numpy())) == 2
    flat = torch.ones(30, 2)
    assert F.dropout1d(flat, 0.5, True, True) is flat and len(np.unique(flat.numpy())) == 2


def test_warnings_and_errors_about_ranks() -> None:
    with pytest.warns(UserWarning, match="dropout2d: Received a 2-D input"):
        F.dropout2d(torch.ones(2, 3))
    with pytest.warns(UserWarning, match=r"interpreted as shape \(N, C, L\)"):
        F.dropout2d(torch.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match="dropout1d: Expected 2D or 3D input, but received a 4D input"):
        F.dropout1d(torch.ones(1, 1, 1, 1))
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="Feature dropout requires at least 2"):
        F.dropout2d(torch.ones(3))


def test_random_leaky_slopes() -> None:
    torch.manual_seed(0)
    x = torch.full((500,), -1.0, requires_grad=True)
    y = F.rrelu(x, 0.2, 0.6, training=True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    found = slope.numpy()
    assert np.allclose(found, -y.detach().numpy())
    assert 0.2 <= found.min() < 0.25 and 0.55 < found.max() < 0.6


def test_gumbel_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([0.0, np.log(3.0)], requires_grad=True)
    made = F.gumbel_softmax(logits.expand(4000, 2), hard=True)
    rows = made.detach().numpy()
    assert np.array_equal(np.unique(rows), [0.0, 1.0]) and (rows.sum(1) == 1).all()
    assert abs(rows[:, 1].mean() - 0.75) < 0.03
    (slope,) = torch.autograd.grad(made[:, 1].sum(), logits)
    assert slope.numpy()[1] > 0 > slope.numpy()[0]


def test_implicit_dimension_warns() -> None:
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax has been deprecated"):
        F.softmax(torch.ones(2, 3))
