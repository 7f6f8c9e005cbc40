"""The operations that tensors have as methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc import random
from graphc.tensors import elementwise, indexing, linalg, normalising, reductions, shaping, ternary
from graphc.tensors.core import TensorBase
from graphc.tensors.writing import in_place

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an operation: its result is stored in the tensor, converted to its dtype."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        result = function(self, *args, **kwargs)
        return result if result is NotImplemented else in_place(self, result)

    method.__doc__ = f"In place: {function.__doc__}"
    method.__name__ = f"{getattr(function, '__name__', 'operation')}_"
    return method


class Operations(TensorBase):
    """Functions of tensors as methods, with their in-place forms."""

    __slots__ = ()

    # indexing

    __getitem__ = indexing.getitem
    __setitem__ = indexing.setitem
    gather, index_select, take_along_dim = indexing.gather, indexing.index_select, indexing.take_along_dim
    scatter, scatter_add, index_add = indexing.scatter, indexing.scatter_add, indexing.index_add
    scatter_, scatter_add_ = _inplace(indexing.scatter), _inplace(indexing.scatter_add)
    index_add_ = _inplace(indexing.index_add)
    index_put_ = indexing.index_put_
    masked_fill, masked_select, nonzero = indexing.masked_fill, indexing.masked_select, indexing.nonzero
    masked_fill_ = _inplace(indexing.masked_fill)

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
    __iadd__ = add_ = _inplace(elementwise.add)
    __isub__ = sub_ = _inplace(elementwise.sub)
    __imul__ = mul_ = _inplace(elementwise.mul)
    __itruediv__ = div_ = _inplace(elementwise.div)
    __ifloordiv__ = floor_divide_ = _inplace(elementwise.floor_divide)
    __imod__ = remainder_ = _inplace(elementwise.remainder)
    __ipow__ = pow_ = _inplace(elementwise.pow)
    neg_, abs_, clamp_, clip_ = (
        _inplace(elementwise.neg),
        _inplace(elementwise.abs),
        _inplace(elementwise.clamp),
        _inplace(elementwise.clamp),
    )
    maximum, minimum = elementwise.maximum, elementwise.minimum
    lerp, addcmul, addcdiv = ternary.lerp, ternary.addcmul, ternary.addcdiv
    lerp_, addcmul_, addcdiv_ = (
        _inplace(ternary.lerp),
        _inplace(ternary.addcmul),
        _inplace(ternary.addcdiv),
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
        _inplace(elementwise.bitwise_and),
        _inplace(elementwise.bitwise_or),
        _inplace(elementwise.bitwise_xor),
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
        _inplace(elementwise.exp),
        _inplace(elementwise.log),
        _inplace(elementwise.sqrt),
        _inplace(elementwise.tanh),
        _inplace(elementwise.sigmoid),
    )
    relu_, round_, floor_, ceil_ = (
        _inplace(elementwise.relu),
        _inplace(elementwise.round),
        _inplace(elementwise.floor),
        _inplace(elementwise.ceil),
    )
    reciprocal_, rsqrt_, square_ = (
        _inplace(elementwise.reciprocal),
        _inplace(elementwise.rsqrt),
        _inplace(elementwise.square),
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

    def softmax(self: Any, dim: Any, dtype: Any = None) -> Tensor:
        """exp(x) over its sum along `dim`."""
        return normalising.softmax(self, dim, dtype=dtype)

    def log_softmax(self: Any, dim: Any, dtype: Any = None) -> Tensor:
        """Logarithm of `softmax`."""
        return normalising.log_softmax(self, dim, dtype=dtype)

    # reductions

    sum, mean, prod, max, min = (
        reductions.sum,
        reductions.mean,
        reductions.prod,
        reductions.max,
        reductions.min,
    )
    amax, amin, argmax, argmin = reductions.amax, reductions.amin, reductions.argmax, reductions.argmin
    var, std, any, all, norm = (
        reductions.var,
        reductions.std,
        reductions.any_,
        reductions.all_,
        reductions.norm,
    )
    logsumexp, cumsum = reductions.logsumexp, reductions.cumsum

    # products

    matmul = __matmul__ = linalg.matmul
    mm, bmm, mv, dot, outer, addmm = linalg.mm, linalg.bmm, linalg.mv, linalg.dot, linalg.outer, linalg.addmm

    # views and rearrangements

    view, reshape, view_as, reshape_as = shaping.view_, shaping.reshape, shaping.view_as, shaping.reshape_as
    flatten, unflatten, permute, transpose = shaping.flatten, shaping.unflatten, shaping.permute, shaping.transpose
    swapaxes = swapdims = shaping.transpose
    t, movedim, expand, expand_as = shaping.t, shaping.movedim, shaping.expand, shaping.expand_as
    broadcast_to, squeeze, unsqueeze = shaping.broadcast_to, shaping.squeeze, shaping.unsqueeze
    narrow, select, unbind, split, chunk = (
        shaping.narrow,
        shaping.select,
        shaping.unbind,
        shaping.split,
        shaping.chunk,
    )
    diagonal, flip, repeat, roll = shaping.diagonal, shaping.flip, shaping.repeat, shaping.roll
    repeat_interleave, tril, triu = shaping.repeat_interleave, shaping.tril, shaping.triu
    clone, contiguous = shaping.clone, shaping.contiguous

    # random numbers

    uniform_, normal_, bernoulli_, random_ = random.uniform_, random.normal_, random.bernoulli_, random.random_
    bernoulli = random.bernoulli
