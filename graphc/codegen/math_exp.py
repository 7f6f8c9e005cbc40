"""exp, exp2, expm1, sigmoid, tanh, log, log1p in kernel operations, without branches; docs/math.md has error bounds."""

from __future__ import annotations

import math

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Value
from graphc.codegen.math_float import (
    LOG2_E,
    Format,
    copysign,
    format_of,
    from_bits,
    horner,
    like,
    small_int_to_float,
    to_bits,
)
from graphc.ir.types import DType, f32, f64

# P of expm1(r) = r + r**2 * P(r) on |r| <= ln(2)/2 * 1.0005: minimax (Remez exchange, 60 digits) in the error relative
# to expm1; the first two coefficients are rounded to the format before the others are fitted, then those are rounded.
# Error: 2**-26.1 (f32), 2**-54.2 (f64).
EXPM1: dict[DType, tuple[float, ...]] = {
    f32: (0.4999999701976776, 0.16666539013385773, 0.04166774824261665, 0.008367096073925495, 0.0013837324222549796),
    f64: (
        0.5000000000000006, 0.16666666666665633, 0.04166666666656545, 0.008333333334176662, 0.0013888888936036568,
        0.00019841267711569034, 2.4801499554258608e-05, 2.755941932356958e-06, 2.762835017617699e-07,
        2.4360367222743548e-08,
    ),
}  # fmt: skip

# P of log(1 + f) = f - f**2/2 + f**3 * P(f) on sqrt(1/2) <= 1 + f <= sqrt(2): found likewise, in the error relative to
# log(1 + f). Error: 2**-27.1 (f32), 2**-54.4 (f64).
LOG: dict[DType, tuple[float, ...]] = {
    f32: (
        0.3333333134651184, -0.250008225440979, 0.20001260936260223, -0.16623318195343018, 0.1420094221830368,
        -0.13159915804862976, 0.12767288088798523, -0.07641637325286865,
    ),
    f64: (
        0.3333333333333314, -0.24999999999987974, 0.20000000000067006, -0.16666666669825994, 0.1428571428004327,
        -0.12499999691450532, 0.11111111150411739, -0.10000015206016033, 0.09090923836585717, -0.08332913523716026,
        0.07691531616660095, -0.0714944043331348, 0.0668456933466646, -0.0619666132775256, 0.05668495527920311,
        -0.05677925911101835, 0.06503197661286252, -0.05981258347339608, 0.02615086969509768,
    ),
}  # fmt: skip

# T of tanh(x) = x + x**3 * T(x**2) on |x| <= 0.3, found likewise. Error: 2**-26.4 (f32), 2**-59 (f64).
TANH: dict[DType, tuple[float, ...]] = {
    f32: (-0.33333060145378113, 0.13314799964427948, -0.05036354064941406),
    f64: (
        -0.3333333333333326, 0.13333333333306657, -0.05396825393536095, 0.021869486572230926, -0.008863170535865184,
        0.0035908705520402723, -0.0014416304645217513, 0.0005023812450136532,
    ),
}  # fmt: skip

# exp(x) rounds to 0 below the first and overflows above the second; expm1(x) rounds to -1 below the third; tanh(x)
# rounds to 1 above the fourth. (Any number a little beyond the exact bound does: the formulas hold there too.)
EXP_RANGE: dict[DType, tuple[float, float, float, float]] = {
    f32: (-104.0, 89.0, -20.0, 9.125),
    f64: (-746.0, 710.0, -40.0, 20.0),
}

# 2**x rounds to 0 below the first and overflows above the second.
EXP2_RANGE: dict[DType, tuple[float, float]] = {f32: (-151.0, 129.0), f64: (-1076.0, 1025.0)}

# The bits of sqrt(1/2), rounded.
SQRT_HALF_BITS: dict[DType, int] = {f32: 0x3F3504F3, f64: 0x3FE6A09E667F3BCD}


def _reduce_parts(e: Emitter, x: Value, offset: int) -> tuple[Value, Value, Value]:
    """x = n * ln2 + r with |r| <= ln(2)/2: r but for ln2_lo, n, and a float whose low bits are n + offset.

    r is exact: n * ln2_hi and x are multiples of the last bit of ln2_hi (or n is 0), and r is small.
    """
    f = format_of(x)
    shifted = e.op("fma", x, LOG2_E, f.shifter + offset)
    n = e.op("sub", shifted, f.shifter + offset)
    return e.op("fma", n, -f.ln2_hi, x), n, shifted


