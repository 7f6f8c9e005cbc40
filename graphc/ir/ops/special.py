"""Error, gamma and related functions, as formulas of other operators. Gradients are PyTorch's formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.ops.composites import above, below, choose, composite, equal, horner, magnitude, upper_half
from graphc.ir.ops.special_tables import ERFCX, LGAMMA, NORMAL_CENTRE, NORMAL_FAR, NORMAL_TAIL
from graphc.ir.sugar import OpMethods
from graphc.ir.types import f64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]

# Bernoulli numbers over what Stirling's series and its derivatives divide them by (Abramowitz and Stegun, 6.1.41,
# 6.3.18, 6.4.12), in powers of 1/x**2.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400, 43867 / 244188)
DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160)
TRIGAMMA = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
EULER = 0.5772156649015329
HALF_LOG_2PI = 0.9189385332046728
SQRT_2 = math.sqrt(2.0)


def _inverse(b: OpMethods, x: Node) -> Node:
    return b.elementwise("div", 1.0, x)


# error functions


def _erfcx_of_positive(b: OpMethods, a: Node) -> Node:
    """Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x**2) erfc(x)", 1981; the table is our own."""
    bounded = b.elementwise("minimum", a, b.constant(2.0**100, a.type))
    t = b.div(b.sub(bounded, 4.0), b.add(bounded, 4.0))
    return b.div(horner(b, t, ERFCX), b.add(b.add(a, a), 1.0))


def _exp_of_square(b: OpMethods, a: Node, sign: float) -> Node:
    """exp(sign * a**2) for a in [0, 30]: the square of the upper half is exact, the rest is small."""
    high = upper_half(b, a)
    rest = b.mul(b.sub(a, high), b.add(a, high))
    return b.mul(b.exp(b.mul(b.mul(high, high), sign)), b.exp(b.mul(rest, sign)))


def _erfc(b: OpMethods, x: Node) -> Node:
    a = b.elementwise("minimum", magnitude(b, x), b.constant(30.0, x.type))
    tail = b.mul(_exp_of_square(b, a, -1.0), _erfcx_of_positive(b, a))
    return choose(b, below(b, x, 0.0), b.sub(2.0, tail), tail, x)


def _erfcx(b: OpMethods, x: Node) -> Node:
    a = magnitude(b, x)
    positive = _erfcx_of_positive(b, a)
    power = _exp_of_square(b, b.elementwise("minimum", a, b.constant(30.0, x.type)), 1.0)
    return choose(b, below(b, x, 0.0), b.sub(b.add(power, power), positive), positive, x)


def _normal_quantile(b: OpMethods, q: Node, tail: Node) -> Node:
    """The quantile of the normal distribution at 1/2 + q, `tail` being min(1/2 + q, 1/2 - q); infinite where it is 0.

    Wichura, "The percentage points of the normal distribution" (algorithm AS 241), 1988; relative error 1e-16.
    """
    r = b.sub(0.180625, b.mul(q, q))
    centre = b.div(b.mul(q, horner(b, r, NORMAL_CENTRE[0])), horner(b, r, NORMAL_CENTRE[1]))
    root = b.elementwise("sqrt", b.neg(b.log(tail)))
    near, far = b.sub(root, 1.6), b.sub(root, 5.0)
    close = b.div(horner(b, near, NORMAL_TAIL[0]), horner(b, near, NORMAL_TAIL[1]))
    away = b.div(horner(b, far, NORMAL_FAR[0]), horner(b, far, NORMAL_FAR[1]))
    size = choose(b, above(b, root, 5.0), away, close, q)
    size = choose(b, equal(b, tail, 0.0), math.inf, size, q)
    size = choose(b, below(b, tail, 0.0), math.nan, size, q)
    outer = choose(b, below(b, q, 0.0), b.neg(size), size, q)
    return choose(b, b.elementwise("le", magnitude(b, q), 0.425), centre, outer, q)


def _erfinv(b: OpMethods, x: Node) -> Node:
    """The quantile of the normal distribution at (1 + x) / 2, over sqrt(2)."""
    half = b.mul(b.sub(1.0, magnitude(b, x)), 0.5)
    return b.mul(_normal_quantile(b, b.mul(x, 0.5), half), 1 / SQRT_2)


