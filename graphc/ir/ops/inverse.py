"""Hyperbolic functions and the inverses of trigonometric and hyperbolic ones, as formulas of other operators.

Identities are the textbook ones, each in the form that does not cancel (Abramowitz and Stegun, 4.4 to 4.6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.ops.composites import (
    above,
    below,
    choose,
    composite,
    equal,
    horner,
    is_negative,
    magnitude,
    signed_as,
)
from graphc.ir.ops.special_tables import ATAN
from graphc.ir.sugar import OpMethods

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]

# pi/2 and pi/4 to twice the precision.
HALF_PI = (math.pi / 2, 6.123233995736766e-17)
LN2 = math.log(2.0)
# Above this, sqrt(x*x + 1) is x, and asinh(x) is log(2*x).
LARGE = 2.0**28


def _div(b: OpMethods, x: Node | float, y: Node) -> Node:
    return b.elementwise("div", x, y)


def _sqrt(b: OpMethods, x: Node) -> Node:
    return b.elementwise("sqrt", x)


def _high(b: OpMethods, part: float, x: Node) -> tuple[float, float]:
    """`part` of pi/2 as a sum of two numbers of the dtype of `x`."""
    if x.dtype.bits == 64:
        return HALF_PI[0] * part, HALF_PI[1] * part
    high = float(x.dtype.numpy.type(HALF_PI[0] * part))
    return high, HALF_PI[0] * part - high


def _atan(b: OpMethods, x: Node) -> Node:
    """Reduced to |y| <= tan(pi/8) by atan(a) = pi/2 + atan(-1/a) = pi/4 + atan((a-1)/(a+1))."""
    a = magnitude(b, x)
    large, middle = above(b, a, math.tan(3 * math.pi / 8)), above(b, a, math.tan(math.pi / 8))
    top = choose(b, large, -1.0, choose(b, middle, b.sub(a, 1.0), a, x), x)
    bottom = choose(b, large, a, choose(b, middle, b.add(a, 1.0), 1.0, x), x)
    y = b.div(top, bottom)
    z = b.mul(y, y)
    inner = b.mul(b.mul(y, z), horner(b, z, ATAN))
    two, one = _high(b, 1.0, x), _high(b, 0.5, x)
    rest = b.add(inner, choose(b, large, two[1], choose(b, middle, one[1], 0.0, x), x))
    made = b.add(choose(b, large, two[0], choose(b, middle, one[0], 0.0, x), x), b.add(y, rest))
    return signed_as(b, magnitude(b, made), x)


def _asin(b: OpMethods, x: Node) -> Node:
    """atan(x / sqrt(1 - x*x)) with the root of (1 - x)(1 + x)."""
    return b.apply("atan", (b.div(x, _sqrt(b, b.mul(b.sub(1.0, x), b.add(x, 1.0)))),))


def _acos(b: OpMethods, x: Node) -> Node:
    """2 * atan(sqrt((1 - x) / (1 + x)))."""
    return b.mul(b.apply("atan", (_sqrt(b, b.div(b.sub(1.0, x), b.add(x, 1.0))),)), 2.0)


def _atan2(b: OpMethods, y: Node, x: Node) -> Node:
    """The angle of the smaller over the larger side, then pi/2 or pi less it by octant, C's at zero and infinity."""
    v, u = magnitude(b, y), magnitude(b, x)
    short, long = b.elementwise("minimum", u, v), b.elementwise("maximum", u, v)
    ratio = b.div(short, long)
    ratio = choose(b, equal(b, long, 0.0), 0.0, choose(b, equal(b, short, math.inf), 1.0, ratio, x), x)
    angle = b.apply("atan", (ratio,))
    quarter, half = _high(b, 1.0, x), _high(b, 2.0, x)
    angle = choose(b, above(b, v, u), b.sub(quarter[0], b.sub(angle, quarter[1])), angle, x)
    angle = choose(b, is_negative(b, x), b.sub(half[0], b.sub(angle, half[1])), angle, x)
    return signed_as(b, magnitude(b, angle), y)


def _sinh(b: OpMethods, x: Node) -> Node:
    """(u + u/(u+1)) / 2 with u = expm1(|x|); for large x exp(x/2)**2 / 2, which overflows no sooner than the result."""
    a = magnitude(b, x)
    u = b.elementwise("expm1", a)
    small = b.mul(b.add(u, b.div(u, b.add(u, 1.0))), 0.5)
    root = b.exp(b.mul(a, 0.5))
    return signed_as(b, choose(b, above(b, a, 20.0), b.mul(b.mul(root, 0.5), root), small, x), x)


def _cosh(b: OpMethods, x: Node) -> Node:
    """(e + 1/e) / 2 with e = exp(|x|); for large x exp(x/2)**2 / 2."""
    a = magnitude(b, x)
    power, root = b.exp(a), b.exp(b.mul(a, 0.5))
    small = b.mul(b.add(power, _div(b, 1.0, power)), 0.5)
    return choose(b, above(b, a, 20.0), b.mul(b.mul(root, 0.5), root), small, x)


