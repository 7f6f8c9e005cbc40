"""Minimal filters: exact identities, in rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from graphc.passes.cook_toom import MAX_PLACES, Matrix, minimal_filter

SIZES = [(m, r) for m in range(1, MAX_PLACES) for r in range(1, MAX_PLACES + 2 - m)]


def _times(matrix: Matrix, vector: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_every_product_of_data_and_taps_is_exact(outputs: int, taps: int) -> None:
    """Bilinear in both operands, so unit vectors are enough."""
    plan = minimal_filter(outputs, taps)
    assert plan.places == outputs + taps - 1
    for at in range(plan.places):
        for k in range(taps):
            data = [Fraction(int(i == at)) for i in range(plan.places)]
            tap = [Fraction(int(i == k)) for i in range(taps)]
            products = [a * b for a, b in zip(_times(plan.data, data), _times(plan.taps, tap), strict=True)]
            assert _times(plan.results, products) == [Fraction(int(i + k == at)) for i in range(outputs)]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_data_is_transformed_with_small_whole_numbers(outputs: int, taps: int) -> None:
    for row in minimal_filter(outputs, taps).data:
        assert all(v.denominator == 1 and abs(v) <= 8 for v in row)
        assert math.gcd(*(v.numerator for v in row)) == 1


def test_data_is_transformed_alike_for_filters_and_for_their_gradients() -> None:
    """A convolution and its weight gradient share what they make of the input."""
    assert minimal_filter(4, 3).data == minimal_filter(3, 4).data


@pytest.mark.parametrize(("outputs", "taps", "limit"), [(2, 3, 1.0), (4, 3, 2.5), (3, 4, 2.5)])
def test_rounding_errors_stay_near_those_of_the_sum_itself(outputs: int, taps: int, limit: float) -> None:
    """Over 64 channels in f32, against sums of products in the order in which they stand."""
    rng = np.random.default_rng(0)
    plan = minimal_filter(outputs, taps)
    data, tap, results = (np.array(m, np.float64).astype(np.float32) for m in (plan.data, plan.taps, plan.results))
    x = rng.standard_normal((4000, 64, plan.places)).astype(np.float32)
    w = rng.standard_normal((4000, 64, taps)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, taps, 2)
    exact = np.einsum("ncik,nck->ni", windows.astype(np.float64), w.astype(np.float64))
    plain = np.zeros(exact.shape, np.float32)
    for c in range(64):
        for k in range(taps):
            plain += windows[:, c, :, k] * w[:, c, k, None]
    places = np.zeros((4000, plan.places), np.float32)
    for c in range(64):
        places += (x[:, c] @ data.T) * (w[:, c] @ tap.T)
    found = places @ results.T
    assert np.abs(found - exact).mean() < limit * np.abs(plain - exact).mean()