def _ndtri(b: OpMethods, x: Node) -> Node:
    return _normal_quantile(b, b.sub(x, 0.5), b.elementwise("minimum", x, b.sub(1.0, x)))


def _log_ndtr(b: OpMethods, x: Node) -> Node:
    """log(erfcx(-x/sqrt(2)) / 2) - x**2/2 below -1, log1p(-erfc(x/sqrt(2)) / 2) above."""
    t = b.mul(x, 1 / SQRT_2)
    low = b.sub(b.log(b.mul(b.elementwise("erfcx", b.neg(t)), 0.5)), b.mul(t, t))
    high = b.elementwise("log1p", b.mul(b.elementwise("erfc", t), -0.5))
    return choose(b, below(b, x, -1.0), low, high, x)


def _entr(b: OpMethods, x: Node) -> Node:
    """-x * log(x), 0 at 0, -inf below."""
    made = choose(b, equal(b, x, 0.0), 0.0, b.neg(b.mul(x, b.log(x))), x)
    return choose(b, below(b, x, 0.0), -math.inf, made, x)


def _erfc_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.mul(ct, b.mul(b.exp(b.neg(b.mul(x, x))), -2 / math.sqrt(math.pi)))]


def _erfcx_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.sub(b.mul(b.mul(node.inputs[0], node), 2.0), 2 / math.sqrt(math.pi)))]


def _erfinv_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.mul(b.exp(b.mul(node, node)), math.sqrt(math.pi) / 2))]


def _ndtri_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.mul(b.exp(b.mul(b.mul(node, node), 0.5)), math.sqrt(2 * math.pi)))]


def _log_ndtr_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    inner = b.elementwise("erfcx", b.mul(node.inputs[0], -1 / SQRT_2))
    return [b.mul(b.div(ct, inner), math.sqrt(2 / math.pi))]


def _entr_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.sub(b.neg(b.log(node.inputs[0])), 1.0))]


# gamma functions


def _lgamma_of_positive(b: OpMethods, x: Node) -> Node:
    """On [1, 2] a polynomial with the zeros taken out; below 8 by the recurrence down, below 1 up; Stirling's series
    above.
    """
    small = below(b, x, 1.0)
    y = choose(b, small, b.add(x, 1.0), x, x)
    product = b.constant(1.0, x.type)
    for _ in range(6):
        far = b.elementwise("ge", y, 2.0)
        y = choose(b, far, b.sub(y, 1.0), y, x)
        product = choose(b, far, b.mul(product, y), product, x)
    low = b.mul(b.mul(b.sub(y, 1.0), b.sub(y, 2.0)), horner(b, b.sub(b.add(y, y), 3.0), LGAMMA))
    low = b.sub(b.add(low, b.log(product)), b.log(choose(b, small, x, 1.0, x)))
    inverse = _inverse(b, x)
    series = b.mul(inverse, horner(b, b.mul(inverse, inverse), STIRLING[: 9 if x.dtype is f64 else 4]))
    high = b.add(b.mul(b.sub(x, 0.5), b.sub(b.log(x), 1.0)), b.add(series, HALF_LOG_2PI - 0.5))
    return choose(b, b.elementwise("ge", x, 8.0), choose(b, equal(b, x, math.inf), math.inf, high, x), low, x)


def _sin_pi(b: OpMethods, x: Node) -> Node:
    """|sin(pi * x)|, exactly 0 for whole x."""
    off = magnitude(b, b.sub(x, b.elementwise("round", x)))
    return b.elementwise("sin", b.mul(off, math.pi))


def _lgamma(b: OpMethods, x: Node) -> Node:
    """log|gamma(x)|; log(pi / |sin(pi x)|) - log(gamma(1 - x)) below 0.

    |x| * gamma(|x|) * gamma(x) * sin(pi x) = -pi, in the form that small |x| do not cancel.
    """
    a = magnitude(b, x)
    upper = _lgamma_of_positive(b, choose(b, equal(b, a, 0.0), 1.0, a, x))
    sine = _sin_pi(b, a)
    safe = choose(b, equal(b, sine, 0.0), 1.0, sine, x)
    lower = b.sub(b.log(b.div(b.constant(math.pi, x.type), b.mul(a, safe))), upper)
    lower = choose(b, equal(b, sine, 0.0), math.inf, lower, x)
    tiny = below(b, a, 1e-8 if x.dtype is f64 else 1e-4)
    made = choose(b, below(b, x, 0.0), choose(b, tiny, b.sub(b.mul(a, EULER), b.log(a)), lower, x), upper, x)
    pole = b.elementwise("bitwise_or", equal(b, x, 0.0), equal(b, a, math.inf))
    return choose(b, pole, math.inf, made, x)