def _reduce(e: Emitter, x: Value, offset: int) -> tuple[Value, Value]:
    """x = n * ln2 + r with |r| <= ln(2)/2: r, and a float whose low bits are n + offset."""
    r, n, shifted = _reduce_parts(e, x, offset)
    return e.op("fma", n, -format_of(x).ln2_lo, r), shifted


def _power(e: Emitter, shifted: Value) -> Value:
    """2**n, a normal number, given n + bias in the low bits of a float."""
    f = format_of(shifted)
    return from_bits(e, e.op("shl", to_bits(e, shifted), f.fraction), f.dtype)


def exp_in_range(e: Emitter, x: Value) -> Value:
    """exp(x) for x in the first two bounds of `EXP_RANGE`, or NaN."""
    f = format_of(x)
    r, shifted = _reduce(e, x, 2 * f.bias)
    return e.op("scale", horner(e, r, (1.0, 1.0, *EXPM1[f.dtype])), shifted)


def _exp_of_reduced(e: Emitter, r: Value, low: Value) -> Value:
    """exp(r + low), |r| <= ln(2)/2 and `low` small, with an error just above half an ulp.

    1 + r is split into a sum and its rounding error; all that is added to it is small.
    """
    total = e.op("add", r, 1.0)
    tail = e.op("sub", r, e.op("sub", total, 1.0))
    tail = e.op("fma", e.op("mul", r, r), horner(e, r, EXPM1[r.type.dtype]), tail)
    tail = e.op("fma", e.op("add", total, tail), low, tail)
    return e.op("add", total, tail)


def exp_of_sum(e: Emitter, x: Value, rest: Value) -> Value:
    """exp(x + rest), x as for `exp_in_range` and `rest` small, with an error just above half an ulp."""
    f = format_of(x)
    r, n, shifted = _reduce_parts(e, x, 2 * f.bias)
    return e.op("scale", _exp_of_reduced(e, r, e.op("fma", n, -f.ln2_lo, rest)), shifted)


def exp_of_small(e: Emitter, x: Value) -> Value:
    """exp(x) where it is far from overflow and underflow, or NaN."""
    f = format_of(x)
    r, shifted = _reduce(e, x, f.bias)
    return e.op("mul", horner(e, r, (1.0, 1.0, *EXPM1[f.dtype])), _power(e, shifted))


def exp(e: Emitter, x: Value) -> Value:
    low, high, _, _ = EXP_RANGE[x.type.dtype]
    # `fmin` and `fmax` give their second operand when unordered, so that NaN stays.
    bounded = e.op("fmax", like(e, low, x), e.op("fmin", like(e, high, x), x))
    return exp_in_range(e, bounded)


def exp2(e: Emitter, x: Value) -> Value:
    """2**n * exp(r * ln2) with r = x - n, |r| <= 1/2, which is exact, and the product in two parts."""
    f = format_of(x)
    low, high = EXP2_RANGE[f.dtype]
    bounded = e.op("fmax", like(e, low, x), e.op("fmin", like(e, high, x), x))
    shifted = e.op("add", bounded, f.shifter + 2 * f.bias)
    r = e.op("sub", bounded, e.op("sub", shifted, f.shifter + 2 * f.bias))
    product = e.op("mul", r, f.ln2_hi)
    rest = e.op("fma", r, f.ln2_hi, e.op("neg", product))
    return e.op("scale", _exp_of_reduced(e, product, e.op("fma", r, f.ln2_lo, rest)), shifted)


def sigmoid(e: Emitter, x: Value) -> Value:
    """1 / (1 + z) for x >= 0 and z / (1 + z) else, with z = exp(-|x|): nothing overflows or cancels.

    The rounding error of 1 + z, which is exact in `rest`, is taken back from the quotient (in full for small z).
    """
    low = EXP_RANGE[x.type.dtype][0]
    z = exp_in_range(e, e.op("fmax", like(e, low, x), e.op("neg", e.op("abs", x))))
    numerator = e.op("select", e.op("lt", x, 0.0), z, like(e, 1.0, x))
    total = e.op("add", z, 1.0)
    rest = e.op("sub", z, e.op("sub", total, 1.0))
    quotient = e.op("div", numerator, total)
    return e.op("fma", e.op("neg", quotient), rest, quotient)


def _expm1_of_reduced(e: Emitter, r: Value) -> Value:
    return e.op("fma", e.op("mul", r, r), horner(e, r, EXPM1[r.type.dtype]), r)


