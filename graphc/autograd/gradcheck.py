"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import Tensor, autograd_grad, from_numpy


def numerical_jacobian(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], which: int, eps: float = 1e-6
) -> np.ndarray:
    """Central differences: entry [i, j] is d output.flat[j] / d inputs[which].flat[i]."""
    base = inputs[which].detach().numpy().astype(np.float64)
    rows = []
    for place in range(base.size):
        ends = []
        for step in (eps, -eps):
            moved = base.copy()
            moved.reshape(-1)[place] += step
            arguments = [from_numpy(moved) if i == which else x.detach() for i, x in enumerate(inputs)]
            ends.append(function(*arguments).detach().numpy().astype(np.float64).reshape(-1))
        rows.append((ends[0] - ends[1]) / (2 * eps))
    return np.stack(rows) if rows else np.zeros((0, 0))


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Compare gradients of `func` (one float64 tensor out) with central differences; RuntimeError where they differ."""
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    for which, x in enumerate(given):
        if not x.requires_grad:
            continue
        output = func(*given)
        columns = []
        for place in range(output.numel()):
            seed = np.zeros(output.numel())
            seed[place] = 1
            seed_tensor = from_numpy(seed.reshape(tuple(output.shape)))
            (gradient,) = autograd_grad(
                output, x, seed_tensor, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            assert gradient is not None
            columns.append(gradient.detach().numpy().reshape(-1))
        analytical = np.stack(columns, 1) if columns else np.zeros((x.numel(), 0))
        numerical = numerical_jacobian(func, given, which, eps)
        if not np.allclose(analytical, numerical, atol=atol, rtol=rtol, equal_nan=True):
            if raise_exception:
                raise RuntimeError(
                    f"Jacobian mismatch for output 0 with respect to input "
                    f"{which},\nnumerical:{numerical}\nanalytical:{analytical}\n"
                )
            return False
    return True
