"""Gradient rules of the elementwise operators. Each gives one gradient per operand from the cotangent of the result.

Formulas are the textbook derivatives; at kinks and poles they take PyTorch's values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def materialize(b: Builder, node: Node, ct: Node) -> Gradients:
    return (ct,)


def exp(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, node)]


def exp2(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.mul(node, math.log(2)))]


def log(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.div(ct, node.inputs[0])]


def log2(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.div(ct, b.mul(node.inputs[0], math.log(2.0)))]


def log10(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.div(ct, b.mul(node.inputs[0], math.log(10.0)))]


def log1p(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.div(ct, b.add(node.inputs[0], 1.0))]


def expm1(b: Builder, node: Node, ct: Node) -> Gradients:
    # One more than the result is zero where that rounds to -1.
    return [b.mul(ct, b.elementwise("exp", node.inputs[0]))]


def sqrt(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.div(ct, b.mul(node, 2.0))]


def sin(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("cos", node.inputs[0]))]


def cos(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.neg(b.mul(ct, b.elementwise("sin", node.inputs[0])))]


def tanh(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.sub(1.0, b.mul(node, node)))]


def sigmoid(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.mul(node, b.sub(1.0, node)))]


def erf(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    return [b.mul(ct, b.mul(b.exp(b.neg(b.mul(x, x))), 2 / math.sqrt(math.pi)))]


def div(b: Builder, node: Node, ct: Node) -> Gradients:
    y = node.inputs[1]
    return [b.div(ct, y), b.neg(b.mul(ct, b.div(node, y)))]


def pow(b: Builder, node: Node, ct: Node) -> Gradients:
    """y * x**(y-1), but 0 where y is 0; x**y * log(x), but 0 where x is 0 and y is not negative."""
    x, y = node.inputs
    zero = b.zeros_like(x)
    slope = b.mul(y, b.elementwise("pow", x, b.sub(y, 1.0)))
    flat = b.elementwise("bitwise_and", b.elementwise("eq", x, zero), b.elementwise("ge", y, zero))
    growth = b.mul(node, b.log(b.select(flat, 1.0, x)))
    return [
        b.mul(ct, b.select(b.elementwise("eq", y, zero), zero, slope)),
        b.mul(ct, b.select(flat, zero, growth)),
    ]


def neg(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.neg(ct)]


def abs(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.mul(ct, b.elementwise("sign", node.inputs[0]))]


def add(b: Builder, node: Node, ct: Node) -> Gradients:
    return [ct, ct]


def sub(b: Builder, node: Node, ct: Node) -> Gradients:
    return [ct, b.neg(ct)]


def mul(b: Builder, node: Node, ct: Node) -> Gradients:
    x, y = node.inputs
    return [b.mul(ct, y), b.mul(ct, x)]


def _larger_or_smaller(b: Builder, node: Node, ct: Node, loses: str, wins: str) -> Gradients:
    x, y = node.inputs
    shared = b.select(b.elementwise("eq", x, y), b.mul(ct, 0.5), ct)
    return [b.select(b.elementwise(loses, x, y), 0.0, shared), b.select(b.elementwise(wins, x, y), 0.0, shared)]


def maximum(b: Builder, node: Node, ct: Node) -> Gradients:
    """Halved at ties; where an operand is NaN both get the cotangent."""
    return _larger_or_smaller(b, node, ct, "lt", "gt")


def minimum(b: Builder, node: Node, ct: Node) -> Gradients:
    """Halved at ties; where an operand is NaN both get the cotangent."""
    return _larger_or_smaller(b, node, ct, "gt", "lt")


def remainder(b: Builder, node: Node, ct: Node) -> Gradients:
    x, y = node.inputs
    return [ct, b.neg(b.mul(ct, b.elementwise("floor_divide", x, y)))]


def fmod(b: Builder, node: Node, ct: Node) -> Gradients:
    x, y = node.inputs
    return [ct, b.neg(b.mul(ct, b.elementwise("trunc", b.div(x, y))))]


def select(b: Builder, node: Node, ct: Node) -> Gradients:
    condition = node.inputs[0]
    return [None, b.select(condition, ct, 0.0), b.select(condition, 0.0, ct)]
