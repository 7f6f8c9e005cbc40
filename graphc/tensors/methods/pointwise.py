"""Methods of tensors: one element at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.tensors import elementwise
from graphc.tensors.calling import dunder, unary_dunder
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
    __neg__, __pos__ = unary_dunder(elementwise.neg), elementwise.positive
    __abs__, __invert__ = unary_dunder(elementwise.abs), elementwise.invert
    __iadd__, __isub__ = inplace(__add__), inplace(__sub__)
    __imul__, __itruediv__ = inplace(__mul__), inplace(__truediv__)
    __ifloordiv__, __imod__, __ipow__ = inplace(__floordiv__), inplace(__mod__), inplace(__pow__)
    __iand__, __ior__, __ixor__ = inplace(__and__), inplace(__or__), inplace(__xor__)
    __ilshift__, __irshift__ = inplace(__lshift__), inplace(__rshift__)

    # functions and their in-place forms

    abs = elementwise.abs
    abs_ = inplace(abs)
    absolute = elementwise.absolute
    absolute_ = inplace(absolute)
    acos = elementwise.acos
    acos_ = inplace(acos)
    acosh = elementwise.acosh
    acosh_ = inplace(acosh)
    add = elementwise.add
    add_ = inplace(add)
    addcdiv = elementwise.addcdiv
    addcdiv_ = inplace(addcdiv)
    addcmul = elementwise.addcmul
    addcmul_ = inplace(addcmul)
    angle = elementwise.angle
    arccos = elementwise.arccos
    arccos_ = inplace(arccos)
    arccosh = elementwise.arccosh
    arccosh_ = inplace(arccosh)
    arcsin = elementwise.arcsin
    arcsin_ = inplace(arcsin)
    arcsinh = elementwise.arcsinh
    arcsinh_ = inplace(arcsinh)
    arctan = elementwise.arctan
    arctan_ = inplace(arctan)
    arctan2 = elementwise.arctan2
    arctan2_ = inplace(arctan2)
    arctanh = elementwise.arctanh
    arctanh_ = inplace(arctanh)
    asin = elementwise.asin
    asin_ = inplace(asin)
    asinh = elementwise.asinh
    asinh_ = inplace(asinh)
    atan = elementwise.atan
    atan_ = inplace(atan)
    atan2 = elementwise.atan2
    atan2_ = inplace(atan2)
    atanh = elementwise.atanh
    atanh_ = inplace(atanh)
    bitwise_and = elementwise.bitwise_and
    bitwise_and_ = inplace(bitwise_and)
    bitwise_left_shift = elementwise.bitwise_left_shift
    bitwise_left_shift_ = inplace(bitwise_left_shift)
    bitwise_not = elementwise.bitwise_not
    bitwise_not_ = inplace(bitwise_not)
    bitwise_or = elementwise.bitwise_or
    bitwise_or_ = inplace(bitwise_or)
    bitwise_right_shift = elementwise.bitwise_right_shift
    bitwise_right_shift_ = inplace(bitwise_right_shift)
    bitwise_xor = elementwise.bitwise_xor
    bitwise_xor_ = inplace(bitwise_xor)
    ceil = elementwise.ceil
    ceil_ = inplace(ceil)
    clamp = elementwise.clamp
    clamp_ = inplace(clamp)
    clamp_max = elementwise.clamp_max
    clamp_max_ = inplace(clamp_max)
    clamp_min = elementwise.clamp_min
    clamp_min_ = inplace(clamp_min)
    clip = elementwise.clip
    clip_ = inplace(clip)
    conj = elementwise.conj
    conj_physical = elementwise.conj_physical
    conj_physical_ = inplace(conj_physical)
    copysign = elementwise.copysign
    copysign_ = inplace(copysign)
    cos = elementwise.cos
    cos_ = inplace(cos)
    cosh = elementwise.cosh
    cosh_ = inplace(cosh)
    deg2rad = elementwise.deg2rad
    deg2rad_ = inplace(deg2rad)
    digamma = elementwise.digamma
    digamma_ = inplace(digamma)
    div = elementwise.div
    div_ = inplace(div)
    divide = elementwise.divide
    divide_ = inplace(divide)
    eq = elementwise.eq
    eq_ = inplace(eq)
    erf = elementwise.erf
    erf_ = inplace(erf)
    erfc = elementwise.erfc
    erfc_ = inplace(erfc)
    erfinv = elementwise.erfinv
    erfinv_ = inplace(erfinv)
    exp = elementwise.exp
    exp_ = inplace(exp)
    exp2 = elementwise.exp2
    exp2_ = inplace(exp2)
    expm1 = elementwise.expm1
    expm1_ = inplace(expm1)
    fix = elementwise.fix
    fix_ = inplace(fix)
    float_power = elementwise.float_power
    float_power_ = inplace(float_power)
    floor = elementwise.floor
    floor_ = inplace(floor)
    floor_divide = elementwise.floor_divide
    floor_divide_ = inplace(floor_divide)
    fmax = elementwise.fmax
    fmin = elementwise.fmin
    fmod = elementwise.fmod
    fmod_ = inplace(fmod)
    frac = elementwise.frac
    frac_ = inplace(frac)
    frexp = elementwise.frexp
    gcd = elementwise.gcd
    gcd_ = inplace(gcd)
    ge = elementwise.ge
    ge_ = inplace(ge)
    greater = elementwise.greater
    greater_ = inplace(greater)
    greater_equal = elementwise.greater_equal
    greater_equal_ = inplace(greater_equal)
    gt = elementwise.gt
    gt_ = inplace(gt)
    heaviside = elementwise.heaviside
    heaviside_ = inplace(heaviside)
    hypot = elementwise.hypot
    hypot_ = inplace(hypot)
    i0 = elementwise.i0
    i0_ = inplace(i0)
    igamma = elementwise.igamma
    igamma_ = inplace(igamma)
    igammac = elementwise.igammac
    igammac_ = inplace(igammac)
    isfinite = elementwise.isfinite
    isinf = elementwise.isinf
    isnan = elementwise.isnan
    isneginf = elementwise.isneginf
    isposinf = elementwise.isposinf
    isreal = elementwise.isreal
    lcm = elementwise.lcm
    lcm_ = inplace(lcm)
    ldexp = elementwise.ldexp
    ldexp_ = inplace(ldexp)
    le = elementwise.le
    le_ = inplace(le)
    lerp = elementwise.lerp
    lerp_ = inplace(lerp)
    less = elementwise.less
    less_ = inplace(less)
    less_equal = elementwise.less_equal
    less_equal_ = inplace(less_equal)
    lgamma = elementwise.lgamma
    lgamma_ = inplace(lgamma)
    log = elementwise.log
    log_ = inplace(log)
    log10 = elementwise.log10
    log10_ = inplace(log10)
    log1p = elementwise.log1p
    log1p_ = inplace(log1p)
    log2 = elementwise.log2
    log2_ = inplace(log2)
    logaddexp = elementwise.logaddexp
    logaddexp2 = elementwise.logaddexp2
    logical_and = elementwise.logical_and
    logical_and_ = inplace(logical_and)
    logical_not = elementwise.logical_not
    logical_not_ = inplace(logical_not)
    logical_or = elementwise.logical_or
    logical_or_ = inplace(logical_or)
    logical_xor = elementwise.logical_xor
    logical_xor_ = inplace(logical_xor)
    logit = elementwise.logit
    logit_ = inplace(logit)
    lt = elementwise.lt
    lt_ = inplace(lt)
    maximum = elementwise.maximum
    minimum = elementwise.minimum
    mul = elementwise.mul
    mul_ = inplace(mul)
    multiply = elementwise.multiply
    multiply_ = inplace(multiply)
    mvlgamma = elementwise.mvlgamma
    mvlgamma_ = inplace(mvlgamma)
    nan_to_num = elementwise.nan_to_num
    nan_to_num_ = inplace(nan_to_num)
    ne = elementwise.ne
    ne_ = inplace(ne)
    neg = elementwise.neg
    neg_ = inplace(neg)
    negative = elementwise.negative
    negative_ = inplace(negative)
    nextafter = elementwise.nextafter
    nextafter_ = inplace(nextafter)
    not_equal = elementwise.not_equal
    not_equal_ = inplace(not_equal)
    positive = elementwise.positive
    pow = elementwise.pow
    pow_ = inplace(pow)
    rad2deg = elementwise.rad2deg
    rad2deg_ = inplace(rad2deg)
    reciprocal = elementwise.reciprocal
    reciprocal_ = inplace(reciprocal)
    relu = elementwise.relu
    relu_ = inplace(relu)
    remainder = elementwise.remainder
    remainder_ = inplace(remainder)
    resolve_conj = elementwise.resolve_conj
    resolve_neg = elementwise.resolve_neg
    round = elementwise.round
    round_ = inplace(round)
    rsqrt = elementwise.rsqrt
    rsqrt_ = inplace(rsqrt)
    sgn = elementwise.sgn
    sgn_ = inplace(sgn)
    sigmoid = elementwise.sigmoid
    sigmoid_ = inplace(sigmoid)
    sign = elementwise.sign
    sign_ = inplace(sign)
    signbit = elementwise.signbit
    sin = elementwise.sin
    sin_ = inplace(sin)
    sinc = elementwise.sinc
    sinc_ = inplace(sinc)
    sinh = elementwise.sinh
    sinh_ = inplace(sinh)
    sqrt = elementwise.sqrt
    sqrt_ = inplace(sqrt)
    square = elementwise.square
    square_ = inplace(square)
    sub = elementwise.sub
    sub_ = inplace(sub)
    subtract = elementwise.subtract
    subtract_ = inplace(subtract)
    tan = elementwise.tan
    tan_ = inplace(tan)
    tanh = elementwise.tanh
    tanh_ = inplace(tanh)
    true_divide = elementwise.true_divide
    true_divide_ = inplace(true_divide)
    trunc = elementwise.trunc
    trunc_ = inplace(trunc)
    xlogy = elementwise.xlogy
    xlogy_ = inplace(xlogy)

    @property
    def real(self: Any) -> Tensor:
        """The tensor itself: it is real."""
        return self

    @property
    def imag(self: Any) -> Tensor:
        """RuntimeError: no tensor is complex."""
        return elementwise.imag(self)

    def polygamma(self: Any, n: int) -> Tensor:
        """The n-th derivative of digamma."""
        return elementwise.polygamma(n, self)

    polygamma_ = inplace(polygamma)

    def where(self: Any, condition: Tensor, other: Any) -> Tensor:
        """These elements where `condition`, else those of `other`."""
        return elementwise.where(condition, self, other)
