"""What the vector math shares: facts of the two floating-point formats, polynomials, work on the bits of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.emitter import Emitter
from graphc.codegen.kernel import Number, Value, VType
from graphc.ir.record import record
from graphc.ir.types import DType, f32, f64, i32, i64


@record
class Format:
    """A floating-point format: `fraction` stored bits, exponent `bias`, and the integer type `bits` of the same size.

    `ln2_hi` is ln 2 rounded to the format, `ln2_lo` the rest of it, rounded.
    """

    dtype: DType
    bits: DType
    fraction: int
    bias: int
    ln2_hi: float
    ln2_lo: float

    @property
    def shifter(self) -> float:
        """1.5 * 2**fraction: adding it to a small number rounds that to an integer, kept in the low bits of the sum."""
        return 1.5 * 2.0**self.fraction

    @property
    def min_normal(self) -> float:
        return math.ldexp(1.0, 1 - self.bias)

    @property
    def sign_mask(self) -> int:
        """The sign bit, as the smallest signed integer."""
        return -(1 << (self.bits.bits - 1))

    @property
    def tiny(self) -> float:
        """Below this, x and x + x*x round to the same number."""
        return math.ldexp(1.0, -self.fraction - 2)


# ln 2 = 0.693147180559945309417232121458176568075500134360255...
FORMATS: dict[DType, Format] = {
    f32: Format(f32, i32, 23, 127, float.fromhex("0x1.62e430p-1"), float.fromhex("-0x1.05c610p-29")),
    f64: Format(f64, i64, 52, 1023, float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56")),
}

LOG2_E = 1.4426950408889634


def format_of(x: Value) -> Format:
    return FORMATS[x.type.dtype]


def like(e: Emitter, value: Number, x: Value) -> Value:
    """A constant of the type of `x`."""
    return e.const(value, x.type)


def horner(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """`c0 + c1*x + c2*x**2 + ...`, one fma per coefficient after the first."""
    result = like(e, coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        result = e.op("fma", result, x, c)
    return result


def to_bits(e: Emitter, x: Value) -> Value:
    return e.op("bitcast", x, to=format_of(x).bits)


def from_bits(e: Emitter, bits: Value, dtype: DType) -> Value:
    return e.op("bitcast", bits, to=dtype)


def copysign(e: Emitter, magnitude: Value, sign: Value) -> Value:
    """`magnitude`, whose sign bit is clear, with the sign of `sign`."""
    sign_bit = e.op("and", to_bits(e, sign), format_of(sign).sign_mask)
    return from_bits(e, e.op("or", to_bits(e, magnitude), sign_bit), magnitude.type.dtype)


def small_int_to_float(e: Emitter, n: Value, dtype: DType) -> Value:
    """An integer of the format's width, |n| < 2**22 (f32) or 2**51 (f64), as a float.

    i64 to f64 has no vector instruction before AVX-512, hence the addition in the low bits of `shifter`.
    """
    if dtype is f32:
        return e.op("cast", n, to=f32)
    f = FORMATS[dtype]
    shifted = e.op("add", n, (f.bias + f.fraction << f.fraction) | 1 << (f.fraction - 1))
    return e.op("sub", from_bits(e, shifted, dtype), f.shifter)


def vector(dtype: DType, x: Value) -> VType:
    """The type with the lanes of `x` and elements of `dtype`."""
    return VType(dtype, x.type.lanes)


def round_count(e: Emitter, n: Value) -> Value:
    """The largest of the integers `n` among the lanes, at least 0, as an i64 scalar: the bound of a loop."""
    largest = n if n.type.lanes == 1 else e.op("reduce_maximum", n)
    wide = largest if largest.type.dtype is i64 else e.op("cast", largest, to=i64)
    return e.op("maximum", wide, 0)
