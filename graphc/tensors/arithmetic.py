"""Arithmetic of two operands with PyTorch's names, promotion and signs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, boolean, f16, f64
from graphc.promotion import Number, as_float
from graphc.tensors.calling import (
    Operand,
    binary,
    is_operand,
    named,
    not_implemented,
    refuse,
    refuse_zero,
    simple,
    want_operand,
)
from graphc.tensors.casting import autocasts
from graphc.tensors.core import TensorBase
from graphc.tensors.filling import check_holds
from graphc.tensors.operands import combine, common, is_number, plain
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_ONE: Number = 1  # the default of `alpha`, by which most calls are told at once


def _check_alpha(name: str, operands: tuple[Operand, Operand], alpha: object) -> None:
    if not is_number(alpha) and not (isinstance(alpha, TensorBase) and alpha.numel() == 1):
        if isinstance(alpha, complex):
            refuse(name, alpha, "alpha", 3)
        raise KindError(f"{name}(): argument 'alpha' must be Number, not {type(alpha).__name__}")
    dtype = common(operands)[0]
    if isinstance(alpha, bool) and dtype is not boolean:
        raise DTypeError("Boolean alpha only supported for Boolean results.")
    floating = alpha._type.dtype.is_float if isinstance(alpha, TensorBase) else isinstance(plain(alpha), float)
    if floating and not dtype.is_float:
        raise DTypeError("For integral input tensors, argument alpha must not be a floating point number.")
    if is_number(alpha):
        check_holds(plain(alpha), dtype)


def _scaled(name: str, input: Operand, other: Operand, alpha: Operand) -> Operand:
    """`alpha * other` for add and sub; an integer result wants an integer alpha."""
    _check_alpha(name, (input, other), alpha)
    if not isinstance(alpha, TensorBase) and alpha == 1:
        return other
    dtype = common((input, other))[0]
    if dtype is boolean and not isinstance(alpha, TensorBase):
        alpha = bool(alpha)
    if isinstance(other, TensorBase) or isinstance(alpha, TensorBase):
        kind = dtype if isinstance(other, TensorBase) else None
        return combine("MulBackward0", (other, alpha), _mul, kind, is_any=True)
    return other * alpha


def _add(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("bitwise_or" if x.type.dtype is boolean else "add", (x, y))


def _mul(b: Builder, x: Node, y: Node) -> Node:
    return b.apply("bitwise_and" if x.type.dtype is boolean else "mul", (x, y))


_sub, _div = simple("sub"), simple("div")
_floor_divide = simple("floor_divide")


def _remainder(b: Builder, x: Node, y: Node) -> Node:
    """Of floats that divide each other the zero has the sign of the dividend, as in PyTorch."""
    if not x.type.dtype.is_float:
        return b.apply("remainder", (x, y))
    rest, zero = b.apply("fmod", (x, y)), b.zeros_like(x)
    apart = b.apply("ne", (b.apply("lt", (rest, zero)), b.apply("lt", (y, zero))))
    return b.select(b.apply("bitwise_and", (apart, b.apply("ne", (rest, zero)))), b.add(rest, y), rest)


def _want(name: str, input: Operand, other: Operand) -> None:
    if not is_operand(input):
        refuse(name, input, "input", 1)
    if not is_operand(other):
        refuse(name, other)


def _is_bool(value: Operand) -> bool:
    return value._type.dtype is boolean if isinstance(value, TensorBase) else isinstance(value, bool | np.bool_)


def _refuse_bools(input: Operand, other: Operand) -> None:
    """Truth values, tensors and Python's, are not subtracted."""
    if _is_bool(input) and _is_bool(other):
        raise DTypeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or `logical_xor()` "
            "operator instead."
        )
    if _is_bool(input) or _is_bool(other):
        raise DTypeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a mask, "
            "use the `~` or `logical_not()` operator instead."
        )


