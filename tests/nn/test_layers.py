"""Layers: arguments that are refused, and results against formulas written with NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels must be divisible by groups"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), "out_channels must be divisible by groups"),
        (lambda: nn.Conv2d(1, 1, 3, groups=0), "groups must be a positive integer"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), "Invalid padding string 'full'"),
        (lambda: nn.Conv2d(1, 1, 3, padding="same", stride=2), "padding='same' is not supported for strided"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"), "padding_mode must be one of"),
        (lambda: nn.Dropout(1.5), "dropout probability has to be between 0 and 1, but got 1.5"),
        (
            lambda: nn.MSELoss(reduction="average")(torch.ones(1), torch.ones(1)),
            "average is not a valid value",
        ),
        (lambda: nn.BatchNorm2d(3)(torch.ones(2, 3)), r"expected 4D input \(got 2D input\)"),
        (lambda: nn.BatchNorm1d(3)(torch.ones(2)), r"expected 2D or 3D input \(got 1D input\)"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_linear() -> None:
    layer = nn.Linear(3, 2)
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    np.testing.assert_allclose(layer(torch.tensor(x)).detach().numpy(), x @ w.T + b, rtol=1e-5, atol=1e-6)
    assert nn.Linear(3, 2, bias=False).bias is None
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        layer(torch.ones(3, 2))


def test_dropout_scales_in_training_and_rests_in_evaluation() -> None:
    torch.manual_seed(0)
    layer = nn.Dropout(0.25)
    x = torch.ones(10_000)
    out = layer(x).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 5 * (0.25 * 0.75 / 10_000) ** 0.5
    assert layer(x).numpy().tolist() != out.tolist()
    assert layer.eval()(x).numpy().min() == 1
    assert nn.Dropout(1.0)(x).numpy().max() == 0


def test_batch_norm_moments() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 4)).astype(np.float32) * 2 + 1
    layer = nn.BatchNorm1d(3)
    out = layer(torch.tensor(x)).detach().numpy()
    mean, var = x.mean((0, 2)), x.var((0, 2))
    np.testing.assert_allclose(out, (x - mean[:, None]) / np.sqrt(var[:, None] + 1e-5), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * x.var((0, 2), ddof=1), rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1
    frozen = layer.eval()(torch.tensor(x)).detach().numpy()
    want = (x - 0.1 * mean[:, None]) / np.sqrt(layer.running_var.numpy()[:, None] + 1e-5)
    np.testing.assert_allclose(frozen, want, rtol=1e-4, atol=1e-5)
    assert layer.num_batches_tracked.item() == 1


def test_embedding_looks_rows_up_and_skips_the_padding_row() -> None:
    table = nn.Embedding(4, 2, padding_idx=0)
    index = torch.tensor([[1, 0], [3, 3]])
    out = table(index)
    np.testing.assert_array_equal(out.detach().numpy(), table.weight.detach().numpy()[index.numpy()])
    out.sum().backward()
    assert table.weight.grad.tolist() == [[0, 0], [1, 1], [0, 0], [2, 2]]


def test_flatten_and_unflatten() -> None:
    x = torch.arange(24).reshape(2, 3, 4)
    assert nn.Flatten()(x).shape == (2, 12) and nn.Flatten(0)(x).shape == (24,)
    assert nn.Unflatten(1, (1, 3))(x).shape == (2, 1, 3, 4)
    assert nn.Unflatten(2, (2, -1))(x).shape == (2, 3, 2, 2)


@pytest.mark.parametrize(
    ("layer", "slope"),
    [
        (nn.ELU(), 1.0),
        (nn.ELU(alpha=0.5), 0.5),
        (nn.SELU(), 1.0507009873554804934 * 1.6732632423543772848),  # Klambauer et al., 2017
        (nn.CELU(), 1.0),
    ],
)
def test_slopes_of_exponential_units_are_right_where_results_are_flat(layer: nn.Module, slope: float) -> None:
    """The slope is that of the exponential, to a few rounding errors also where the result is one and the same."""
    x = np.linspace(-80, -0.01, 500, dtype=np.float32)
    given = torch.tensor(x, requires_grad=True)
    layer(given).sum().backward()
    assert given.grad is not None
    np.testing.assert_allclose(given.grad.numpy(), slope * np.exp(x.astype(np.float64)), rtol=1e-5)
