"""Floating-point remainder and floor division, exact for every ratio of the operands."""

from __future__ import annotations

import math

from graphc.codegen.kernel import Value
from graphc.codegen.math_float import Format, copysign, format_of, from_bits, like, round_count, to_bits
from graphc.codegen.scope import ScopedEmitter


def _parts(e: ScopedEmitter, a: Value, f: Format) -> tuple[Value, Value]:
    """A positive a = m * 2**n with 1 <= m < 2: (m, n + bias as an integer). Not for infinity and NaN."""
    subnormal = e.op("lt", a, f.min_normal)
    up = f.fraction + 2
    bits = to_bits(e, e.op("select", subnormal, e.op("mul", a, math.ldexp(1.0, up)), a))
    n = e.op("lshr", bits, f.fraction)
    n = e.op("select", subnormal, e.op("sub", n, up), n)
    m = e.op("or", e.op("and", bits, (1 << f.fraction) - 1), f.bias << f.fraction)
    return from_bits(e, m, f.dtype), n


def fmod(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """x - trunc(x / y) * y, exactly, with the sign of x; NaN where x is infinite or y is 0.

    Long division of the significands, `fraction - 1` bits of the quotient at a time: with t < 2**fraction * m the
    quotient's truncation q is right or one too large, and t - q * m is a multiple of m's last bit and not larger than
    m, so `fma` gives it without error. The loop runs as often as the largest ratio among the lanes needs: once below
    2**22 (f32) or 2**51 (f64), at most 13 or 42 times.
    """
    f = format_of(x)
    a, b = e.op("abs", x), e.op("abs", y)
    divides = e.op("and", e.op("ge", a, b), e.op("and", e.op("lt", a, math.inf), e.op("gt", b, 0.0)))
    (ma, na), (mb, nb) = _parts(e, a, f), _parts(e, b, f)
    left = e.op("select", divides, e.op("sub", na, nb), 0)
    first = e.op("select", e.op("ge", ma, mb), e.op("sub", ma, mb), ma)
    bits = f.fraction - 1
    rounds = e.op("floordiv", e.op("add", round_count(e, left), bits - 1), bits)
    with e.loop("digit", 0, rounds, 1, (first, left)) as loop:
        r, left = loop.phis
        step = e.op("select", e.op("lt", left, bits), left, bits)
        scale = from_bits(e, e.op("shl", e.op("add", step, f.bias), f.fraction), f.dtype)
        t = e.op("mul", r, scale)
        q = e.op("trunc", e.op("div", t, mb))
        r = e.op("fma", e.op("neg", q), mb, t)
        r = e.op("select", e.op("lt", r, 0.0), e.op("add", r, mb), r)
        loop.yields = (r, e.op("sub", left, step))
    r = loop.results[0]
    # r * 2**nb in two factors, as nb may be an exponent of subnormal numbers; both products are exact.
    half = e.op("ashr", e.op("sub", nb, f.bias), 1)
    for part in (half, e.op("sub", e.op("sub", nb, f.bias), half)):
        r = e.op("mul", r, from_bits(e, e.op("shl", e.op("add", part, f.bias), f.fraction), f.dtype))
    finite = e.op("select", divides, copysign(e, r, x), x)
    invalid = e.op("or", e.op("eq", a, math.inf), e.op("eq", y, 0.0))
    unordered = e.op("or", e.op("ne", x, x), e.op("ne", y, y))
    return e.op("select", e.op("or", invalid, unordered), like(e, math.nan, x), finite)


def _signs_differ(e: ScopedEmitter, rest: Value, y: Value) -> Value:
    """Whether `rest` is not 0 and its sign is not that of y."""
    return e.op("and", e.op("ne", rest, 0.0), e.op("xor", e.op("lt", rest, 0.0), e.op("lt", y, 0.0)))


def remainder(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """Python's x % y: the sign of y (for a result of zero, too)."""
    rest = fmod(e, x, y)
    shifted = e.op("select", _signs_differ(e, rest, y), e.op("add", rest, y), rest)
    zero = copysign(e, like(e, 0.0, x), y)
    return e.op("select", e.op("eq", shifted, 0.0), zero, shifted)


def floor_divide(e: ScopedEmitter, x: Value, y: Value) -> Value:
    """Python's x // y, from the exact remainder (1.0 // 0.1 is 9); x / y where y is 0. CPython's algorithm."""
    rest = fmod(e, x, y)
    quotient = e.op("div", e.op("sub", x, rest), y)
    quotient = e.op("select", _signs_differ(e, rest, y), e.op("sub", quotient, 1.0), quotient)
    whole = e.op("floor", quotient)
    off = e.op("gt", e.op("sub", quotient, whole), 0.5)
    whole = e.op("select", off, e.op("add", whole, 1.0), whole)
    ratio = e.op("div", x, y)
    zero = copysign(e, like(e, 0.0, x), ratio)
    whole = e.op("select", e.op("eq", quotient, 0.0), zero, whole)
    return e.op("select", e.op("eq", y, 0.0), ratio, whole)
