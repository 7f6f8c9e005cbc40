"""Gradients of pooling against PyTorch's: overlapping windows, equal elements, NaN, odd extents, dilation, ceil_mode.

Elements are few different whole numbers, so that many are equal and all sums are exact, also in bfloat16. Everything of
one dtype is recorded first and looked at last, so that it is one program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.calls import torch

FLOATS = ("float32", "float64", "bfloat16")
Pool = Callable[[Any, Any], Any]  # of nn.functional and a tensor

WINDOWS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((8, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((9, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((8, 10), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((11, 6), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}),
    ((7, 20), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ((13, 17), {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((3, 2), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((9, 35), {"kernel_size": 2}),
    ((9, 11), {"kernel_size": 2, "stride": 3}),
    ((5, 6, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((4, 5, 6), {"kernel_size": 2}),
    ((37,), {"kernel_size": 3, "stride": 2, "padding": 1}),
)


def pool(kind: str, rank: int, **arguments: Any) -> Pool:
    return lambda f, x: getattr(f, f"{kind}_pool{rank}d")(x, **arguments)


def cases(dtype: str) -> Iterator[tuple[tuple[int, ...], Pool]]:
    """Shapes and functions of them."""
    for extents, arguments in WINDOWS:
        shape = (2, 3, *extents)
        yield shape, pool("max", len(extents), **arguments)
        if dtype != "bfloat16" or len(extents) < 3:
            yield shape, pool("avg", len(extents), **arguments)
    yield (2, 3, 13, 12), pool("max", 2, kernel_size=3, stride=2, padding=1, dilation=2)
    yield (2, 3, 9, 10), lambda f, x: f.relu(f.max_pool2d(f.relu(x), 3, 2, 1))
    yield (2, 3, 9, 10), lambda f, x: f.max_pool2d(f.max_pool2d(x, 3, 2, 1), 2, 1)
    yield (2, 3, 9, 10), lambda f, x: f.max_pool2d(x, 2) * f.max_pool2d(x * 2, 2)
    yield (2, 3, 9, 10), lambda f, x: f.unfold(x, 3, padding=1, stride=2)
    yield (3, 9, 10), pool("max", 2, kernel_size=3, stride=2, padding=1)
    for extents, places in (((8, 9), (3, 4)), ((5, 6), (7, 3)), ((9, 9), (3, 3)), ((10, 9), (4, 3)), ((20, 17), 7)):
        yield (2, 3, *extents), pool("adaptive_max", 2, output_size=places)
        yield (2, 3, *extents), pool("adaptive_avg", 2, output_size=places)
    yield (2, 3, 5, 6, 7), pool("adaptive_max", 3, output_size=(2, 4, 3))
    yield (2, 3, 7), pool("adaptive_max", 1, output_size=4)


@pytest.mark.parametrize("shape", [(2, 3, 13, 17), (2, 3, 5, 9)], ids=str)
def test_places_of_adaptive_maxima(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(5).integers(-1, 2, shape).astype(np.float32)
    made = graphc.nn.functional.adaptive_max_pool2d(graphc.tensor(x), (4, 7), return_indices=True)
    expected = torch.nn.functional.adaptive_max_pool2d(torch.tensor(x), (4, 7), return_indices=True)
    for got, wanted in zip(made, expected, strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())


def gradient(library: Any, functional: Any, function: Pool, dtype: str, x: np.ndarray, scale: np.ndarray) -> Any:
    kind = getattr(library, dtype)
    leaf = library.tensor(x.tolist(), dtype=kind).requires_grad_()
    y = function(functional, leaf)
    weight = library.tensor(scale[: y.numel()].tolist(), dtype=kind).reshape(y.shape)
    return library.autograd.grad(y, [leaf], weight)[0]


@pytest.mark.parametrize("spoiled", [False, True], ids=["numbers", "nan"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients(dtype: str, spoiled: bool) -> None:
    rng = np.random.default_rng(3)
    pairs: list[tuple[Any, Any]] = []
    for shape, function in cases(dtype):
        x = rng.integers(-2, 3, shape).astype(float)
        if spoiled:
            x[(*(0,) * (len(shape) - 1), 1)] = math.nan
        scale = rng.integers(-4, 5, 4 * x.size + 64).astype(float)
        made = gradient(graphc, graphc.nn.functional, function, dtype, x, scale)
        pairs.append((made, gradient(torch, torch.nn.functional, function, dtype, x, scale)))
    for made, expected in pairs:
        rounding = {"rtol": 2**-7, "atol": 2**-6} if dtype == "bfloat16" else {"rtol": 1e-6, "atol": 1e-6}
        got = np.array(made.to(graphc.float64).tolist())
        np.testing.assert_allclose(got, expected.double().numpy(), equal_nan=True, **rounding)
