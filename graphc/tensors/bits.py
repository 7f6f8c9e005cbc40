"""Operations on the bits of integers and floats, and on divisors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from graphc.errors import DTypeError, KindError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, f32, f64, i32
from graphc.promotion import as_float
from graphc.tensors.bit_patterns import integer_of
from graphc.tensors.calling import binary, not_implemented, simple, unary, want_tensor
from graphc.tensors.core import record, record_many
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_KERNELS = {"bitwise_left_shift": "lshift", "bitwise_right_shift": "rshift"}


def _want_bits(name: str, dtype: DType) -> None:
    shift = name in _KERNELS
    if dtype.is_float or (shift and dtype is boolean):
        raise not_implemented(f"{_KERNELS.get(name, name)}_cpu", dtype)


def _want_integers(name: str, dtype: DType) -> None:
    if dtype.is_float or dtype is boolean:
        raise not_implemented(f"{name}_cpu", dtype)


def _bitwise(name: str, op: str, doc: str) -> Callable[..., Any]:
    return binary(name, "NotDifferentiable", simple(op), doc, "either", check=_want_bits)


bitwise_and = _bitwise("bitwise_and", "bitwise_and", "Bitwise and of integers or bools.")
bitwise_or = _bitwise("bitwise_or", "bitwise_or", "Bitwise or of integers or bools.")
bitwise_xor = _bitwise("bitwise_xor", "bitwise_xor", "Bitwise exclusive or of integers or bools.")
bitwise_left_shift = _bitwise(
    "bitwise_left_shift", "shift_left", "input << other of integers; 0 for counts outside [0, bits)."
)
bitwise_right_shift = _bitwise(
    "bitwise_right_shift", "shift_right", "input >> other of integers; the sign for counts outside [0, bits)."
)


@out_form
def bitwise_not(input: Tensor) -> Tensor:
    """All bits inverted; "not" for bool."""
    want_tensor("bitwise_not", input)
    if input._type.dtype.is_float:
        raise not_implemented("bitwise_not_cpu", input._type.dtype)
    return record("NotDifferentiable", (input,), simple("bitwise_not"))


def invert(input: Tensor) -> Tensor:
    """The operator ~. TypeError for floats."""
    if input._type.dtype.is_float:
        raise KindError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return record("NotDifferentiable", (input,), simple("bitwise_not"))


gcd = binary(
    "gcd", "NotDifferentiable", simple("gcd"), "The greatest common divisor of integers.", "none", check=_want_integers
)


def _lcm(b: Builder, x: Node, y: Node) -> Node:
    """|x / gcd * y|; 0 where both are 0."""
    divisor = b.apply("gcd", (x, y))
    part = b.apply("floor_divide", (x, divisor))
    made = b.mul(part, y)
    return made if x.dtype.kind == "uint" else b.apply("abs", (made,))


lcm = binary("lcm", "NotDifferentiable", _lcm, "The least common multiple of integers.", "none", check=_want_integers)


# bits of floats


def sign_bit(b: Builder, x: Node) -> Node:
    """Whether the sign bit of floats is set, also of zeros and NaN; for others whether they are negative."""
    if x.dtype is boolean:
        return b.constant(False, x.type)
    if x.dtype.is_float:
        x = b.apply("bitcast", (x,), {"dtype": integer_of(x.dtype)})
    return b.apply("lt", (x, b.zeros_like(x)))


signbit = unary("signbit", "NotDifferentiable", sign_bit, "Whether the sign bit is set; bool, any shape.")


copysign = binary(
    "copysign", ("CopysignBackward0", "CopysignBackward1"), simple("copysign"),
    "The magnitude of input with the sign of other; integers are converted to the default float type.",
    dtype=as_float,
)  # fmt: skip


def _nextafter(b: Builder, x: Node, y: Node) -> Node:
    """One step of the bits, which are ordered like the magnitudes; from zero to the smallest number of y's sign."""
    dtype, integer = x.dtype, integer_of(x.dtype)
    bits = b.apply("bitcast", (x,), {"dtype": integer})
    zero = b.zeros_like(x)
    away = b.apply("eq", (b.apply("gt", (y, x)), b.apply("gt", (x, zero))))
    moved = b.add(bits, b.select(away, b.constant(1, bits.type), b.constant(-1, bits.type)))
    smallest = b.constant(1, bits.type)
    least = b.constant(-(1 << (dtype.bits - 1)) + 1, bits.type)
    moved = b.select(b.apply("eq", (x, zero)), b.select(b.apply("gt", (y, zero)), smallest, least), moved)
    made = b.apply("bitcast", (moved,), {"dtype": dtype})
    made = b.select(b.apply("eq", (x, y)), y, made)
    unordered = b.apply("bitwise_or", (b.apply("ne", (x, x)), b.apply("ne", (y, y))))
    return b.select(unordered, b.add(x, y), made)