@out_form
def add(input: Operand, other: Operand, *, alpha: Operand = _ONE) -> Tensor:
    """input + alpha * other, broadcast; bool + bool is "or"."""
    _want("add", input, other)
    if alpha is not _ONE:
        other = _scaled("add", input, other, alpha)
    return combine("AddBackward0", (input, other), _add, steady=True, is_any=True)


@out_form
def sub(input: Operand, other: Operand, *, alpha: Operand = _ONE) -> Tensor:
    """input - alpha * other. RuntimeError for bool."""
    _want("sub", input, other)
    _refuse_bools(input, other)
    if alpha is not _ONE:
        other = _scaled("sub", input, other, alpha)
    return combine("SubBackward0", (input, other), _sub, steady=True, is_any=True)


@out_form
def rsub(input: Operand, other: Operand, *, alpha: Operand = _ONE) -> Tensor:
    """other - alpha * input. RuntimeError for bool."""
    _want("rsub", input, other)
    _refuse_bools(input, other)
    name = "RsubBackward0" if isinstance(other, TensorBase) else "RsubBackward1"
    part = input if alpha is _ONE else _scaled("rsub", other, input, alpha)
    return combine(name, (other, part), _sub, is_any=True)


mul = binary("mul", "MulBackward0", _mul, 'input * other, broadcast; bool * bool is "and".', "both")


@out_form
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other: integers give floats; `rounding_mode` "floor" or "trunc" rounds, and keeps integers (RuntimeError
    "ZeroDivisionError", when looked at, for integers by zero).
    """
    _want("div", input, other)
    found, shape = common((input, other))
    if rounding_mode is None:
        return combine("DivBackward0", (input, other), _div, as_float(found), steady=True, is_any=True)
    if rounding_mode not in ("floor", "trunc"):
        raise UsageError(
            f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '{rounding_mode}'"
        )
    if found is boolean:
        raise not_implemented(f"div_{rounding_mode}_cpu", boolean)
    refuse_zero(other, found, math.prod(shape))
    emit = _floor_divide if rounding_mode == "floor" else _trunc_divide
    return combine("DivBackward2", (input, other), emit)


@out_form
def true_divide(input: Operand, other: Operand) -> Tensor:
    """input / other; integers give floats."""
    _want("true_divide", input, other)
    return combine("DivBackward0", (input, other), _div, as_float(common((input, other))[0]), is_any=True)


def _trunc_divide(b: Builder, x: Node, y: Node) -> Node:
    if x.dtype.is_float:
        return b.apply("trunc", (b.div(x, y),))
    quotient = b.apply("floor_divide", (x, y))
    inexact = b.apply("ne", (b.sub(x, b.mul(quotient, y)), b.zeros_like(x)))
    negative = b.apply("lt", (quotient, b.zeros_like(x)))
    return b.select(b.apply("bitwise_and", (inexact, negative)), b.add(quotient, 1), quotient)


def _reciprocal_times(b: Builder, x: Node, y: Node) -> Node:
    """y / x as PyTorch's `__rtruediv__` computes it: the reciprocal first, so that its gradient is named after it."""
    return b.mul(b.div(b.constant(1, x.type), x), y)


@autocasts
def rdiv(input: Tensor, other: Operand) -> Tensor:
    """other / input."""
    if isinstance(other, TensorBase):
        return div(other, input)
    kind = as_float(common((input, other))[0])
    return combine("MulBackward0", (input, other), _reciprocal_times, kind, is_any=True)


def _dividing(
    name: str, node_name: str, emit: Callable[..., Node], kernel: str, doc: str, numbers: str
) -> Callable[..., Any]:
    def function(input: Operand, other: Operand) -> Tensor:
        if not isinstance(input, TensorBase) and (
            numbers == "other" or not is_number(input) or (numbers == "either" and not isinstance(other, TensorBase))
        ):
            refuse(name, input, "input", 1)
        want_operand(name, other)
        found, shape = common((input, other))
        if found is boolean:
            raise not_implemented(kernel, boolean)
        refuse_zero(other, found, math.prod(shape))
        node = f"{node_name}{int(isinstance(other, TensorBase))}" if node_name.endswith("Backward") else node_name
        return combine(node, (input, other), emit)

    return out_form(named(function, name, doc))


