"""Methods of tensors: one element at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.tensors import elementwise
from graphc.tensors.calling import dunder
from graphc.tensors.core import TensorBase
from graphc.tensors.methods.inplace import inplace

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


class PointwiseMethods(TensorBase):
    """One element at a time."""

    __slots__ = ()

    # NumPy leaves operators between its arrays and scalars and tensors to the tensors.
    __array_priority__ = 1000

    # operators

    __add__, __radd__ = dunder(elementwise.add), dunder(elementwise.add, True)
    __sub__, __rsub__ = dunder(elementwise.sub), dunder(elementwise.rsub)
    __mul__, __rmul__ = dunder(elementwise.mul), dunder(elementwise.mul, True)
    __truediv__, __rtruediv__ = dunder(elementwise.true_divide), dunder(elementwise.rdiv)
    __floordiv__, __rfloordiv__ = dunder(elementwise.floor_divide), dunder(elementwise.floor_divide, True)
    __mod__, __rmod__ = dunder(elementwise.remainder), dunder(elementwise.remainder, True)
    __pow__, __rpow__ = dunder(elementwise.pow), dunder(elementwise.pow, True)
    __and__, __rand__ = dunder(elementwise.bitwise_and), dunder(elementwise.bitwise_and, True)
    __or__, __ror__ = dunder(elementwise.bitwise_or), dunder(elementwise.bitwise_or, True)
    __xor__, __rxor__ = dunder(elementwise.bitwise_xor), dunder(elementwise.bitwise_xor, True)
    __lshift__, __rlshift__ = dunder(elementwise.bitwise_left_shift), dunder(elementwise.bitwise_left_shift, True)
    __rshift__, __rrshift__ = dunder(elementwise.bitwise_right_shift), dunder(elementwise.bitwise_right_shift, True)
    __eq__, __ne__ = dunder(elementwise.eq), dunder(elementwise.ne)  # type: ignore[assignment]
    __lt__, __le__ = dunder(elementwise.lt), dunder(elementwise.le)
    __gt__, __ge__ = dunder(elementwise.gt), dunder(elementwise.ge)
    __neg__, __pos__, __abs__, __invert__ = (
        elementwise.neg,
        elementwise.positive,
        elementwise.abs,
        elementwise.invert,
    )
    __iadd__, __isub__ = inplace(__add__), inplace(__sub__)
    __imul__, __itruediv__ = inplace(__mul__), inplace(__truediv__)
    __ifloordiv__, __imod__, __ipow__ = inplace(__floordiv__), inplace(__mod__), inplace(__pow__)
    __iand__, __ior__, __ixor__ = inplace(__and__), inplace(__or__), inplace(__xor__)
    __ilshift__, __irshift__ = inplace(__lshift__), inplace(__rshift__)

    # functions and their in-place forms

    abs, abs_ = elementwise.abs, inplace(elementwise.abs)
    absolute, absolute_ = elementwise.absolute, inplace(elementwise.absolute)
    acos, acos_ = elementwise.acos, inplace(elementwise.acos)
    acosh, acosh_ = elementwise.acosh, inplace(elementwise.acosh)
    add, add_ = elementwise.add, inplace(elementwise.add)
    addcdiv, addcdiv_ = elementwise.addcdiv, inplace(elementwise.addcdiv)
    addcmul, addcmul_ = elementwise.addcmul, inplace(elementwise.addcmul)
    angle = elementwise.angle
    arccos, arccos_ = elementwise.arccos, inplace(elementwise.arccos)
    arccosh, arccosh_ = elementwise.arccosh, inplace(elementwise.arccosh)
    arcsin, arcsin_ = elementwise.arcsin, inplace(elementwise.arcsin)
    arcsinh, arcsinh_ = elementwise.arcsinh, inplace(elementwise.arcsinh)
    arctan, arctan_ = elementwise.arctan, inplace(elementwise.arctan)
    arctan2, arctan2_ = elementwise.arctan2, inplace(elementwise.arctan2)
    arctanh, arctanh_ = elementwise.arctanh, inplace(elementwise.arctanh)
    asin, asin_ = elementwise.asin, inplace(elementwise.asin)
    asinh, asinh_ = elementwise.asinh, inplace(elementwise.asinh)
    atan, atan_ = elementwise.atan, inplace(elementwise.atan)
    atan2, atan2_ = elementwise.atan2, inplace(elementwise.atan2)
    atanh, atanh_ = elementwise.atanh, inplace(elementwise.atanh)
    bitwise_and, bitwise_and_ = elementwise.bitwise_and, inplace(elementwise.bitwise_and)
    bitwise_left_shift, bitwise_left_shift_ = elementwise.bitwise_left_shift, inplace(elementwise.bitwise_left_shift)
    bitwise_not, bitwise_not_ = elementwise.bitwise_not, inplace(elementwise.bitwise_not)
    bitwise_or, bitwise_or_ = elementwise.bitwise_or, inplace(elementwise.bitwise_or)
    bitwise_right_shift, bitwise_right_shift_ = (
        elementwise.bitwise_right_shift,
        inplace(elementwise.bitwise_right_shift),
    )
    bitwise_xor, bitwise_xor_ = elementwise.bitwise_xor, inplace(elementwise.bitwise_xor)
    ceil, ceil_ = elementwise.ceil, inplace(elementwise.ceil)
    clamp, clamp_ = elementwise.clamp, inplace(elementwise.clamp)
    clamp_max, clamp_max_ = elementwise.clamp_max, inplace(elementwise.clamp_max)
    clamp_min, clamp_min_ = elementwise.clamp_min, inplace(elementwise.clamp_min)
    clip, clip_ = elementwise.clip, inplace(elementwise.clip)
    conj = elementwise.conj
    conj_physical, conj_physical_ = elementwise.conj_physical, inplace(elementwise.conj_physical)
    copysign, copysign_ = elementwise.copysign, inplace(elementwise.copysign)
    cos, cos_ = elementwise.cos, inplace(elementwise.cos)
    cosh, cosh_ = elementwise.cosh, inplace(elementwise.cosh)
    deg2rad, deg2rad_ = elementwise.deg2rad, inplace(elementwise.deg2rad)
    div, div_ = elementwise.div, inplace(elementwise.div)
    divide, divide_ = elementwise.divide, inplace(elementwise.divide)
    eq, eq_ = elementwise.eq, inplace(elementwise.eq)
    erf, erf_ = elementwise.erf, inplace(elementwise.erf)
    exp, exp_ = elementwise.exp, inplace(elementwise.exp)
    exp2, exp2_ = elementwise.exp2, inplace(elementwise.exp2)
    expm1, expm1_ = elementwise.expm1, inplace(elementwise.expm1)
    fix, fix_ = elementwise.fix, inplace(elementwise.fix)
    float_power, float_power_ = elementwise.float_power, inplace(elementwise.float_power)
    floor, floor_ = elementwise.floor, inplace(elementwise.floor)
    floor_divide, floor_divide_ = elementwise.floor_divide, inplace(elementwise.floor_divide)
    fmax = elementwise.fmax
    fmin = elementwise.fmin
    fmod, fmod_ = elementwise.fmod, inplace(elementwise.fmod)
    frac, frac_ = elementwise.frac, inplace(elementwise.frac)
    frexp = elementwise.frexp
    gcd, gcd_ = elementwise.gcd, inplace(elementwise.gcd)
    ge, ge_ = elementwise.ge, inplace(elementwise.ge)
    greater, greater_ = elementwise.greater, inplace(elementwise.greater)
    greater_equal, greater_equal_ = elementwise.greater_equal, inplace(elementwise.greater_equal)
    gt, gt_ = elementwise.gt, inplace(elementwise.gt)
    heaviside, heaviside_ = elementwise.heaviside, inplace(elementwise.heaviside)
    hypot, hypot_ = elementwise.hypot, inplace(elementwise.hypot)
    isfinite = elementwise.isfinite
    isinf = elementwise.isinf
    isnan = elementwise.isnan
    isneginf = elementwise.isneginf
    isposinf = elementwise.isposinf
    isreal = elementwise.isreal
    lcm, lcm_ = elementwise.lcm, inplace(elementwise.lcm)
    ldexp, ldexp_ = elementwise.ldexp, inplace(elementwise.ldexp)
    le, le_ = elementwise.le, inplace(elementwise.le)
    lerp, lerp_ = elementwise.lerp, inplace(elementwise.lerp)
    less, less_ = elementwise.less, inplace(elementwise.less)
    less_equal, less_equal_ = elementwise.less_equal, inplace(elementwise.less_equal)
    log, log_ = elementwise.log, inplace(elementwise.log)
    log10, log10_ = elementwise.log10, inplace(elementwise.log10)
    log1p, log1p_ = elementwise.log1p, inplace(elementwise.log1p)
    log2, log2_ = elementwise.log2, inplace(elementwise.log2)
    logaddexp = elementwise.logaddexp
    logaddexp2 = elementwise.logaddexp2
    logical_and, logical_and_ = elementwise.logical_and, inplace(elementwise.logical_and)
    logical_not, logical_not_ = elementwise.logical_not, inplace(elementwise.logical_not)
    logical_or, logical_or_ = elementwise.logical_or, inplace(elementwise.logical_or)
    logical_xor, logical_xor_ = elementwise.logical_xor, inplace(elementwise.logical_xor)
    logit, logit_ = elementwise.logit, inplace(elementwise.logit)
    lt, lt_ = elementwise.lt, inplace(elementwise.lt)
    maximum = elementwise.maximum
    minimum = elementwise.minimum
    mul, mul_ = elementwise.mul, inplace(elementwise.mul)
    multiply, multiply_ = elementwise.multiply, inplace(elementwise.multiply)
    nan_to_num, nan_to_num_ = elementwise.nan_to_num, inplace(elementwise.nan_to_num)
    ne, ne_ = elementwise.ne, inplace(elementwise.ne)
    neg, neg_ = elementwise.neg, inplace(elementwise.neg)
    negative, negative_ = elementwise.negative, inplace(elementwise.negative)
    nextafter, nextafter_ = elementwise.nextafter, inplace(elementwise.nextafter)
    not_equal, not_equal_ = elementwise.not_equal, inplace(elementwise.not_equal)
    positive = elementwise.positive
    pow, pow_ = elementwise.pow, inplace(elementwise.pow)
    rad2deg, rad2deg_ = elementwise.rad2deg, inplace(elementwise.rad2deg)
    reciprocal, reciprocal_ = elementwise.reciprocal, inplace(elementwise.reciprocal)
    relu, relu_ = elementwise.relu, inplace(elementwise.relu)
    remainder, remainder_ = elementwise.remainder, inplace(elementwise.remainder)
    resolve_conj = elementwise.resolve_conj
    resolve_neg = elementwise.resolve_neg
    round, round_ = elementwise.round, inplace(elementwise.round)
    rsqrt, rsqrt_ = elementwise.rsqrt, inplace(elementwise.rsqrt)
    sgn, sgn_ = elementwise.sgn, inplace(elementwise.sgn)
    sigmoid, sigmoid_ = elementwise.sigmoid, inplace(elementwise.sigmoid)
    sign, sign_ = elementwise.sign, inplace(elementwise.sign)
    signbit = elementwise.signbit
    sin, sin_ = elementwise.sin, inplace(elementwise.sin)
    sinc, sinc_ = elementwise.sinc, inplace(elementwise.sinc)
    sinh, sinh_ = elementwise.sinh, inplace(elementwise.sinh)
    sqrt, sqrt_ = elementwise.sqrt, inplace(elementwise.sqrt)
    square, square_ = elementwise.square, inplace(elementwise.square)
    sub, sub_ = elementwise.sub, inplace(elementwise.sub)
    subtract, subtract_ = elementwise.subtract, inplace(elementwise.subtract)
    tan, tan_ = elementwise.tan, inplace(elementwise.tan)
    tanh, tanh_ = elementwise.tanh, inplace(elementwise.tanh)
    true_divide, true_divide_ = elementwise.true_divide, inplace(elementwise.true_divide)
    trunc, trunc_ = elementwise.trunc, inplace(elementwise.trunc)
    xlogy, xlogy_ = elementwise.xlogy, inplace(elementwise.xlogy)

    @property
    def real(self: Any) -> Tensor:
        """The tensor itself: it is real."""
        return self

    @property
    def imag(self: Any) -> Tensor:
        """RuntimeError: no tensor is complex."""
        return elementwise.imag(self)

    def where(self: Any, condition: Tensor, other: Any) -> Tensor:
        """These elements where `condition`, else those of `other`."""
        return elementwise.where(condition, self, other)