def _want_floats(name: str, dtype: DType) -> None:
    if not dtype.is_float:
        raise not_implemented(f"{name}_cpu", dtype)


nextafter = binary(
    "nextafter", "NextafterBackward0", _nextafter, "The next float after input in the direction of other.", "none",
    check=_want_floats,
)  # fmt: skip


def _frexp(b: Builder, x: Node) -> list[Node]:
    """Mantissa in [0.5, 1) and exponent, by the bits; x itself and 0 for zeros, infinities and NaN."""
    dtype = x.dtype
    wide = x if dtype.bits > 16 else b.cast(x, f32)
    width, bias = (52, 1022) if wide.dtype is f64 else (23, 126)
    normal = 2.0 ** (1 - bias)
    size = b.apply("abs", (wide,))
    subnormal = b.apply("lt", (size, b.constant(normal, wide.type)))
    scaled = b.select(subnormal, b.mul(wide, 2.0 ** (width + 2)), wide)
    bits = b.apply("bitcast", (scaled,), {"dtype": integer_of(wide.dtype)})
    field = b.constant((1 << (wide.dtype.bits - 1 - width)) - 1, bits.type)
    exponent = b.apply("bitwise_and", (b.apply("shift_right", (bits, b.constant(width, bits.type))), field))
    exponent = b.sub(exponent, bias)
    exponent = b.select(subnormal, b.sub(exponent, width + 2), exponent)
    kept = b.apply("bitwise_and", (bits, b.constant(~(((1 << (wide.dtype.bits - 1 - width)) - 1) << width), bits.type)))
    kept = b.apply("bitwise_or", (kept, b.constant(bias << width, bits.type)))
    mantissa = b.apply("bitcast", (kept,), {"dtype": wide.dtype})
    finite = b.apply("lt", (size, b.constant(math.inf, wide.type)))
    plain = b.apply("bitwise_and", (finite, b.apply("ne", (wide, b.zeros_like(wide)))))
    exponent = b.select(plain, exponent, b.zeros_like(exponent))
    # The mantissa is x / 2**exponent, by which its gradient goes.
    power = b.apply("pow", (b.constant(2.0, wide.type), b.cast(exponent, wide.dtype)))
    through = b.sub(wide, b.apply("detach", (wide,)))
    shown = b.select(plain, mantissa, wide)
    mantissa = b.add(shown, b.select(plain, b.div(through, power), b.zeros_like(wide)))
    return [b.cast(mantissa, dtype), b.cast(exponent, i32)]


class Frexp(NamedTuple):
    """What `frexp` gives."""

    mantissa: Any
    exponent: Any


@out_form
def frexp(input: Tensor) -> Frexp:
    """(mantissa, exponent) with input = mantissa * 2**exponent; the exponents are int32. Floats only."""
    want_tensor("frexp", input)
    if not input._type.dtype.is_float:
        raise DTypeError("torch.frexp() only supports floating-point dtypes")
    return Frexp(*record_many("FrexpBackward0", (input,), _frexp))
