"""Methods of tensors: one element at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.tensors import elementwise, ternary
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class PointwiseMethods(TensorBase):
    """One element at a time."""

    __slots__ = ()

    # arithmetic

    add, sub, subtract, mul, multiply = (
        elementwise.add,
        elementwise.sub,
        elementwise.sub,
        elementwise.mul,
        elementwise.mul,
    )
    div, divide, true_divide, floor_divide = elementwise.div, elementwise.div, elementwise.div, elementwise.floor_divide
    remainder, pow, neg, negative = elementwise.remainder, elementwise.pow, elementwise.neg, elementwise.neg
    __add__ = __radd__ = elementwise.add
    __sub__, __rsub__ = elementwise.sub, elementwise.rsub
    __mul__ = __rmul__ = elementwise.mul
    __truediv__, __rtruediv__ = elementwise.div, elementwise.rdiv
    __floordiv__, __rfloordiv__ = elementwise.floor_divide, elementwise.rfloor_divide
    __mod__, __rmod__ = elementwise.remainder, elementwise.rremainder
    __pow__, __rpow__ = elementwise.pow, elementwise.rpow
    __neg__, __pos__, __abs__ = elementwise.neg, elementwise.positive, elementwise.abs
    __iadd__ = add_ = inplace(elementwise.add)
    __isub__ = sub_ = inplace(elementwise.sub)
    __imul__ = mul_ = inplace(elementwise.mul)
    __itruediv__ = div_ = inplace(elementwise.div)
    __ifloordiv__ = floor_divide_ = inplace(elementwise.floor_divide)
    __imod__ = remainder_ = inplace(elementwise.remainder)
    __ipow__ = pow_ = inplace(elementwise.pow)
    neg_, abs_, clamp_, clip_ = (
        inplace(elementwise.neg),
        inplace(elementwise.abs),
        inplace(elementwise.clamp),
        inplace(elementwise.clamp),
    )
    maximum, minimum = elementwise.maximum, elementwise.minimum
    lerp, addcmul, addcdiv = ternary.lerp, ternary.addcmul, ternary.addcdiv
    lerp_, addcmul_, addcdiv_ = (
        inplace(ternary.lerp),
        inplace(ternary.addcmul),
        inplace(ternary.addcdiv),
    )

    # comparison and logic

    eq, ne, lt, le, gt, ge = (
        elementwise.eq,
        elementwise.ne,
        elementwise.lt,
        elementwise.le,
        elementwise.gt,
        elementwise.ge,
    )
    __eq__, __ne__ = elementwise.eq, elementwise.ne  # type: ignore[assignment]
    __lt__, __le__, __gt__, __ge__ = elementwise.lt, elementwise.le, elementwise.gt, elementwise.ge
    logical_and, logical_or = elementwise.logical_and, elementwise.logical_or
    logical_xor, logical_not = elementwise.logical_xor, elementwise.logical_not
    bitwise_and, bitwise_or = elementwise.bitwise_and, elementwise.bitwise_or
    bitwise_xor, bitwise_not = elementwise.bitwise_xor, elementwise.bitwise_not
    __and__ = __rand__ = elementwise.bitwise_and
    __or__ = __ror__ = elementwise.bitwise_or
    __xor__ = __rxor__ = elementwise.bitwise_xor
    __invert__ = elementwise.bitwise_not
    __lshift__, __rshift__ = elementwise.bitwise_left_shift, elementwise.bitwise_right_shift
    __iand__, __ior__, __ixor__ = (
        inplace(elementwise.bitwise_and),
        inplace(elementwise.bitwise_or),
        inplace(elementwise.bitwise_xor),
    )
    isnan, isinf, isfinite = elementwise.isnan, elementwise.isinf, elementwise.isfinite

    # unary functions

    exp, log, log1p, expm1, sqrt = (
        elementwise.exp,
        elementwise.log,
        elementwise.log1p,
        elementwise.expm1,
        elementwise.sqrt,
    )
    rsqrt, reciprocal, sin, cos, tan = (
        elementwise.rsqrt,
        elementwise.reciprocal,
        elementwise.sin,
        elementwise.cos,
        elementwise.tan,
    )
    tanh, sigmoid, erf, sinh, cosh = (
        elementwise.tanh,
        elementwise.sigmoid,
        elementwise.erf,
        elementwise.sinh,
        elementwise.cosh,
    )
    exp2, log2, log10 = elementwise.exp2, elementwise.log2, elementwise.log10
    floor, ceil, round, trunc = elementwise.floor, elementwise.ceil, elementwise.round, elementwise.trunc
    abs, absolute, sign, square = elementwise.abs, elementwise.abs, elementwise.sign, elementwise.square
    relu, clamp, clip = elementwise.relu, elementwise.clamp, elementwise.clamp
    exp_, log_, sqrt_, tanh_, sigmoid_ = (
        inplace(elementwise.exp),
        inplace(elementwise.log),
        inplace(elementwise.sqrt),
        inplace(elementwise.tanh),
        inplace(elementwise.sigmoid),
    )
    relu_, round_, floor_, ceil_ = (
        inplace(elementwise.relu),
        inplace(elementwise.round),
        inplace(elementwise.floor),
        inplace(elementwise.ceil),
    )
    reciprocal_, rsqrt_, square_ = (
        inplace(elementwise.reciprocal),
        inplace(elementwise.rsqrt),
        inplace(elementwise.square),
    )

    def clamp_min(self: Any, min: Any) -> Tensor:
        """Elements below `min` become `min`."""
        return elementwise.clamp(self, min)

    def clamp_max(self: Any, max: Any) -> Tensor:
        """Elements above `max` become `max`."""
        return elementwise.clamp(self, None, max)

    def where(self: Any, condition: Tensor, other: Any) -> Tensor:
        """These elements where `condition`, else those of `other`."""
        return elementwise.where(condition, self, other)
