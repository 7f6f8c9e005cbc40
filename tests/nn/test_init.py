"""Initial values: the bounds that PyTorch's layers use, and `nn.init`."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc.nn import init


def assert_uniform(tensor: torch.Tensor, bound: float) -> None:
    """Uniform in [-bound, bound]: never outside, the extremes nearly reached, the second moment right within 5
    sigma."""
    values = tensor.detach().numpy().astype(np.float64).ravel()
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert np.abs(values).max() > bound * (1 - 20 / values.size)
    spread = bound**2 * math.sqrt(4 / 45 / values.size)
    assert abs((values**2).mean() - bound**2 / 3) < 5 * spread


def test_layers_start_as_pytorch_says() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(100, 400)
    assert_uniform(layer.weight, 0.1)
    assert_uniform(layer.bias, 0.1)
    conv = nn.Conv2d(8, 128, 3, groups=2)
    assert_uniform(conv.weight, 1 / math.sqrt(4 * 9))
    assert_uniform(conv.bias, 1 / math.sqrt(4 * 9))
    table = nn.Embedding(50, 20, padding_idx=-1)
    assert table.padding_idx == 49 and not table.weight[49].detach().numpy().any()
    assert abs(table.weight[:49].detach().numpy().std() - 1) < 0.1
    norm = nn.BatchNorm2d(3)
    assert (
        norm.weight.tolist() == [1, 1, 1] and norm.bias.tolist() == [0, 0, 0] and norm.running_var.tolist() == [1, 1, 1]
    )


def test_layers_are_reproducible() -> None:
    torch.manual_seed(3)
    a = nn.Linear(5, 4)
    b = nn.Linear(5, 4)
    torch.manual_seed(3)
    c = nn.Linear(5, 4)
    assert a.weight.tolist() == c.weight.tolist() and a.weight.tolist() != b.weight.tolist()


def test_init_functions() -> None:
    torch.manual_seed(1)
    w = nn.Parameter(torch.empty(200, 300))
    assert init.uniform_(w, -2, 2) is w and w.requires_grad and w.is_leaf
    assert_uniform(w, 2)
    assert_uniform(init.xavier_uniform_(w, gain=2.0), 2 * math.sqrt(6 / 500))
    assert_uniform(init.kaiming_uniform_(w, nonlinearity="relu"), math.sqrt(6 / 300))
    assert_uniform(init.kaiming_uniform_(w, a=1, mode="fan_out"), math.sqrt(3 / 200))
    for filled, std in (
        (lambda: init.normal_(w, 1.0, 3.0) - 1, 3.0),
        (lambda: init.xavier_normal_(w), math.sqrt(2 / 500)),
        (lambda: init.kaiming_normal_(w, nonlinearity="relu"), math.sqrt(2 / 300)),
    ):
        values = filled().detach().numpy()
        assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size)
        assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
    assert init.constant_(w, 0.5).detach().numpy().min() == 0.5
    assert init.zeros_(w).detach().numpy().max() == 0 and init.ones_(w).detach().numpy().min() == 1
    assert np.array_equal(init.eye_(torch.empty(2, 3)).numpy(), np.eye(2, 3, dtype=np.float32))


def test_gain() -> None:
    assert init.calculate_gain("relu") == math.sqrt(2) and init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04) and init.calculate_gain("linear") == 1
    with pytest.raises(ValueError, match="Unsupported nonlinearity swish"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        init.xavier_uniform_(torch.empty(3))
    with pytest.raises(ValueError, match="Mode fan not supported"):
        init.kaiming_normal_(torch.empty(3, 3), mode="fan")


@pytest.mark.parametrize("shape", [(5, 5), (3, 8), (8, 3), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    w = init.orthogonal_(nn.Parameter(torch.empty(shape)), gain=2.0).detach().numpy().reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    assert np.allclose(small, 4 * np.eye(small.shape[0]), atol=1e-5)


def test_truncated_normal() -> None:
    torch.manual_seed(3)
    near = init.trunc_normal_(torch.empty(20_000)).numpy()
    assert np.abs(near).max() <= 2 and abs(near.std() - 0.8796) < 0.02 and abs(near.mean()) < 0.03
    far = init.trunc_normal_(torch.empty(20_000), 0.0, 1.0, 1.5, 3.0).numpy()
    assert far.min() >= 1.5 and far.max() <= 3 and abs(far.mean() - 1.9027) < 0.02
    with pytest.warns(UserWarning, match="mean is more than 2 std from"):
        init.trunc_normal_(torch.empty(4), 0.0, 0.1, 1.0, 2.0)


def test_sparse_dirac_and_old_names() -> None:
    w = init.sparse_(torch.empty(10, 4), 0.25, 1.0)
    assert ((w == 0).sum(0) == 3).all()
    d = init.dirac_(torch.empty(4, 2, 3), groups=2)
    x = torch.randn(1, 4, 6)
    assert np.allclose(torch.nn.functional.conv1d(x, d, padding=1, groups=2).numpy(), x.numpy())
    with pytest.warns(FutureWarning, match="`nn.init.constant` is now deprecated in favor of `nn.init.constant_`"):
        assert init.constant(torch.empty(2), 3.0).tolist() == [3.0, 3.0]
    with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
        init.kaiming_normal_(torch.empty(0, 3))
    for bad, text in (
        (lambda: init.orthogonal_(torch.empty(3)), "2 or more dimensions"),
        (lambda: init.sparse_(torch.empty(3), 0.1), "Only tensors with 2 dimensions"),
        (lambda: init.dirac_(torch.empty(3, 3)), "Only tensors with 3, 4, or 5 dimensions"),
        (lambda: init.dirac_(torch.empty(3, 3, 3), groups=2), "dim 0 must be divisible by groups"),
    ):
        with pytest.raises(ValueError, match=text):
            bad()
