"""Elementwise functions with PyTorch's names and promotion: arithmetic, comparison, logic, unary math, `where`,
`clamp`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.promotion import Number, as_float
from graphc.tensors.core import TensorBase, record
from graphc.tensors.operands import combine, common, is_number, plain
from graphc.tensors.out import out_form
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Operand = Any  # a Tensor or a number; PyTorch's signatures take both


def _is_operand(value: object) -> bool:
    return isinstance(value, TensorBase) or is_number(value)


_ONE: Number = 1  # the default of `alpha`, by which most calls are told at once


def _scaled(other: Operand, alpha: Number) -> Operand:
    """`alpha * other` for add and sub; an integer result wants an integer alpha."""
    if isinstance(alpha, TensorBase) or alpha != 1:
        kind = common([other])[0] if isinstance(other, TensorBase) else None
        if kind is not None and not kind.is_float and isinstance(alpha, float):
            raise DTypeError("For integral input tensors, argument alpha must not be a floating point number.")
        return combine("MulBackward0", (other, alpha), _mul) if isinstance(other, TensorBase) else other * alpha
    return other


def _add(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("bitwise_or" if x.type.dtype is boolean else "add", (x, y))


def _mul(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("bitwise_and" if x.type.dtype is boolean else "mul", (x, y))


def _simple(op: str) -> Callable[..., Node]:
    def emit(b: Builder, *nodes: Node) -> Node:
        return b.apply(op, nodes)

    return emit


_sub, _div = _simple("sub"), _simple("div")
_floor_divide, _remainder = _simple("floor_divide"), _simple("remainder")


def add(input: Operand, other: Operand, *, alpha: Number = _ONE) -> Tensor:
    """input + alpha * other, broadcast; bool + bool is "or"."""
    if not _is_operand(other):
        return NotImplemented
    return combine("AddBackward0", (input, other if alpha is _ONE else _scaled(other, alpha)), _add)


def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other. RuntimeError for bool."""
    if not _is_operand(other):
        return NotImplemented
    if common((input, other))[0] is boolean:
        raise DTypeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
            "`logical_xor()` operator instead."
        )
    return combine("SubBackward0", (input, _scaled(other, alpha)), _sub)


def rsub(input: Operand, other: Operand) -> Tensor:
    """other - input."""
    if not _is_operand(other):
        return NotImplemented
    if common((input, other))[0] is boolean:
        raise DTypeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. "
            "If you are trying to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    return combine("RsubBackward1", (other, input), _sub)


def mul(input: Operand, other: Operand) -> Tensor:
    """input * other; bool * bool is "and"."""
    if not _is_operand(other):
        return NotImplemented
    return combine("MulBackward0", (input, other), _mul)


def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other: integers give floats; `rounding_mode` "floor" or "trunc" rounds, and keeps integers."""
    if not _is_operand(other):
        return NotImplemented
    if rounding_mode is None:
        return combine("DivBackward0", (input, other), _div, as_float(common((input, other))[0]))
    if rounding_mode == "floor":
        return combine("NotImplemented", (input, other), _floor_divide)
    if rounding_mode != "trunc":
        raise RuntimeError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        )
    return combine("DivBackward1", (input, other), _trunc_divide)


def _trunc_divide(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype.is_float:
        return b.apply("trunc", (b.div(x, y),))
    quotient = b.apply("floor_divide", (x, y))
    inexact = b.apply("ne", (b.sub(x, b.mul(quotient, y)), b.zeros_like(x)))
    negative = b.apply("lt", (quotient, b.zeros_like(x)))
    return b.select(b.apply("bitwise_and", (inexact, negative)), b.add(quotient, 1), quotient)


def rdiv(input: Operand, other: Operand) -> Tensor:
    """other / input."""
    if not _is_operand(other):
        return NotImplemented
    # PyTorch takes the reciprocal and multiplies.
    name = "DivBackward0" if isinstance(other, TensorBase) else "MulBackward0"
    return combine(name, (other, input), _div, as_float(common((input, other))[0]))


def floor_divide(input: Operand, other: Operand) -> Tensor:
    """Quotient rounded down. Integers divided by zero give 0."""
    if not _is_operand(other):
        return NotImplemented
    return combine("NotImplemented", (input, other), _floor_divide)


def rfloor_divide(input: Operand, other: Operand) -> Tensor:
    """other // input."""
    if not _is_operand(other):
        return NotImplemented
    return combine("NotImplemented", (other, input), _floor_divide)


