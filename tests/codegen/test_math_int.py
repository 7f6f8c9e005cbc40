"""Integer operators at every edge: shifts, powers, extremes, bits, and casts between all element types."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.math_int import power
from graphc.ir.ops.elementwise import cast_array
from graphc.ir.types import DTYPES, DType, boolean, f32, f64, i8, i16, i32, i64, u8
from tests.codegen.kernel_harness import interpreted, native

INTEGERS = (i8, i16, i32, i64, u8)


def edges(dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    values = {info.min, info.min + 1, info.max, info.max - 1, info.max // 2, info.min // 2}
    values |= {v for v in range(-9, 10) if info.min <= v <= info.max}
    values |= {v for k in (7, 8, 15, 16, 31, 32, 63, 64) for v in (k, -k) if info.min <= v <= info.max}
    return np.array(sorted(values), dtype.numpy)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    info = np.iinfo(dtype.numpy)
    random = rng.integers(info.min, info.max, 300, dtype=dtype.numpy, endpoint=True)
    x, y = np.meshgrid(edges(dtype), edges(dtype))
    return np.concatenate([x.ravel(), random]), np.concatenate([y.ravel(), random[::-1]])


def wrap(value: int, dtype: DType) -> int:
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "int" and value >> (dtype.bits - 1) else value


def check(name: str, dtype: DType, formula: Callable[[int, int], int]) -> None:
    """Native code and the interpreter against `formula` over Python's integers, wrapped."""
    x, y = pairs(dtype)
    expected = np.array([wrap(formula(int(a), int(b)), dtype) for a, b in zip(x, y, strict=True)], dtype.numpy)
    for lanes in (1, 16):
        got = native(name, (dtype, dtype), lanes)(x, y)
        wrong = np.flatnonzero(got != expected)
        assert wrong.size == 0, [(x[i], y[i], got[i], expected[i]) for i in wrong[:5]]
    assert (interpreted(name, x, y) == expected).all()


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("add", operator.add),
        ("sub", operator.sub),
        ("mul", operator.mul),
        ("maximum", max),
        ("minimum", min),
        ("bitwise_and", operator.and_),
        ("bitwise_or", operator.or_),
        ("bitwise_xor", operator.xor),
        ("floor_divide", lambda a, b: a // b if b else 0),
        ("remainder", lambda a, b: a % b if b else 0),
    ],
)
def test_two_operands(name: str, formula: Callable[[int, int], int], dtype: DType) -> None:
    check(name, dtype, formula)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_shifts(dtype: DType) -> None:
    bits = dtype.bits
    unsigned = (1 << bits) - 1
    check("shift_left", dtype, lambda a, n: a << n if 0 <= n < bits else 0)
    check("shift_right", dtype, lambda a, n: a >> n if 0 <= n < bits else -(a < 0))
    check("shift_right_logical", dtype, lambda a, n: (a & unsigned) >> n if 0 <= n < bits else 0)


def _power(a: int, n: int, bits: int) -> int:
    if n >= 0:
        return pow(a, n, 1 << bits)
    return {1: 1, -1: 1 if n % 2 == 0 else -1}.get(a, 0)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("lanes", [1, 4])
def test_power(dtype: DType, lanes: int) -> None:
    x, y = pairs(dtype)
    expected = [wrap(_power(int(a), int(b), dtype.bits), dtype) for a, b in zip(x, y, strict=True)]
    assert native(power, (dtype, dtype), lanes)(x, y).tolist() == expected
    assert native("pow", (dtype, dtype), lanes)(x, y).tolist() == expected


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_one_operand(dtype: DType) -> None:
    x = edges(dtype)
    for lanes in (1, 16):
        assert native("neg", (dtype,), lanes)(x).tolist() == [wrap(-int(v), dtype) for v in x]
        assert native("abs", (dtype,), lanes)(x).tolist() == [wrap(abs(int(v)), dtype) for v in x]
        assert native("bitwise_not", (dtype,), lanes)(x).tolist() == [wrap(~int(v), dtype) for v in x]
        assert native("sign", (dtype,), lanes)(x).tolist() == [(v > 0) - (v < 0) for v in x.tolist()]
        assert native("detach", (dtype,), lanes)(x).tolist() == x.tolist()


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
@pytest.mark.parametrize("dtype", [*INTEGERS, boolean, f32, f64], ids=str)
def test_comparisons(name: str, dtype: DType) -> None:
    if dtype.is_integer:
        x, y = pairs(dtype)
    else:
        values = np.array([0, 1] if dtype is boolean else [0.0, -0.0, 1, np.inf, np.nan], dtype.numpy)
        x, y = (a.ravel() for a in np.meshgrid(values, values))
    for lanes in (1, 8):
        got = native(name, (dtype, dtype), lanes)(x, y)
        assert got.dtype == np.bool_
        assert (got == getattr(operator, name)(x, y)).all()


def test_bools() -> None:
    x, y = np.array([False, False, True, True]), np.array([False, True, False, True])
    for lanes in (1, 4):
        assert (native("bitwise_and", (boolean, boolean), lanes)(x, y) == (x & y)).all()
        assert (native("bitwise_or", (boolean, boolean), lanes)(x, y) == (x | y)).all()
        assert (native("bitwise_xor", (boolean, boolean), lanes)(x, y) == (x ^ y)).all()
        assert (native("bitwise_not", (boolean,), lanes)(x) == ~x).all()
        chosen = native("select", (boolean, boolean, boolean), lanes)(x, y, ~y)
        assert (chosen == np.where(x, y, ~y)).all()


def cast_samples(dtype: DType) -> np.ndarray:
    if dtype.is_integer:
        return pairs(dtype)[0]
    if dtype is boolean:
        return np.array([False, True])
    limits = [
        v for b in (7, 8, 15, 16, 31, 32, 63, 64) for v in (2.0**b, 2.0**b - 1, 2.0**b + 1, 2.0**b - 0.5, 2.0**b * 1.1)
    ]
    values = [0.0, 0.3, 0.5, 0.9, 1.0, 1.5, 2.5, 100.7, 1e10, 1e19, 1e30, 1e300, 5e-324, 65504.0, 65520.0, 1e-7, np.inf]
    with np.errstate(all="ignore"):
        numbers = np.array([*limits, *values])
        return np.concatenate([numbers, -numbers, [np.nan]]).astype(dtype.numpy)


@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_casts(source: DType, target: DType) -> None:
    x = cast_samples(source)
    with np.errstate(all="ignore"):
        expected = cast_array(x, target)
    for lanes in (1, 8):
        got = native("cast", (source,), lanes, target)(x)
        assert got.dtype == target.numpy
        a, b = (v.astype(np.float64) if target.is_float else v for v in (got, expected))
        agree = (a == b) | ((a != a) & (b != b))
        assert agree.all(), [(x[i], got[i], expected[i]) for i in np.flatnonzero(~agree)[:5]]
        if target.is_float:
            nan = np.isnan(a)
            assert (np.signbit(a) == np.signbit(b))[~nan].all()