def _asinh(b: OpMethods, x: Node) -> Node:
    """log1p(a + a*a / (1 + sqrt(a*a + 1))) with a = |x|; log(a) + log(2) for large a."""
    a = magnitude(b, x)
    square = b.mul(a, a)
    inner = b.add(a, b.div(square, b.add(_sqrt(b, b.add(square, 1.0)), 1.0)))
    made = choose(b, above(b, a, LARGE), b.add(b.log(a), LN2), b.elementwise("log1p", inner), x)
    return signed_as(b, made, x)


def _acosh(b: OpMethods, x: Node) -> Node:
    """log1p(t + sqrt(t * (t + 2))) with t = x - 1; log(x) + log(2) for large x; NaN below 1."""
    t = b.sub(x, 1.0)
    inner = b.add(t, _sqrt(b, b.mul(t, b.add(t, 2.0))))
    made = choose(b, above(b, x, LARGE), b.add(b.log(x), LN2), b.elementwise("log1p", inner), x)
    return choose(b, below(b, x, 1.0), math.nan, made, x)


def _atanh(b: OpMethods, x: Node) -> Node:
    """log1p(2a / (1 - a)) / 2 with a = |x|."""
    a = magnitude(b, x)
    made = b.mul(b.elementwise("log1p", b.div(b.add(a, a), b.sub(1.0, a))), 0.5)
    return signed_as(b, made, x)


def _sinc(b: OpMethods, x: Node) -> Node:
    """sin(pi * x) / (pi * x), 1 at 0."""
    angle = b.mul(x, math.pi)
    return choose(b, equal(b, angle, 0.0), 1.0, b.div(b.elementwise("sin", angle), angle), x)


def _logit(b: OpMethods, x: Node) -> Node:
    return b.log(b.div(x, b.sub(1.0, x)))


# gradients, PyTorch's formulas


def _sinc_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """Zero where the square of x is."""
    x = node.inputs[0]
    angle, square = b.mul(x, math.pi), b.mul(b.mul(x, x), math.pi)
    zero = b.elementwise("eq", square, 0.0)
    top = b.sub(b.mul(angle, b.elementwise("cos", angle)), b.elementwise("sin", angle))
    return [b.select(zero, 0.0, b.mul(ct, b.div(top, b.select(zero, 1.0, square))))]


def _logit_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """NaN outside [0, 1]."""
    x = node.inputs[0]
    inside = b.elementwise("bitwise_and", b.elementwise("ge", x, 0.0), b.elementwise("le", x, 1.0))
    return [b.select(inside, b.div(ct, b.mul(x, b.sub(1.0, x))), math.nan)]


def _over_root(b: Builder, ct: Node, square: Node) -> Node:
    return b.mul(ct, b.div(b.constant(1, square.type), b.elementwise("sqrt", square)))


def _asin_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [_over_root(b, ct, b.sub(1.0, b.mul(x, x)))]


def _acos_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.neg(_over_root(b, ct, b.sub(1.0, b.mul(x, x))))]


def _atan_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.div(ct, b.add(b.mul(x, x), 1.0))]


def _atan2_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """Zero where both operands are."""
    y, x = node.inputs
    square = b.add(b.mul(y, y), b.mul(x, x))
    zero = b.elementwise("eq", square, 0.0)
    inverse = b.select(zero, 0.0, b.div(b.constant(1, x.type), b.select(zero, 1.0, square)))
    return [b.mul(b.mul(ct, x), inverse), b.mul(b.mul(ct, b.neg(y)), inverse)]


def _sinh_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("cosh", node.inputs[0]))]


def _cosh_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("sinh", node.inputs[0]))]


def _asinh_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [_over_root(b, ct, b.add(b.mul(x, x), 1.0))]


def _acosh_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [_over_root(b, ct, b.sub(b.mul(x, x), 1.0))]


def _atanh_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.div(ct, b.sub(1.0, b.mul(x, x)))]


for _name, _formula, _rule, _doc in (
    ("atan", _atan, _atan_vjp, "Arc tangent in radians."),
    ("asin", _asin, _asin_vjp, "Arc sine in radians, NaN outside [-1, 1]."),
    ("acos", _acos, _acos_vjp, "Arc cosine in radians, NaN outside [-1, 1]."),
    ("sinh", _sinh, _sinh_vjp, "Hyperbolic sine."),
    ("cosh", _cosh, _cosh_vjp, "Hyperbolic cosine."),
    ("asinh", _asinh, _asinh_vjp, "Inverse hyperbolic sine."),
    ("acosh", _acosh, _acosh_vjp, "Inverse hyperbolic cosine, NaN below 1."),
    ("atanh", _atanh, _atanh_vjp, "Inverse hyperbolic tangent, NaN outside [-1, 1]."),
    ("sinc", _sinc, _sinc_vjp, "sin(pi * x) / (pi * x), 1 at 0."),
    ("logit", _logit, _logit_vjp, "log(x / (1 - x)), NaN outside [0, 1]."),
):
    composite(_name, 1, _formula, f"{_doc} Float, any shape.", vjp=_rule)
composite("atan2", 2, _atan2, "The angle of the point (y, x), in [-pi, pi], as C's atan2. Float.", vjp=_atan2_vjp)
