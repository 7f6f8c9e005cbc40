"""sin and cos in kernel operations, for every finite argument; the error bounds are in docs/math.md."""

from __future__ import annotations

import math
from itertools import pairwise

from graphc.codegen.kernel import Value
from graphc.codegen.math_float import FORMATS, Format, format_of, from_bits, horner, like, small_int_to_float, to_bits
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.types import DType, f32, f64, i32, i64

# S of sin(r) = r + r**3 * S(r**2) and C of cos(r) = 1 - r**2/2 + r**4 * C(r**2) on |r| <= 0.8: minimax in the absolute
# error of sin(r)/r and cos(r) (Remez exchange, 60 digits; the first two coefficients are rounded before the others are
# fitted). Errors: 2**-27.8 and 2**-32.9 (f32), 2**-57.6 and 2**-63.7 (f64).
SIN: dict[DType, tuple[float, ...]] = {
    f32: (-0.16666653752326965, 0.00833209790289402, -0.00019506026001181453),
    f64: (
        -0.16666666666666624, 0.008333333333320323, -0.00019841269828063934, 2.755731306804844e-06,
        -2.5050658056378735e-08, 1.589088294734029e-10,
    ),
}  # fmt: skip
COS: dict[DType, tuple[float, ...]] = {
    f32: (0.04166664555668831, -0.0013887290842831135, 2.4428643882856704e-05),
    f64: (
        0.04166666666666658, -0.0013888888888870827, 2.4801587287364497e-05, -2.755731372645579e-07,
        2.0875636596802884e-09, -1.1355090834076418e-11,
    ),
}  # fmt: skip

# pi/2 as a sum of three numbers of the format, each the rounded rest of the ones before.
HALF_PI: dict[DType, tuple[float, float, float]] = {
    f32: (float.fromhex("0x1.921fb6p+0"), float.fromhex("-0x1.777a5cp-25"), float.fromhex("-0x1.ee59dap-50")),
    f64: (
        float.fromhex("0x1.921fb54442d18p+0"),
        float.fromhex("0x1.1a62633145c07p-54"),
        float.fromhex("-0x1.f1976b7ed8fbcp-110"),
    ),
}
TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")

# Up to these arguments the three parts of pi/2 are enough.
SMALL: dict[DType, float] = {f32: 2.0**17, f64: 2.0**30}

# 2/pi cut into pieces of 29 bits (203 bits in all): a piece times a float32 is exact in f64.
PIECES = (
    float.fromhex("0x1.45f306d0p-1"),
    float.fromhex("0x1.93910540p-30"),
    float.fromhex("0x1.4fe13ab0p-59"),
    float.fromhex("0x1.d1f534d0p-88"),
    float.fromhex("0x1.b81b6c50p-117"),
    float.fromhex("0x1.5993c400p-148"),
    float.fromhex("0x1.c820ff20p-175"),
)

# The first 1216 binary places of 2/pi, 64 in a word.
WORDS = (
    0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561, 0xB7246E3A424DD2E0,
    0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41, 0x3991D639835339F4,
    0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
)  # fmt: skip


def _reduce_small(e: ScopedEmitter, a: Value, f: Format) -> tuple[Value, Value]:
    """a = k * pi/2 + r for 0 <= a <= SMALL, |r| <= pi/4 and a little: r, and an integer whose low bits are those of k.

    The first product leaves `a` without error: both are multiples of the last bit of pi/2, and r is small.
    """
    shifted = e.op("fma", a, TWO_OVER_PI, f.shifter)
    k = e.op("sub", shifted, f.shifter)
    r = a
    for part in HALF_PI[f.dtype]:
        r = e.op("fma", k, -part, r)
    return r, to_bits(e, shifted)


def _reduce_large_f32(e: ScopedEmitter, a: Value) -> tuple[Value, Value]:
    """The same for any finite float32, through f64: products with the pieces of 2/pi are exact, so are their remainders
    by 4 and (down to 2**-54) the sums."""
    wide = e.op("cast", a, to=f64)
    rest, k = like(e, 0.0, wide), like(e, 0.0, wide)
    for piece in PIECES:
        product = e.op("mul", wide, piece)
        product = e.op("fma", e.op("rint", e.op("mul", product, 0.25)), -4.0, product)
        rest = e.op("add", rest, product)
        whole = e.op("rint", rest)
        rest = e.op("sub", rest, whole)
        k = e.op("add", k, whole)
    quadrant = to_bits(e, e.op("add", k, FORMATS[f64].shifter))
    return e.op("cast", e.op("mul", rest, math.pi / 2), to=f32), e.op("cast", quadrant, to=i32)


def _high_product(e: ScopedEmitter, low: Value, high: Value, word: Value) -> Value:
    """Bits 64 and up of the product of `high * 2**32 + low` (53 bits) and an unsigned word."""
    mask = 0xFFFFFFFF
    word_low, word_high = e.op("and", word, mask), e.op("lshr", word, 32)
    cross, other = e.op("mul", low, word_high), e.op("mul", high, word_low)
    carry = e.op("lshr", e.op("mul", low, word_low), 32)
    carry = e.op("add", carry, e.op("add", e.op("and", cross, mask), e.op("and", other, mask)))
    total = e.op("add", e.op("mul", high, word_high), e.op("lshr", carry, 32))
    return e.op("add", total, e.op("add", e.op("lshr", cross, 32), e.op("lshr", other, 32)))


