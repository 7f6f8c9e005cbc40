"""Gradients through triangles: PyTorch gives the part that is not read a gradient too, which no composition sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.samples.linalg import lower, spd

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

CASES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "cholesky_solve": lambda t, x, y: t.cholesky_solve(y, x.tril()),
    "cholesky_solve, upper": lambda t, x, y: t.cholesky_solve(y, x.tril().mT, upper=True),
    "cholesky_inverse": lambda t, x, y: t.cholesky_inverse(x.tril()) @ y,
    "through cholesky": lambda t, x, y: t.cholesky_solve(y, t.linalg.cholesky(x @ x.mT)),
    "normal equations": lambda t, x, y: t.linalg.solve(x.mT @ x, x.mT @ y),
    "log of a determinant": lambda t, x, y: t.logdet(x @ x.mT) + (t.linalg.inv(x) @ y).sum(),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_both_orders(name: str) -> None:
    matrix, right = lower(3, 3) + 0.1 * spd(3, 3), np.arange(6.0).reshape(3, 2)
    found = []
    for library in (graphc, torch):
        x = library.tensor(matrix, requires_grad=True)
        y = library.tensor(right, requires_grad=True)
        made = CASES[name](library, x, y)
        first = library.autograd.grad((made * made).sum(), [x, y], create_graph=True, allow_unused=True)
        slope = sum((g * g).sum() for g in first if g is not None)
        second = library.autograd.grad(slope, [x, y], allow_unused=True)
        found.append([None if g is None else g.detach().numpy() for g in (made, *first, *second)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
