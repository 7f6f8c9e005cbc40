"""x to the power y for floats, with the special cases of C; the error bounds are in docs/math.md."""

from __future__ import annotations

import math

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Value
from graphc.codegen.math_exp import EXP_RANGE, exp_of_small, exp_of_sum, split
from graphc.codegen.math_float import format_of, from_bits, horner, like, small_int_to_float, to_bits
from graphc.ir.types import f32, f64

# P of log(1 + f) = f - f**2/2 + f**3 * P(f), in f64 for the power of f32, on sqrt(1/2) <= 1 + f <= sqrt(2): minimax in
# the relative error (Remez exchange, 60 digits). Error: 2**-38.2; 2**-34 is enough for a result of 24 bits.
LOG_FOR_F32 = (
    0.33333333399222376, -0.25000001125587906, 0.19999989253364958, -0.16666532468593784, 0.14286179515251446,
    -0.1250571350132257, 0.11105462040146577, -0.09889379004678465, 0.0904029198300764, -0.09287058544737642,
    0.09115400344681482, -0.04822040110625902,
)  # fmt: skip

# R of log(m) = 2*s + 2/3*s**3 + s**5 * R(s**2) with s = (m - 1) / (m + 1) on sqrt(1/2) <= m <= sqrt(2): minimax in the
# absolute error of s**4 * R. Error: 2**-65.3.
LOG_FOR_F64 = (
    0.4000000000000227, 0.28571428570091234, 0.22222222521468218, 0.18181784227565928, 0.15386763942107684,
    0.13256659865665193, 0.13197828391394895,
)  # fmt: skip

# 2/3 and ln 2 as sums of two f64; n * LN2_HIGH is exact for |n| < 2**11, its last 11 bits are 0.
TWO_THIRDS = (float.fromhex("0x1.5555555555555p-1"), float.fromhex("0x1.5555555555555p-55"))
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45")


def log_f64(e: Emitter, n: Value, m: Value) -> tuple[Value, Value]:
    """n * ln 2 + log(m) as a sum of two f64, the relative error below 2**-63."""
    # s = f / (m + 1) = s_high + s_low
    f, total = e.op("sub", m, 1.0), e.op("add", m, 1.0)
    total_low = e.op("sub", m, e.op("sub", total, 1.0))
    inverse = e.op("div", 1.0, total)
    s_high = e.op("mul", f, inverse)
    minus = e.op("neg", s_high)
    rest = e.op("fma", minus, total_low, e.op("fma", minus, total, f))
    s_low = e.op("mul", rest, inverse)
    # z = s**2 = z_high + z_low
    z_high = e.op("mul", s_high, s_high)
    z_low = e.op("fma", e.op("add", s_high, s_high), s_low, e.op("fma", s_high, s_high, e.op("neg", z_high)))
    # u = 2/3*z + z**2 * R(z)
    u_high = e.op("mul", z_high, TWO_THIRDS[0])
    u_low = e.op("fma", z_high, TWO_THIRDS[0], e.op("neg", u_high))
    u_low = e.op("fma", z_high, TWO_THIRDS[1], e.op("fma", z_low, TWO_THIRDS[0], u_low))
    u_low = e.op("fma", e.op("mul", z_high, z_high), horner(e, z_high, LOG_FOR_F64), u_low)
    # log(m) = 2*s + s*u
    v_high = e.op("mul", s_high, u_high)
    v_low = e.op("fma", s_high, u_high, e.op("neg", v_high))
    v_low = e.op("fma", s_low, u_high, e.op("fma", s_high, u_low, v_low))
    twice = e.op("add", s_high, s_high)
    high = e.op("add", twice, v_high)
    low = e.op("add", e.op("sub", v_high, e.op("sub", high, twice)), e.op("fma", s_low, 2.0, v_low))
    exponent = e.op("mul", n, LN2_HIGH)
    result = e.op("add", exponent, high)
    error = e.op("sub", high, e.op("sub", result, exponent))
    low = e.op("add", error, e.op("fma", n, LN2_LOW, low))
    rounded = e.op("add", result, low)
    return rounded, e.op("sub", low, e.op("sub", rounded, result))


def _magnitude_f64(e: Emitter, a: Value, y: Value) -> Value:
    """a ** y for a >= 0, where neither is NaN, y is not 0 and a is not 1."""
    f = format_of(a)
    subnormal = e.op("lt", a, f.min_normal)
    n, m = split(e, e.op("select", subnormal, e.op("mul", a, 2.0**54), a), f)
    exponent = e.op("sub", small_int_to_float(e, n, f64), e.op("select", subnormal, like(e, 54.0, a), 0.0))
    high, low = log_f64(e, exponent, m)
    high = e.op("select", e.op("eq", a, 0.0), like(e, -math.inf, a), high)
    high = e.op("select", e.op("lt", a, math.inf), high, a)
    product = e.op("mul", y, high)
    rest = e.op("fma", y, low, e.op("fma", y, high, e.op("neg", product)))
    bottom, top, _, _ = EXP_RANGE[f64]
    bounded = e.op("fmax", like(e, bottom, a), e.op("fmin", like(e, top, a), product))
    rest = e.op("select", e.op("eq", bounded, product), rest, 0.0)
    return exp_of_sum(e, bounded, rest)


def _magnitude_f32(e: Emitter, a: Value, y: Value) -> Value:
    """The same for f32, in f64: no step is near the limits of that format, and the result rounds once."""
    wide = e.op("cast", a, to=f64)
    n, m = split(e, wide, format_of(wide))
    f = e.op("sub", m, 1.0)
    tail = e.op("fma", f, horner(e, f, LOG_FOR_F32), -0.5)
    log = e.op("fma", small_int_to_float(e, n, f64), math.log(2.0), e.op("fma", e.op("mul", f, f), tail, f))
    log = e.op("select", e.op("eq", wide, 0.0), like(e, -math.inf, wide), log)
    log = e.op("select", e.op("lt", wide, math.inf), log, wide)
    product = e.op("mul", e.op("cast", y, to=f64), log)
    bounded = e.op("fmax", like(e, -110.0, wide), e.op("fmin", like(e, 90.0, wide), product))
    return e.op("cast", exp_of_small(e, bounded), to=f32)


def power(e: Emitter, x: Value, y: Value) -> Value:
    """x ** y with C's special cases: 1 for y = 0 or x = 1 even with NaN, NaN for x < 0 and a broken y."""
    f = format_of(x)
    a = e.op("abs", x)
    magnitude = _magnitude_f32(e, a, y) if f.dtype is f32 else _magnitude_f64(e, a, y)
    magnitude = e.op("select", e.op("eq", a, 1.0), e.op("select", e.op("eq", y, y), a, y), magnitude)
    half = e.op("mul", y, 0.5)
    is_whole = e.op("eq", y, e.op("trunc", y))
    is_odd = e.op("and", is_whole, e.op("ne", half, e.op("trunc", half)))
    sign = e.op("select", is_odd, e.op("and", to_bits(e, x), f.sign_mask), 0)
    result = from_bits(e, e.op("xor", to_bits(e, magnitude), sign), f.dtype)
    undefined = e.op("and", e.op("and", e.op("lt", x, 0.0), e.op("gt", x, -math.inf)), e.op("not", is_whole))
    result = e.op("select", undefined, like(e, math.nan, x), result)
    return e.op("select", e.op("or", e.op("eq", y, 0.0), e.op("eq", x, 1.0)), like(e, 1.0, x), result)