def _window(e: ScopedEmitter, start: Value) -> list[Value]:
    """Three words of the bits of 2/pi (after 64 zeros) from bit `start` on: selected in five steps, then shifted."""
    words = [like(e, w - (1 << 64) if w >> 63 else w, start) for w in (0, *WORDS)]
    number = e.op("lshr", start, 6)
    for step in (16, 8, 4, 2, 1):
        taken = e.op("ne", e.op("and", number, step), 0)
        words = [
            e.op("select", taken, words[i + step], words[i]) if i + step < len(words) else words[i]
            for i in range(step + 3)
        ]
    shift = e.op("and", start, 63)
    back = e.op("sub", 63, shift)
    return [e.op("or", e.op("shl", h, shift), e.op("lshr", e.op("lshr", t, 1), back)) for h, t in pairwise(words)]


def _reduce_large_f64(e: ScopedEmitter, a: Value) -> tuple[Value, Value]:
    """The same for any finite float64 above 2**-22: a = m * 2**n times the 192 bits of 2/pi that matter, modulo 4.

    (Payne and Hanek, "Radian reduction for trigonometric functions", 1983.) The product keeps 126 places after the
    point; no float64 is closer than about 2**-61 to a multiple of pi/2.
    """
    f = FORMATS[f64]
    bits = to_bits(e, a)
    m = e.op("or", e.op("and", bits, (1 << f.fraction) - 1), 1 << f.fraction)
    # The window starts where the product has weight 2: place n - 1 of 2/pi, whose place 1 is bit 64 of the words.
    start = e.op("sub", e.op("lshr", bits, f.fraction), f.bias + f.fraction - 62)
    first, second, third = _window(e, start)
    m_low, m_high = e.op("and", m, 0xFFFFFFFF), e.op("lshr", m, 32)
    addend = _high_product(e, m_low, m_high, third)
    low = e.op("add", e.op("mul", m, second), addend)
    flipped = (e.op("xor", v, f.sign_mask) for v in (low, addend))
    carry = e.op("select", e.op("lt", *flipped), like(e, 1, m), 0)
    high = e.op("add", e.op("add", e.op("mul", m, first), _high_product(e, m_low, m_high, second)), carry)
    quadrant = e.op("lshr", e.op("add", high, 1 << 61), 62)
    # The rest, as a signed fraction, goes to f64 in four pieces of 32 bits: their sum rounds relative to itself.
    fraction = e.op("or", e.op("shl", high, 2), e.op("lshr", low, 62))
    low = e.op("shl", low, 2)
    mask = 0xFFFFFFFF
    pieces = (e.op("ashr", fraction, 32), e.op("and", fraction, mask), e.op("lshr", low, 32), e.op("and", low, mask))
    total: Value | None = None
    for number, piece in enumerate(pieces):
        term = e.op("mul", small_int_to_float(e, piece, f64), 2.0 ** (-32 * (number + 1)))
        total = term if total is None else e.op("add", total, term)
    assert total is not None
    return e.op("mul", total, math.pi / 2), quadrant


def _reduce(e: ScopedEmitter, a: Value) -> tuple[Value, Value]:
    """a = k * pi/2 + r for a >= 0: r and k modulo 4 in the low bits of an integer. NaN for infinity and NaN.

    The way for large arguments is a loop that runs once if any lane needs it, else never.
    """
    f = format_of(a)
    r, quadrant = _reduce_small(e, a, f)
    is_large = e.op("and", e.op("gt", a, SMALL[f.dtype]), e.op("lt", a, math.inf))
    some = is_large if a.type.lanes == 1 else e.op("reduce_or", is_large)
    # The operand is carried through the loop, so that nothing of the loop's body can be computed outside of it.
    with e.loop("large", 0, e.op("cast", some, to=i64), 1, (a, r, quadrant)) as loop:
        inner = loop.phis[0]
        large = _reduce_large_f32(e, inner) if f.dtype is f32 else _reduce_large_f64(e, inner)
        loop.yields = (
            inner,
            e.op("select", is_large, large[0], loop.phis[1]),
            e.op("select", is_large, large[1], loop.phis[2]),
        )
    return loop.results[1], loop.results[2]


def _sine_of_quadrant(e: ScopedEmitter, r: Value, quadrant: Value) -> Value:
    """sin(r + quadrant * pi/2) as bits."""
    f = format_of(r)
    z = e.op("mul", r, r)
    sine = e.op("fma", e.op("mul", r, z), horner(e, z, SIN[f.dtype]), r)
    cosine = e.op("fma", e.op("mul", z, z), horner(e, z, COS[f.dtype]), e.op("fma", z, -0.5, 1.0))
    odd = e.op("ne", e.op("and", quadrant, 1), 0)
    sign = e.op("and", e.op("shl", quadrant, f.bits.bits - 2), f.sign_mask)
    return e.op("xor", to_bits(e, e.op("select", odd, cosine, sine)), sign)


def sin(e: ScopedEmitter, x: Value) -> Value:
    f = format_of(x)
    r, quadrant = _reduce(e, e.op("abs", x))
    sign = e.op("and", to_bits(e, x), f.sign_mask)
    return from_bits(e, e.op("xor", _sine_of_quadrant(e, r, quadrant), sign), f.dtype)


def cos(e: ScopedEmitter, x: Value) -> Value:
    r, quadrant = _reduce(e, e.op("abs", x))
    return from_bits(e, _sine_of_quadrant(e, r, e.op("add", quadrant, 1)), x.type.dtype)
