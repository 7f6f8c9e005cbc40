"""pow, floor_divide and remainder of floats: against NumPy in wider precision, Python, and the C special cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.types import DType, f16, f32, f64
from tests.codegen.kernel_harness import interpreted, native
from tests.codegen.kernel_interpreter import ulp_error

SPECIAL = [
    0.0, 1.0, 2.0, 0.5, 3.0, 0.1, 1e30, 1e-30, 5e-324, 2.0**53 + 2, 2.0**53, 0.9999999, 1.0000001, 0.3, 7.0, math.inf,
]  # fmt: skip


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of special values."""
    with np.errstate(over="ignore"):
        values = np.array([*SPECIAL, *(-v for v in SPECIAL), math.nan]).astype(dtype.numpy)
    x, y = np.meshgrid(values, values)
    return x.ravel(), y.ravel()


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))


def powers(dtype: DType, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(21)
    top = 1700.0 if dtype is f32 else 14000.0
    x = [
        np.exp(rng.uniform(-80, 80, count)),
        rng.uniform(0, 3, count),
        1 + rng.uniform(-1e-3, 1e-3, count),
        -rng.integers(0, 40, count),
        rng.uniform(0.9, 1.1, count),
    ]
    y = [
        rng.uniform(-9, 9, count),
        rng.uniform(-30, 30, count),
        rng.uniform(-1e5, 1e5, count),
        rng.integers(-30, 30, count),
        np.round(rng.uniform(-top, top, count)),
    ]
    a, b = pairs(dtype)
    numbers = [np.concatenate([v.astype(dtype.numpy) for v in values]) for values in (x, y)]
    return np.concatenate([numbers[0], a]), np.concatenate([numbers[1], b])


@pytest.mark.parametrize(("dtype", "limit"), [(f32, 0.6), (f64, 0.8)], ids=str)
def test_pow(dtype: DType, limit: float) -> None:
    x, y = powers(dtype)
    wide = np.float64 if dtype is f32 else np.longdouble
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(wide), y.astype(wide))
    error = ulp_error(native("pow", (dtype, dtype), 8)(x, y), expected)
    worst = int(np.argmax(error))
    assert error[worst] <= limit, (x[worst], y[worst])


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_pow_is_exact_where_the_result_is_a_number_of_the_format(dtype: DType) -> None:
    x = np.arange(-200.0, 200.0).astype(dtype.numpy)
    run = native("pow", (dtype, dtype), 8)
    for y in (1.0, 2.0, 3.0):
        assert (run(x, np.full_like(x, y)) == x**y).all()
    assert (run(x * x, np.full_like(x, 0.5)) == np.abs(x)).all()


def ratios(dtype: DType, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(22)
    bits = np.dtype(f"i{dtype.itemsize}")
    limit = np.iinfo(bits)
    random = (rng.integers(limit.min, limit.max, count, dtype=bits).view(dtype.numpy) for _ in range(2))
    x, y = ([a] for a in random)
    x += [rng.uniform(-100, 100, count), np.round(rng.uniform(-1e6, 1e6, count)), [1.0, 6.0, -6.0]]
    y += [rng.uniform(-10, 10, count), np.round(rng.uniform(-1000, 1000, count)), [0.1, 0.1, 0.1]]
    a, b = pairs(dtype)
    with np.errstate(all="ignore"):
        numbers = [np.concatenate([np.asarray(v, dtype.numpy) for v in values]) for values in (x, y)]
    return np.concatenate([numbers[0], a]), np.concatenate([numbers[1], b])


@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("lanes", [1, 8])
def test_division_is_numpys_bit_for_bit(name: str, dtype: DType, lanes: int) -> None:
    """For every ratio of magnitudes, from subnormals to the largest; signs of zeros included."""
    x, y = ratios(dtype)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    got = native(name, (dtype, dtype), lanes)(x, y)
    wrong = np.flatnonzero(~same(got, expected))
    assert wrong.size == 0, [(x[i], y[i], got[i], expected[i]) for i in wrong[:5]]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
def test_division_is_pythons(x: float, y: float) -> None:
    if y == 0:
        return
    a, b = np.array([x]), np.array([y])
    with np.errstate(all="ignore"):
        assert same(native("floor_divide", (f64, f64), 1)(a, b), np.array([x // y])).all()
        assert same(native("remainder", (f64, f64), 1)(a, b), np.array([x % y])).all()


def test_half_precision_division() -> None:
    x, y = ratios(f16, 3000)
    with np.errstate(all="ignore"):
        quotient = np.floor_divide(x.astype(np.float32), y.astype(np.float32)).astype(np.float16)
    assert same(native("floor_divide", (f16, f16), 8)(x, y), quotient).all()


@pytest.mark.parametrize("name", ["pow", "floor_divide", "remainder"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("lanes", [1, 4])
def test_native_code_is_what_the_statements_say(name: str, dtype: DType, lanes: int) -> None:
    x, y = powers(dtype, 200) if name == "pow" else ratios(dtype, 200)
    x, y = x[: x.size // 4 * 4], y[: y.size // 4 * 4]
    got = native(name, (dtype, dtype), lanes)(x, y)
    assert same(got, interpreted(name, x, y, lanes=lanes)).all()
