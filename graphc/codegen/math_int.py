"""Integer division, shifts and powers, defined for every operand; casts between any two element types."""

from __future__ import annotations

from graphc.codegen.kernel import Value
from graphc.codegen.math_float import like, round_count
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.types import DType, boolean, f32, f64, i32, i64


def floor_divide(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """floor(x / y); 0 where y is 0, and the smallest integer // -1 wraps.

    Up to 16 bits the quotient is taken in f32, for 32 bits in f64: x / y is either an integer and exact, or further
    from one than the rounding error, so its floor is right. There is no vector instruction for integer division.
    """
    dtype = x.type.dtype
    by_zero = e.op("eq", y, 0)
    if dtype is i64:
        by_minus_one = e.op("eq", y, -1)
        safe = e.op("select", e.op("or", by_zero, by_minus_one), like(e, 1, y), y)
        q = e.op("sdiv", x, safe)
        rest = e.op("sub", x, e.op("mul", q, safe))
        q = e.op("select", _wrong_sign(e, rest, y), e.op("sub", q, 1), q)
        q = e.op("select", by_minus_one, e.op("neg", x), q)
    else:
        safe = e.op("select", by_zero, like(e, 1, y), y)
        wide = f64 if dtype is i32 else f32
        ratio = e.op("floor", e.op("div", e.op("cast", x, to=wide), e.op("cast", safe, to=wide)))
        if dtype is i32:  # 2**31 is the only quotient that does not fit, and -2**31 is what it wraps to
            ratio = e.op("select", e.op("ge", ratio, 2.0**31), like(e, -(2.0**31), ratio), ratio)
        q = e.op("cast", e.op("cast", ratio, to=i32), to=dtype)
    return e.op("select", by_zero, like(e, 0, q), q)


def remainder(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """x - floor(x / y) * y, the sign of y; 0 where y is 0."""
    if x.type.dtype is not i64:
        rest = e.op("sub", x, e.op("mul", floor_divide(e, x, y), y))
        return e.op("select", e.op("eq", y, 0), like(e, 0, y), rest)
    unsafe = e.op("or", e.op("eq", y, 0), e.op("eq", y, -1))
    rest = e.op("srem", x, e.op("select", unsafe, like(e, 1, y), y))
    return e.op("select", _wrong_sign(e, rest, y), e.op("add", rest, y), rest)


def fmod(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """x - trunc(x / y) * y, the sign of x; 0 where y is 0."""
    rest = remainder(e, x, y)
    if x.type.dtype.kind == "uint":
        return rest
    return e.op("select", _wrong_sign(e, rest, x), e.op("sub", rest, y), rest)


def gcd(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """The greatest common divisor by Euclid's steps. The loop runs as often as the smaller operands among the lanes can
    need: after k steps the remainder is below the 1.5 * k / log2(golden ratio)th part (Lame).
    """
    signed = x.type.dtype.kind == "int"
    a, c = (e.op("abs", v) if signed else v for v in (x, y))
    # 64-bit operands take at most 92 steps, 32-bit ones 46, 16-bit ones 23 and 8-bit ones 12; the smallest integer,
    # which has no positive counterpart, one more.
    steps = {64: 93, 32: 47, 16: 24, 8: 13}[x.type.dtype.bits]
    with e.loop("step", 0, steps, 1, (a, c)) as loop:
        u, v = loop.phis
        rest = remainder(e, u, v)
        done = e.op("eq", v, 0)
        loop.yields = (e.op("select", done, u, v), e.op("select", done, v, rest))
    made = loop.results[0]
    return e.op("abs", made) if signed else made


def _wrong_sign(e: ScopedEmitter, rest: Value, y: Value) -> Value:
    return e.op("and", e.op("ne", rest, 0), e.op("lt", e.op("xor", rest, y), 0))


def _inside(e: ScopedEmitter, x: Value, count: Value) -> Value:
    below = e.op("lt", count, x.type.dtype.bits)
    return below if x.type.dtype.kind == "uint" else e.op("and", e.op("ge", count, 0), below)


def shift_left(e: ScopedEmitter, x: Value, count: Value) -> Value:
    """x << count; 0 where count is outside [0, bits)."""
    inside = _inside(e, x, count)
    shifted = e.op("shl", x, e.op("select", inside, count, 0))
    return e.op("select", inside, shifted, 0)


def shift_right(e: ScopedEmitter, x: Value, count: Value) -> Value:
    """x >> count, the sign shifted in; the sign alone (0 or -1) where count is outside [0, bits)."""
    if x.type.dtype.kind == "uint":
        return shift_right_logical(e, x, count)
    return e.op("ashr", x, e.op("select", _inside(e, x, count), count, x.type.dtype.bits - 1))


def shift_right_logical(e: ScopedEmitter, x: Value, count: Value) -> Value:
    """x >> count, zeros shifted in; 0 where count is outside [0, bits)."""
    inside = _inside(e, x, count)
    shifted = e.op("lshr", x, e.op("select", inside, count, 0))
    return e.op("select", inside, shifted, 0)


def power(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """x ** y by repeated squaring, wrapping; for y < 0 as PyTorch: 1 and -1 have their powers, all else gives 0.

    The loop runs once per bit of the largest exponent among the lanes.
    """
    wide = e.op("cast", e.op("cast", y, to=i64), to=f64)
    exponent_bits = e.op("sub", e.op("lshr", e.op("bitcast", wide, to=i64), 52), 1022)
    signed = y.type.dtype.kind == "int"
    if signed:
        exponent_bits = e.op("select", e.op("lt", y, 0), 0, exponent_bits)
    one = like(e, 1, x)
    with e.loop("bit", 0, round_count(e, exponent_bits), 1, (one, x, y)) as loop:
        result, base, rest = loop.phis
        odd = e.op("ne", e.op("and", rest, 1), 0)
        product = e.op("select", odd, e.op("mul", result, base), result)
        loop.yields = (product, e.op("mul", base, base), e.op("lshr", rest, 1))
    result = loop.results[0]
    if not signed:
        return result
    sign = e.op("select", e.op("ne", e.op("and", y, 1), 0), x, one)
    unit = e.op("or", e.op("eq", x, 1), e.op("eq", x, -1))
    return e.op("select", e.op("lt", y, 0), e.op("select", unit, sign, 0), result)


def expand_cast(e: ScopedEmitter, x: Value, dtype: DType) -> Value:
    """`x` converted to `dtype`, any to any.

    Float to integer truncates; NaN and what is out of range give the smallest i32 (i64 for i64), which then wraps to
    the narrower type. Integers wrap. To bool is `!= 0`. f16 and bf16 go by way of f32: where `x` was rounded from the
    same number in f32, that is taken.
    """
    source = x.type.dtype
    if source is dtype:
        return x
    if dtype is f32 and (wide := e.find(("wide", x))) is not None:
        return wide
    if not source.is_float or not dtype.is_integer or dtype is boolean:
        return e.op("cast", x, to=dtype)
    if source.bits == 16:
        x = e.op("cast", x, to=f32)
    wide = i64 if dtype is i64 else i32
    lowest = -(2.0 ** (wide.bits - 1))
    if source is f64 and wide is i32:  # numbers between the smallest integer and one less truncate to it
        fits = e.op("gt", x, lowest - 1.0)
    else:
        fits = e.op("ge", x, lowest)
    fits = e.op("and", fits, e.op("lt", x, -lowest))
    whole = e.op("cast", e.op("select", fits, x, lowest), to=wide)
    return whole if wide is dtype else e.op("cast", whole, to=dtype)