def expm1(e: Emitter, x: Value) -> Value:
    """2**n * (expm1(r) + 1) - 1, computed as twice its half so that 2**n does not overflow before the result does."""
    f = format_of(x)
    _, high, low, _ = EXP_RANGE[f.dtype]
    bounded = e.op("fmax", like(e, low, x), e.op("fmin", like(e, high, x), x))
    r, shifted = _reduce(e, bounded, f.bias - 1)
    half = _power(e, shifted)
    y = e.op("fma", half, _expm1_of_reduced(e, r), e.op("sub", half, 0.5))
    return e.op("select", e.op("lt", e.op("abs", x), f.tiny), x, e.op("add", y, y))


def tanh(e: Emitter, x: Value) -> Value:
    """u / (u + 2) with u = expm1(2|x|), and the sign of x; an odd polynomial for |x| < 0.3, where the quotient's three
    roundings would add up to 2.5 ulp.

    The low part of ln 2 is left out of the reduction: with n > 0 the derivative of tanh falls like exp(-2|x|), faster
    than n grows.
    """
    f = format_of(x)
    a = e.op("fmin", like(e, EXP_RANGE[f.dtype][3], x), e.op("abs", x))
    r, _, shifted = _reduce_parts(e, e.op("add", a, a), f.bias)
    scale = _power(e, shifted)
    u = e.op("fma", scale, _expm1_of_reduced(e, r), e.op("sub", scale, 1.0))
    quotient = e.op("div", u, e.op("add", u, 2.0))
    square = e.op("mul", x, x)
    series = e.op("fma", e.op("mul", a, square), horner(e, square, TANH[f.dtype]), a)
    return copysign(e, e.op("select", e.op("lt", a, 0.3), series, quotient), x)


def split(e: Emitter, x: Value, f: Format) -> tuple[Value, Value]:
    """A positive normal x = 2**n * m with sqrt(1/2) <= m < sqrt(2): (n as an integer, m)."""
    sqrt_half = SQRT_HALF_BITS[f.dtype]
    moved = e.op("sub", to_bits(e, x), sqrt_half)
    n = e.op("ashr", moved, f.fraction)
    m = e.op("add", e.op("and", moved, (1 << f.fraction) - 1), sqrt_half)
    return n, from_bits(e, m, f.dtype)


def _log_of_parts(e: Emitter, n: Value, f: Value) -> Value:
    """n * ln 2 + log(1 + f) for an integral float n and f in the range of `LOG`."""
    form = format_of(f)
    tail = e.op("fma", f, horner(e, f, LOG[form.dtype]), -0.5)
    tail = e.op("fma", n, form.ln2_lo, e.op("mul", tail, e.op("mul", f, f)))
    return e.op("fma", n, form.ln2_hi, e.op("add", f, tail))


def log(e: Emitter, x: Value) -> Value:
    f = format_of(x)
    subnormal = e.op("lt", x, f.min_normal)
    up = f.fraction + 2
    scaled = e.op("select", subnormal, e.op("mul", x, math.ldexp(1.0, up)), x)
    n, m = split(e, scaled, f)
    correction = e.op("select", subnormal, like(e, float(-up), x), 0.0)
    exponent = e.op("add", small_int_to_float(e, n, f.dtype), correction)
    y = _log_of_parts(e, exponent, e.op("sub", m, 1.0))
    y = e.op("select", e.op("eq", x, math.inf), x, y)
    outside = e.op("select", e.op("eq", x, 0.0), like(e, -math.inf, x), math.nan)
    return e.op("select", e.op("gt", x, 0.0), y, outside)


def log1p(e: Emitter, x: Value) -> Value:
    """log(1 + x) with 1 + x = 2**n * (1 + f); f = x * 2**-n + (2**-n - 1) is rounded once, from x itself.

    2**-n is subnormal for the largest x, hence the factor 4 between the two halves of the product.
    """
    f = format_of(x)
    n, _ = split(e, e.op("add", x, 1.0), f)
    scale_bits = e.op("shl", e.op("sub", f.bias + 2, n), f.fraction)
    scale = from_bits(e, scale_bits, f.dtype)
    reduced = e.op("fma", e.op("mul", x, 0.25), scale, e.op("fma", scale, 0.25, -1.0))
    y = _log_of_parts(e, small_int_to_float(e, n, f.dtype), reduced)
    y = e.op("select", e.op("eq", x, math.inf), x, y)
    outside = e.op("select", e.op("eq", x, -1.0), like(e, -math.inf, x), math.nan)
    y = e.op("select", e.op("gt", x, -1.0), y, outside)
    return e.op("select", e.op("lt", e.op("abs", x), f.tiny), x, y)