def _digamma(b: OpMethods, x: Node) -> Node:
    """log(y) - 1/(2y) - series after steps of the recurrence to y >= 10; psi(1 - x) - pi / tan(pi x) below 0.

    Zero gives the infinity of the other sign, negative whole numbers NaN.
    """
    negative = below(b, x, 0.0)
    y = choose(b, negative, b.sub(1.0, x), x, x)
    total = b.constant(0.0, x.type)
    for _ in range(10):
        near = below(b, y, 10.0)
        total = choose(b, near, b.add(total, _inverse(b, y)), total, x)
        y = choose(b, near, b.add(y, 1.0), y, x)
    inverse = _inverse(b, y)
    square = b.mul(inverse, inverse)
    series = b.add(b.mul(inverse, 0.5), b.mul(square, horner(b, square, DIGAMMA[: 8 if x.dtype is f64 else 4])))
    made = b.sub(b.sub(b.log(y), series), total)
    off = b.mul(b.sub(x, b.elementwise("round", x)), math.pi)
    tangent = b.div(b.elementwise("sin", off), b.elementwise("cos", off))
    reflected = b.sub(made, b.div(b.constant(math.pi, x.type), tangent))
    whole = equal(b, x, b.elementwise("round", x))
    reflected = choose(b, whole, math.nan, reflected, x)
    made = choose(b, negative, reflected, made, x)
    return choose(b, equal(b, x, 0.0), b.neg(_inverse(b, x)), made, x)


def _trigamma(b: OpMethods, x: Node) -> Node:
    """1/y + 1/(2y**2) + series after steps of the recurrence to y >= 10; below 1/2 by reflection, infinite at poles."""
    reflects = below(b, x, 0.5)
    y = choose(b, reflects, b.sub(1.0, x), x, x)
    total = b.constant(0.0, x.type)
    for _ in range(10):
        near = below(b, y, 10.0)
        total = choose(b, near, b.add(total, _inverse(b, b.mul(y, y))), total, x)
        y = choose(b, near, b.add(y, 1.0), y, x)
    inverse = _inverse(b, y)
    square = b.mul(inverse, inverse)
    tail = b.mul(b.mul(square, inverse), horner(b, square, TRIGAMMA[: 8 if x.dtype is f64 else 4]))
    made = b.add(total, b.add(inverse, b.add(b.mul(square, 0.5), tail)))
    ratio = b.div(b.constant(math.pi, x.type), _sin_pi(b, x))
    return choose(b, reflects, b.sub(b.mul(ratio, ratio), made), made, x)


def _lgamma_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("digamma", node.inputs[0]))]


def _digamma_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("trigamma", node.inputs[0]))]


def _trigamma_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.mul(ct, b.mul(b.elementwise("zeta", b.constant(3.0, x.type), x), -2.0))]


for _name, _formula, _rule, _doc in (
    ("erfc", _erfc, _erfc_vjp, "1 - erf(x), accurate far out."),
    ("erfcx", _erfcx, _erfcx_vjp, "exp(x*x) * erfc(x)."),
    ("erfinv", _erfinv, _erfinv_vjp, "The inverse of erf, NaN outside [-1, 1]."),
    ("ndtri", _ndtri, _ndtri_vjp, "The quantile of the normal distribution."),
    ("log_ndtr", _log_ndtr, _log_ndtr_vjp, "Logarithm of the normal distribution function."),
    ("entr", _entr, _entr_vjp, "-x * log(x), 0 at 0, -inf below."),
    ("lgamma", _lgamma, _lgamma_vjp, "log|gamma(x)|."),
    ("digamma", _digamma, _digamma_vjp, "The derivative of log(gamma(x))."),
    ("trigamma", _trigamma, _trigamma_vjp, "The derivative of digamma."),
):
    composite(_name, 1, _formula, f"{_doc} Float, any shape.", vjp=_rule)