floor_divide = _dividing(
    "floor_divide", "NotImplemented", _floor_divide, "div_floor_cpu",
    "The quotient rounded down. RuntimeError, when looked at, for integers by zero.", "both",
)  # fmt: skip
remainder = _dividing(
    "remainder", "RemainderBackward", _remainder, "remainder_cpu",
    "input - floor(input / other) * other: the sign of the divisor, as Python's %. RuntimeError, when looked at, for "
    "integers modulo zero.", "either",
)  # fmt: skip
fmod = _dividing(
    "fmod", "FmodBackward", simple("fmod"), "fmod_cpu",
    "input - trunc(input / other) * other: the sign of input, as C's fmod. RuntimeError, when looked at, for integers "
    "modulo zero.", "other",
)  # fmt: skip


# powers


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


@out_form
def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power exponent. Integers to negative whole numbers are refused, as in PyTorch; to negative elements
    of tensors they give 0, but 1 and -1 their powers.
    """
    if not is_operand(input) or not (isinstance(input, TensorBase) or isinstance(exponent, TensorBase)):
        refuse("pow", input, "input", 1)
    want_operand("pow", exponent, "exponent")
    dtype = common((input, exponent))[0]
    if dtype is boolean:
        if is_number(exponent):  # x**True is x, x**False true
            return combine("", (input, not exponent), lambda b, x, y: b.apply("bitwise_or", (x, y)))
        raise not_implemented("pow", boolean)
    if is_number(exponent):
        if not dtype.is_float:
            check_holds(plain(exponent), dtype)
        return _power_of_number(input, plain(exponent), dtype)
    return combine(
        "PowBackward1" if isinstance(input, TensorBase) else "PowBackward2", (input, exponent), simple("pow")
    )


def _power_of_number(input: Operand, exponent: Number, dtype: DType) -> Tensor:
    if not dtype.is_float:
        if exponent < 0:
            raise UsageError("Integers to negative integer powers are not allowed.")
        return combine("PowBackward0", (input,), lambda b, x: _power(b, x, int(exponent)), dtype)
    value = float(exponent)
    if value.is_integer() and 0 <= value <= 4:
        return combine("PowBackward0", (input,), lambda b, x: _power(b, x, int(value)), dtype)
    if value == 0.5:
        return combine("PowBackward0", (input,), simple("sqrt"), dtype)
    if value == -0.5 and dtype is not f16:
        return combine(
            "PowBackward0", (input,), lambda b, x: b.div(b.constant(1.0, x.type), b.apply("sqrt", (x,))), dtype
        )
    if value in (-1.0, -2.0):
        return combine(
            "PowBackward0", (input,), lambda b, x: b.div(b.constant(1.0, x.type), _power(b, x, int(-value))), dtype
        )
    return combine("PowBackward0", (input, value), simple("pow"), dtype)


@out_form
def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input to the power exponent, computed in float64."""
    if not is_operand(input) or not (isinstance(input, TensorBase) or isinstance(exponent, TensorBase)):
        refuse("float_power", input, "input", 1)
    want_operand("float_power", exponent, "exponent")
    if not isinstance(exponent, TensorBase):
        return _power_of_number(input, float(plain(exponent)), f64)
    return combine(
        "PowBackward1" if isinstance(input, TensorBase) else "PowBackward2", (input, exponent), simple("pow"), f64
    )


def _ldexp(b: Builder, x: Node, y: Node) -> Node:
    return b.mul(x, b.apply("pow", (b.constant(2, y.type), y)))


@out_form
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2**other."""
    for place, value in enumerate((input, other), 1):
        if not isinstance(value, TensorBase):
            refuse("ldexp", value, ("input", "other")[place - 1], place)
    dtype = as_float(common((input, other))[0])
    return combine("LdexpBackward0", (input, other), _ldexp, dtype)
