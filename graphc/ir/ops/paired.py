"""Functions of two floats, as formulas of other operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.ops.composites import Formula, choose, composite, equal, magnitude, signed_as
from graphc.ir.sugar import OpMethods

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def _hypot(b: OpMethods, x: Node, y: Node) -> Node:
    """long * sqrt(1 + (short / long)**2), which neither overflows nor underflows; infinite where either is."""
    u, v = magnitude(b, x), magnitude(b, y)
    short, long = b.elementwise("minimum", u, v), b.elementwise("maximum", u, v)
    ratio = b.div(short, long)
    made = b.mul(long, b.elementwise("sqrt", b.add(b.mul(ratio, ratio), 1.0)))
    made = choose(b, equal(b, long, 0.0), 0.0, made, x)
    infinite = b.elementwise("bitwise_or", equal(b, u, math.inf), equal(b, v, math.inf))
    return choose(b, infinite, math.inf, made, x)


def _hypot_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x, y = node.inputs
    return [b.mul(ct, b.div(x, node)), b.mul(ct, b.div(y, node))]


def _logaddexp(base: float) -> Formula:
    def formula(b: OpMethods, x: Node, y: Node) -> Node:
        """max + log(1 + base**-|x - y|); the operand itself where both are the same infinity."""
        largest = b.elementwise("maximum", x, y)
        off = b.neg(magnitude(b, b.sub(x, y)))
        small = b.exp(off) if base == math.e else b.elementwise("pow", b.constant(base, off.type), off)
        rest = b.elementwise("log1p", small)
        rest = rest if base == math.e else b.mul(rest, 1 / math.log(base))
        same = b.elementwise("bitwise_and", equal(b, x, y), equal(b, magnitude(b, x), math.inf))
        return b.select(same, x, b.add(largest, rest))

    return formula


def _logaddexp_vjp(base: float) -> Callable[[Builder, Node, Node], Gradients]:
    def vjp(b: Builder, node: Node, ct: Node) -> Gradients:
        x, y = node.inputs

        def share(of: Node, other: Node) -> Node:
            off = b.sub(other, of)
            power = b.exp(off) if base == math.e else b.elementwise("pow", b.constant(base, off.type), off)
            return b.div(ct, b.add(power, 1.0))

        return [share(x, y), share(y, x)]

    return vjp


def _x_times(log: Callable[[OpMethods, Node], Node]) -> Formula:
    def formula(b: OpMethods, x: Node, y: Node) -> Node:
        """x * log(y), 0 where x is 0 and y is a number."""
        number = b.elementwise("eq", y, y)
        none = b.elementwise("bitwise_and", equal(b, x, 0.0), number)
        return choose(b, none, 0.0, b.mul(x, log(b, y)), x)

    return formula


def _log(b: OpMethods, y: Node) -> Node:
    return b.log(y)


def _log1p(b: OpMethods, y: Node) -> Node:
    return b.elementwise("log1p", y)


def _xlogy_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """PyTorch's: for x, 0 where x is 0 and y is not positive."""
    x, y = node.inputs
    flat = b.elementwise("bitwise_and", b.elementwise("eq", x, 0.0), b.elementwise("le", y, 0.0))
    slope = b.select(flat, 0.0, b.log(b.select(flat, 1.0, y)))
    return [b.mul(ct, slope), b.div(b.mul(ct, x), y)]


def _xlog1py_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """PyTorch's: for x, 0 where x is 0 and y is not above -1."""
    x, y = node.inputs
    flat = b.elementwise("bitwise_and", b.elementwise("eq", x, 0.0), b.elementwise("le", y, -1.0))
    slope = b.select(flat, 0.0, b.elementwise("log1p", b.select(flat, 0.0, y)))
    return [b.mul(ct, slope), b.div(b.mul(ct, x), b.add(y, 1.0))]


def _copysign(b: OpMethods, x: Node, y: Node) -> Node:
    return signed_as(b, magnitude(b, x), y)


def _copysign_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    """Zero where x is."""
    x = node.inputs[0]
    zero = b.elementwise("eq", x, 0.0)
    return [b.mul(ct, b.select(zero, 0.0, b.div(node, b.select(zero, 1.0, x)))), None]


composite("copysign", 2, _copysign, "|x| with the sign of y. Float.", vjp=_copysign_vjp)
composite("hypot", 2, _hypot, "sqrt(x*x + y*y) without overflow. Float.", vjp=_hypot_vjp)
composite("logaddexp", 2, _logaddexp(math.e), "log(exp(x) + exp(y)). Float.", vjp=_logaddexp_vjp(math.e))
composite("logaddexp2", 2, _logaddexp(2.0), "log2(2**x + 2**y). Float.", vjp=_logaddexp_vjp(2.0))
composite("xlogy", 2, _x_times(_log), "x * log(y), 0 where x is 0. Float.", vjp=_xlogy_vjp)
composite("xlog1py", 2, _x_times(_log1p), "x * log(1 + y), 0 where x is 0. Float.", vjp=_xlog1py_vjp)