def remainder(input: Operand, other: Operand) -> Tensor:
    """input - floor(input / other) * other: the sign of the divisor, as Python's %. Integers modulo zero give 0."""
    if not _is_operand(other):
        return NotImplemented
    return combine("RemainderBackward0", (input, other), _remainder)


def rremainder(input: Operand, other: Operand) -> Tensor:
    """other % input."""
    if not _is_operand(other):
        return NotImplemented
    return combine("RemainderBackward0", (other, input), _remainder)


def _power(b: Builder, x: Node, exponent: int) -> Node:
    """x to a whole power by squaring."""
    result: Node | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else b.mul(result, square)
        exponent >>= 1
        if exponent:
            square = b.mul(square, square)
    return b.constant(1, x.type) if result is None else result


def _int_power(b: Builder, x: Node, y: Node) -> Node:
    """Integers to integer tensors, by squaring over the bits of the exponent; a negative exponent gives 0, 1 or -1."""
    one = b.constant(1, x.type)
    result, square = one, x
    for bit in range(min(x.dtype.bits, 63)):
        odd = b.apply("bitwise_and", (b.apply("shift_right", (y, b.constant(bit, y.type))), one))
        result = b.select(b.apply("ne", (odd, b.zeros_like(x))), b.mul(result, square), result)
        square = b.mul(square, square)
    unit = b.select(b.apply("eq", (b.apply("abs", (x,)), one)), result, b.zeros_like(x))
    return b.select(b.apply("lt", (y, b.zeros_like(y))), unit, result)


