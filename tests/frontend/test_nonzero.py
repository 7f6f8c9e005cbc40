"""Places of what is not zero, and different elements, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as torch
from graphc.tensors.masks import nonzero_places


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 2), (1, 1), (5, 6), (2, 3, 4), (3, 1, 4, 2)])
def test_nonzero_places_are_those_of_numpy(shape: tuple[int, ...], dtype: str) -> None:
    array = np.asarray(np.random.default_rng(1).integers(0, 2, shape)).astype(dtype)
    for given in (array, array.T, array[::-1] if array.ndim else array):
        places = nonzero_places(given)
        assert places.dtype == np.int64
        assert (places == np.argwhere(given).T).all()
        assert places.shape == (given.ndim, np.count_nonzero(given))


def test_nan_is_not_zero_and_both_zeros_are() -> None:
    assert torch.nonzero(torch.tensor([float("nan"), 0.0, -0.0, 1.0])).tolist() == [[0], [3]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", "float64"])
def test_unique_elements_are_those_of_numpy(dtype: str) -> None:
    array = np.random.default_rng(2).integers(0, 9, (11, 13)).astype(dtype)
    values, inverse, counts = torch.unique(torch.tensor(array), return_inverse=True, return_counts=True)
    expected = np.unique(array, return_inverse=True, return_counts=True)
    for got, wanted in zip((values, inverse, counts), expected, strict=True):
        assert (got.numpy() == wanted).all()
    assert (torch.unique(torch.tensor(array)).numpy() == expected[0]).all()


def test_every_nan_is_different_and_equal_zeros_are_one() -> None:
    found, counts = torch.unique(torch.tensor([float("nan"), 1.0, 0.0, float("nan"), -0.0]), return_counts=True)
    assert found.numpy()[:2].tolist() == [0.0, 1.0]
    assert np.isnan(found.numpy()[2:]).tolist() == [True, True]
    assert counts.tolist() == [2, 1, 1, 1]
