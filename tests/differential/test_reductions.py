"""Reductions where PyTorch warns, and what no sample can say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean"])
@pytest.mark.parametrize(
    ("shape", "arguments"), [((1, 3), {"dim": 0}), ((), {}), ((0, 3), {}), ((3,), {"correction": 5})]
)
def test_too_few_degrees_of_freedom(name: str, shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    with pytest.warns(UserWarning, match="degrees of freedom is <= 0"):
        wanted = getattr(torch, name)(torch.tensor(values), **arguments)
    with pytest.warns(UserWarning, match=rf"^{name}\(\): degrees of freedom is <= 0"):
        found = getattr(graphc, name)(graphc.tensor(values), **arguments)
    pairs = [(found, wanted)] if name in ("var", "std") else list(zip(found, wanted, strict=True))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_implicit_dimension(name: str, rank: int) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 2, 2)[:rank])
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        wanted = getattr(torch.nn.functional, name)(torch.tensor(values))
    with pytest.warns(UserWarning, match=f"Implicit dimension choice for {name} has been deprecated"):
        found = getattr(graphc.nn.functional, name)(graphc.tensor(values))
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"), [("max", {"dim": 1}), ("min", {"dim": 1, "keepdim": True}), ("aminmax", {"dim": 0})]
)
def test_named_results_print_as_in_pytorch(name: str, arguments: dict[str, Any]) -> None:
    values = [[1.5, 3.0], [4.0, 2.25]]
    made = [getattr(library, name)(library.tensor(values), **arguments) for library in (graphc, torch)]
    assert repr(made[0]) == repr(made[1])


def test_results_are_tuples_with_fields() -> None:
    made = graphc.max(graphc.tensor([1.0, 3.0, 2.0]), 0)
    values, indices = made
    assert isinstance(made, tuple) and isinstance(made, graphc.return_types.max)
    assert (values.item(), indices.item()) == (made.values.item(), made.indices.item()) == (3.0, 1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_means_do_not_overflow(dtype: str) -> None:
    full = graphc.full((1000,), 1000.0, dtype=getattr(graphc, dtype))
    assert full.mean().item() == 1000.0
    assert full.var().item() == 0.0


def test_integers_wrap() -> None:
    big = [2**62] * 3
    assert graphc.tensor(big).sum().item() == torch.tensor(big).sum().item()
    assert graphc.tensor([3] * 50).prod().item() == torch.tensor([3] * 50).prod().item()


def test_long_float32_sums_are_accurate() -> None:
    values = np.random.default_rng(1).random(1_000_000).astype(np.float32)
    exact = float(values.sum(dtype=np.float64))
    assert abs(graphc.tensor(values).sum().item() - exact) <= 4e-7 * exact


def test_long_running_sums_keep_their_digits() -> None:
    values = np.random.default_rng(2).random(300_000).astype(np.float32)
    found = graphc.tensor(values).cumsum(0).numpy()
    np.testing.assert_allclose(found, np.cumsum(values, dtype=np.float64), rtol=2e-7)


def test_covariance_of_one_observation() -> None:
    with pytest.warns(UserWarning, match="degrees of freedom is <= 0"):
        wanted = torch.cov(torch.tensor([[1.0], [2.0]]))
    with pytest.warns(UserWarning, match="degrees of freedom is <= 0"):
        found = graphc.cov(graphc.tensor([[1.0], [2.0]]))
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_scans_and_orders_replay() -> None:
    """Captured calls run scans and host operators again, on other values too."""

    @graphc.compile
    def function(x: Any) -> Any:
        return graphc.sort(x.cumsum(0).cumprod(0)).values, x.median(), graphc.topk(x, 2).indices

    for seed in range(4):
        values = np.random.default_rng(seed).normal(size=9)
        t = torch.tensor(values)
        wanted = torch.sort(t.cumsum(0).cumprod(0)).values, t.median(), torch.topk(t, 2).indices
        for ours, theirs in zip(function(graphc.tensor(values)), wanted, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)