def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power exponent. Integers to negative whole numbers are refused, as in PyTorch."""
    if not _is_operand(exponent):
        return NotImplemented
    dtype = common((input, exponent))[0]
    if dtype is boolean:
        dtype = dtypes.int64.ir
    if not dtype.is_float:
        if is_number(exponent) and plain(exponent) < 0:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
        if is_number(exponent):
            whole = int(plain(exponent))
            return combine("PowBackward0", (input,), lambda b, x: _power(b, x, whole), dtype)
        return combine("PowBackward1", (input, exponent), _int_power, dtype)
    if is_number(exponent):
        value = float(plain(exponent))
        if value.is_integer() and 0 <= value <= 4:
            return combine("PowBackward0", (input,), lambda b, x: _power(b, x, int(value)), dtype)
        if value == 0.5:
            return combine("PowBackward0", (input,), _simple("sqrt"), dtype)
        if value in (-1.0, -2.0):
            return combine(
                "PowBackward0", (input,), lambda b, x: b.div(b.constant(1.0, x.type), _power(b, x, int(-value))), dtype
            )
        return combine("PowBackward0", (input, value), _simple("pow"), dtype)
    return combine("PowBackward1", (input, exponent), _simple("pow"), dtype)


def rpow(input: Operand, other: Operand) -> Tensor:
    """other to the power input."""
    return pow(other, input) if _is_operand(other) else NotImplemented


def _pair(name: str, op: str, doc: str) -> Callable[..., Any]:
    emit = _simple(op)

    def function(input: Operand, other: Operand) -> Tensor:
        return combine(name, (input, other), emit)

    function.__doc__ = doc
    return function


maximum = _pair("MaximumBackward0", "maximum", "The larger of two, elementwise; NaN wins.")
minimum = _pair("MinimumBackward0", "minimum", "The smaller of two, elementwise; NaN wins.")


# comparison and logic


def _compare(op: str) -> Callable[..., Any]:
    emit = _simple(op)

    def function(input: Operand, other: Operand) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        return combine("NotDifferentiable", (input, other), emit)

    function.__doc__ = f"`{op}` elementwise, broadcast; bool."
    function.__name__ = op
    return function


eq, ne, lt, le, gt, ge = (_compare(op) for op in ("eq", "ne", "lt", "le", "gt", "ge"))


def _truth(b: Builder, x: Node) -> Node:
    return b.cast(x, boolean)


def logical_not(input: Tensor) -> Tensor:
    """True where zero."""
    return record("NotDifferentiable", (input,), lambda b, x: b.apply("bitwise_not", (_truth(b, x),)))


def _logical(op: str) -> Callable[..., Any]:
    def function(input: Tensor, other: Tensor) -> Tensor:
        return combine("NotDifferentiable", (input, other), _simple(op), boolean)

    function.__doc__ = f"{op.replace('bitwise', 'logical')} of the truth values."
    return function


logical_and, logical_or, logical_xor = (_logical(f"bitwise_{op}") for op in ("and", "or", "xor"))


def _bitwise(op: str) -> Callable[..., Any]:
    def function(input: Operand, other: Operand) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        dtype = common((input, other))[0]
        if dtype.is_float:
            raise NotImplementedError(f"\"{op}_cpu\" not implemented for '{type_name(dtype)}'")
        return combine("NotDifferentiable", (input, other), _simple(op))

    function.__doc__ = f"{op} of integers or bools."
    function.__name__ = op
    return function


bitwise_and, bitwise_or, bitwise_xor = (_bitwise(f"bitwise_{op}") for op in ("and", "or", "xor"))


def _shift(op: str) -> Callable[..., Any]:
    def function(input: Operand, other: Operand) -> Tensor:
        if not _is_operand(other):
            return NotImplemented
        return combine("NotDifferentiable", (input, other), _simple(op))

    function.__doc__ = f"{op.replace('_', ' ')} of integers."
    return function


bitwise_left_shift, bitwise_right_shift = _shift("shift_left"), _shift("shift_right")


def bitwise_not(input: Tensor) -> Tensor:
    """All bits inverted; "not" for bool."""
    if input._type.dtype.is_float:
        raise DTypeError("~ (operator.invert) is only implemented on integer and Boolean-type tensors")
    return record("NotDifferentiable", (input,), _simple("bitwise_not"))


# unary


def _unary(op: str, name: str, doc: str) -> Callable[..., Any]:
    def emit(b: Builder, x: Node) -> Node:
        return b.apply(op, (b.cast(x, as_float(x.dtype)),))

    def function(input: Tensor) -> Tensor:
        return record(name, (input,), emit)

    function.__doc__ = doc + " Integers are converted to the default float type."
    function.__name__ = op
    return out_form(function)


exp = _unary("exp", "ExpBackward0", "e to the power of each element.")
log = _unary("log", "LogBackward0", "Natural logarithm.")
log1p = _unary("log1p", "Log1PBackward0", "log(1 + x).")
expm1 = _unary("expm1", "Expm1Backward0", "exp(x) - 1.")
sqrt = _unary("sqrt", "SqrtBackward0", "Square root.")
sin = _unary("sin", "SinBackward0", "Sine.")
cos = _unary("cos", "CosBackward0", "Cosine.")
tanh = _unary("tanh", "TanhBackward0", "Hyperbolic tangent.")
sigmoid = _unary("sigmoid", "SigmoidBackward0", "1 / (1 + exp(-x)).")
erf = _unary("erf", "ErfBackward0", "Error function.")


def _composite(name: str, doc: str) -> Callable[[Callable[[Builder, Node], Node]], Callable[..., Any]]:
    """A unary function made of primitive operators over float elements."""

    def decorate(emit: Callable[[Builder, Node], Node]) -> Callable[..., Any]:
        def function(input: Tensor) -> Tensor:
            return record(name, (input,), lambda b, x: emit(b, b.cast(x, as_float(x.dtype))))

        function.__doc__ = doc
        return function

    return decorate


rsqrt = _composite("RsqrtBackward0", "1 / sqrt(x).")(lambda b, x: b.div(b.constant(1, x.type), b.apply("sqrt", (x,))))
reciprocal = _composite("ReciprocalBackward0", "1 / x.")(lambda b, x: b.div(b.constant(1, x.type), x))
tan = _composite("TanBackward0", "Tangent.")(lambda b, x: b.div(b.apply("sin", (x,)), b.apply("cos", (x,))))
exp2 = _composite("Exp2Backward0", "2 to the power x.")(lambda b, x: b.apply("pow", (b.constant(2, x.type), x)))
log2 = _composite("Log2Backward0", "Logarithm to base 2.")(lambda b, x: b.mul(b.log(x), 1 / math.log(2)))
log10 = _composite("Log10Backward0", "Logarithm to base 10.")(lambda b, x: b.mul(b.log(x), 1 / math.log(10)))
sinh = _composite("SinhBackward0", "Hyperbolic sine.")(
    lambda b, x: b.mul(b.sub(b.apply("expm1", (x,)), b.apply("expm1", (b.neg(x),))), 0.5)
)
cosh = _composite("CoshBackward0", "Hyperbolic cosine.")(lambda b, x: b.mul(b.add(b.exp(x), b.exp(b.neg(x))), 0.5))


def _rounding(op: str) -> Callable[..., Any]:
    def emit(b: Builder, x: Node) -> Node:
        return b.apply(op, (x,)) if x.dtype.is_float else x

    def function(input: Tensor) -> Tensor:
        return record(f"{op.capitalize()}Backward0", (input,), emit)

    function.__doc__ = f"{op} of each element; integers stay."
    return function


floor, ceil, trunc = _rounding("floor"), _rounding("ceil"), _rounding("trunc")
fix = trunc


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest whole number, halves to even; with `decimals`, to that many digits."""
    if decimals == 0:
        return _round(input)
    scale = 10.0**decimals
    return record(
        "RoundBackward1", (input,), lambda b, x: b.div(b.apply("round", (b.mul(x, scale),)), b.constant(scale, x.type))
    )


