"""The same code run with PyTorch and with graphc, and the comparison of what comes out."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
torch.set_num_threads(1)


def to(library: types.ModuleType, array: np.ndarray, requires_grad: bool = False) -> Any:
    """`array` as a tensor of `library`, with a memory of its own."""
    made = library.tensor(array)
    return made.requires_grad_() if requires_grad else made


def kind_of(error: BaseException) -> str:
    """The name of the builtin type that an error is: graphc's classes are subclasses of those that PyTorch raises."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def message(error: BaseException) -> str:
    """What an error says, without the user's call and line, which only graphc adds."""
    return error.message if isinstance(error, GraphcError) else str(error)


def forward_and_backward(
    library: types.ModuleType, function: Callable[..., Any], arrays: Sequence[np.ndarray], weights: np.ndarray | None
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """The result of `function(library, *tensors)` and, for each float argument, the gradient of its sum weighted by
    `weights`."""
    tensors = [to(library, a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out = function(library, *tensors)
    if out.requires_grad:
        if weights is None:
            weights = np.random.default_rng(7).standard_normal(tuple(out.shape))
        (out * to(library, weights.astype(out.detach().numpy().dtype))).sum().backward()
    gradients = [t.grad.numpy() if t.requires_grad and t.grad is not None else None for t in tensors]
    return out.detach().numpy(), gradients


def check(function: Callable[..., Any], *arrays: np.ndarray, rtol: float = 2e-5, atol: float = 2e-6) -> None:
    """Asserts that `function(library, *tensors)` gives the same values, dtype, shape and gradients in both
    libraries."""
    wanted, wanted_gradients = forward_and_backward(torch, function, arrays, None)
    found, found_gradients = forward_and_backward(graphc, function, arrays, None)
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
    for i, (got, want) in enumerate(zip(found_gradients, wanted_gradients, strict=True)):
        assert (got is None) == (want is None), f"gradient of argument {i}"
        if got is not None and want is not None:
            np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=f"gradient of argument {i}")


def floats(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Normal values with a fixed seed."""
    return np.random.default_rng(seed + 1000 * len(shape) + sum(shape)).standard_normal(shape).astype(dtype)


def spread(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Distinct values at least 0.01 apart and away from zero, in a fixed random order: no ties, no kinks."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2 + 0.5) * max(0.01, 4 / max(size, 1))
    return np.random.default_rng(size).permutation(values).reshape(shape).astype(dtype)
