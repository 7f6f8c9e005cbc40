"""Bessel functions, as formulas of other operators; gradients are PyTorch's formulas, where PyTorch has some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.ops import bessel_tables as tables
from graphc.ir.ops.composites import (
    Formula,
    Table,
    above,
    below,
    choose,
    composite,
    equal,
    horner,
    magnitude,
    signed_as,
)
from graphc.ir.sugar import OpMethods

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]

NO_GRADIENT = "undefined: PyTorch has none"


def _over(b: OpMethods, number: float, x: Node) -> Node:
    return b.elementwise("div", number, x)


def _least(b: OpMethods, x: Node, bound: float) -> Node:
    return b.elementwise("minimum", x, b.constant(bound, x.type))


def _most(b: OpMethods, x: Node, bound: float) -> Node:
    return b.elementwise("maximum", x, b.constant(bound, x.type))


# modified functions of the first kind


def _scaled(b: OpMethods, a: Node, near: Table, far: Table) -> tuple[Node, Node]:
    """exp(-a) I(a) on [0, 8] (over a for order 1), and from 8 on."""
    low = horner(b, b.sub(b.mul(_least(b, a, 8.0), 0.25), 1.0), near)
    inverse = b.sub(_over(b, 16.0, _most(b, a, 8.0)), 1.0)
    return low, b.div(horner(b, inverse, far), b.elementwise("sqrt", a))


def _i0e(b: OpMethods, x: Node) -> Node:
    a = magnitude(b, x)
    low, high = _scaled(b, a, tables.I0_NEAR, tables.I0_FAR)
    return choose(b, above(b, a, 8.0), high, low, x)


def _i1e(b: OpMethods, x: Node) -> Node:
    a = magnitude(b, x)
    low, high = _scaled(b, a, tables.I1_NEAR, tables.I1_FAR)
    return signed_as(b, choose(b, above(b, a, 8.0), high, b.mul(low, a), x), x)


def _grown(name: str) -> Formula:
    """The function itself: exp(|x|), as two factors, times the scaled one."""

    def formula(b: OpMethods, x: Node) -> Node:
        a = magnitude(b, x)
        root = b.exp(b.mul(a, 0.5))
        made = b.mul(b.mul(b.elementwise(name, x), root), root)
        infinite = equal(b, a, math.inf)
        return choose(b, infinite, x if name == "i1e" else a, made, x)

    return formula


def _ratio(b: Builder, node: Node, x: Node) -> Node:
    """node / x, 1/2 at 0."""
    zero = b.elementwise("eq", x, 0.0)
    return b.select(zero, 0.5, b.div(node, b.select(zero, 1.0, x)))


def _i0_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("i1", node.inputs[0]))]


def _i0e_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.mul(ct, b.sub(b.elementwise("i1e", x), b.mul(b.elementwise("sign", x), node)))]


def _i1_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.mul(ct, b.sub(b.elementwise("i0", x), _ratio(b, node, x)))]


def _i1e_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    slope = b.sub(b.elementwise("i0e", x), _ratio(b, node, x))
    return [b.mul(ct, b.sub(slope, b.mul(b.elementwise("sign", x), node)))]


composite("i0e", 1, _i0e, "exp(-|x|) * i0(x). Float, any shape.", vjp=_i0e_vjp)
composite("i1e", 1, _i1e, "exp(-|x|) * i1(x). Float, any shape.", vjp=_i1e_vjp)
composite("i0", 1, _grown("i0e"), "Modified Bessel function of the first kind, order 0. Float.", vjp=_i0_vjp)
composite("i1", 1, _grown("i1e"), "Modified Bessel function of the first kind, order 1. Float.", vjp=_i1_vjp)


# modified functions of the second kind


def _second(order: int, scaled: bool) -> Formula:
    near, far = ((tables.K0_NEAR, tables.K0_FAR), (tables.K1_NEAR, tables.K1_FAR))[order]

    def formula(b: OpMethods, x: Node) -> Node:
        bounded = _least(b, x, 2.0)
        poly = horner(b, b.sub(b.mul(b.mul(bounded, bounded), 0.5), 1.0), near)
        log = b.log(b.mul(bounded, 0.5))
        if order:
            inner = b.add(b.mul(bounded, poly), _over(b, 1.0, bounded))
            low = b.add(b.mul(log, b.elementwise("i1", bounded)), inner)
        else:
            low = b.sub(poly, b.mul(log, b.elementwise("i0", bounded)))
        high = b.div(horner(b, b.sub(_over(b, 4.0, _most(b, x, 2.0)), 1.0), far), b.elementwise("sqrt", x))
        if scaled:
            low = b.mul(low, b.exp(bounded))
        else:
            high = b.mul(high, b.exp(b.neg(x)))
        made = choose(b, above(b, x, 2.0), high, low, x)
        made = choose(b, equal(b, x, 0.0), math.inf, made, x)
        return choose(b, below(b, x, 0.0), math.nan, made, x)

    return formula


# functions of the first and second kind


def _oscillating(kind: str, order: int) -> Formula:
    near = {"j": (tables.J0_NEAR, tables.J1_NEAR), "y": (tables.Y0_NEAR, tables.Y1_NEAR)}[kind][order]
    first = (tables.J0_NEAR, tables.J1_NEAR)[order]
    p, q = ((tables.P0_FAR, tables.Q0_FAR), (tables.P1_FAR, tables.Q1_FAR))[order]

    def formula(b: OpMethods, x: Node) -> Node:
        a = magnitude(b, x)
        low_a = _least(b, a, 8.0)
        t = b.sub(b.mul(b.mul(low_a, low_a), 1 / 32), 1.0)
        low = horner(b, t, near)
        low = b.mul(low, low_a) if order else low
        if kind == "y":
            bessel = horner(b, t, first)
            bessel = b.mul(bessel, low_a) if order else bessel
            inner = b.mul(b.log(low_a), bessel)
            inner = b.sub(inner, _over(b, 1.0, low_a)) if order else inner
            low = b.add(low, b.mul(inner, 2 / math.pi))
        far = _most(b, a, 8.0)
        ratio = _over(b, 8.0, far)
        u = b.sub(b.mul(b.mul(ratio, ratio), 2.0), 1.0)
        big_p, big_q = horner(b, u, p), b.mul(horner(b, u, q), ratio)
        # sin and cos of x - pi/4 (order 1: x - 3/4 pi) by those of x, so that the shift does not round.
        sine, cosine = b.elementwise("sin", far), b.elementwise("cos", far)
        plus, minus = b.add(sine, cosine), b.sub(sine, cosine)
        c, s = (plus, minus) if not order else (minus, b.neg(plus))
        wave = b.sub(b.mul(big_p, c), b.mul(big_q, s)) if kind == "j" else b.add(b.mul(big_p, s), b.mul(big_q, c))
        high = b.div(wave, b.elementwise("sqrt", b.mul(far, math.pi)))
        made = choose(b, above(b, a, 8.0), choose(b, equal(b, a, math.inf), 0.0, high, x), low, x)
        if kind == "y":
            made = choose(b, equal(b, x, 0.0), -math.inf, made, x)
            return choose(b, below(b, x, 0.0), math.nan, made, x)
        return choose(b, below(b, x, 0.0), b.neg(made), made, x) if order else made

    return formula


for _order in (0, 1):
    for _kind, _word in (("j", "first"), ("y", "second")):
        composite(
            f"bessel_{_kind}{_order}", 1, _oscillating(_kind, _order),
            f"Bessel function of the {_word} kind, order {_order}. Float.", why=NO_GRADIENT,
        )  # fmt: skip
    composite(
        f"modified_bessel_k{_order}", 1, _second(_order, False),
        f"Modified Bessel function of the second kind, order {_order}. Float.", why=NO_GRADIENT,
    )  # fmt: skip
    composite(
        f"scaled_modified_bessel_k{_order}", 1, _second(_order, True),
        f"exp(x) times the modified Bessel function of the second kind, order {_order}. Float.", why=NO_GRADIENT,
    )  # fmt: skip