_round = _rounding("round")


def neg(input: Tensor) -> Tensor:
    """-x. RuntimeError for bool."""
    if input._type.dtype is boolean:
        raise DTypeError(
            "Negation, the `-` operator, on a bool tensor is not supported. "
            "If you are trying to invert a mask, use the `~` or `logical_not()` operator instead."
        )
    return record("NegBackward0", (input,), _simple("neg"))


def positive(input: Tensor) -> Tensor:
    """The tensor itself."""
    return input


def abs(input: Tensor) -> Tensor:
    """Absolute value."""
    return record("AbsBackward0", (input,), _simple("abs"))


def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return record("SignBackward0", (input,), _simple("sign"))


def square(input: Tensor) -> Tensor:
    """x * x."""
    return record("PowBackward0", (input,), lambda b, x: b.mul(x, x))


def _special(test: Callable[[Builder, Node], Node], doc: str) -> Callable[..., Any]:
    def function(input: Tensor) -> Tensor:
        def emit(b: Builder, x: Node) -> Node:
            return test(b, x) if x.dtype.is_float else b.constant(False, x.type.with_dtype(boolean))

        return record("NotDifferentiable", (input,), emit)

    function.__doc__ = doc
    return function


isnan = _special(lambda b, x: b.apply("ne", (x, x)), "True where NaN.")
isinf = _special(
    lambda b, x: b.apply("eq", (b.apply("abs", (x,)), b.constant(math.inf, x.type))), "True where infinite."
)


def isfinite(input: Tensor) -> Tensor:
    """True where neither infinite nor NaN."""

    def emit(b: Builder, x: Node) -> Node:
        if not x.dtype.is_float:
            return b.constant(True, x.type.with_dtype(boolean))
        return b.apply("lt", (b.apply("abs", (x,)), b.constant(math.inf, x.type)))

    return record("NotDifferentiable", (input,), emit)


def relu(input: Tensor) -> Tensor:
    """0 where x <= 0, else x (NaN stays)."""
    return record(
        "ReluBackward0",
        (input,),
        lambda b, x: b.select(b.apply("le", (x, b.zeros_like(x))), b.zeros_like(x), x),
    )


def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Elements below `min` become `min`, those above `max` become `max`; bounds are numbers or tensors."""
    if min is None and max is None:
        raise ValueError("torch.clamp: At least one of 'min' or 'max' must not be None")
    bounds = [bound for bound in (min, max) if bound is not None]

    def emit(b: Builder, x: Node, *limits: Node) -> Node:
        # The gradient goes to x where it is not outside, bounds included, as in PyTorch.
        rest = list(limits)
        if min is not None:
            low = rest.pop(0)
            x = b.select(b.apply("lt", (x, low)), low, x)
        if max is not None:
            high = rest.pop(0)
            x = b.select(b.apply("gt", (x, high)), high, x)
        return x

    return combine("ClampBackward1", (input, *bounds), emit)


clip = clamp


def where(condition: Tensor, input: Operand = None, other: Operand = None) -> Any:
    """`input` where `condition`, else `other`, broadcast."""
    if condition._type.dtype is not boolean:
        raise DTypeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{type_name(condition._type.dtype)}"
        )
    return combine("WhereBackward0", (input, other), lambda b, c, x, y: b.select(c, x, y), masks=(condition,))
