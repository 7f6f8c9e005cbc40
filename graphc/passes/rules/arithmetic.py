"""Rules for arithmetic on numbers.

For floats: `x + 0.0` is not `x` (x may be -0.0), `x * 0` is not 0 and `x - x` is not 0 (x may be infinite or NaN).
"""

from __future__ import annotations

import math

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.passes.pattern import Match, Rule, any_of, const, op, var

x, y, c, d = var("x"), var("y"), const("c"), const("d")


def _is_constant(node: Node) -> bool:
    return node.op == "constant"


def _is_power_of_two(m: Match) -> bool:
    """c is a power of two, and its reciprocal a normal number of the type: both ways of scaling round alike."""
    value = m.value("c")
    mantissa, exponent = math.frexp(value) if math.isfinite(value) and value else (0.0, 0)
    limit = {"f64": 1000, "f32": 120, "f16": 12, "bf16": 120}[m["x"].dtype.name]
    return abs(mantissa) == 0.5 and abs(exponent) < limit


def _fold(name: str, outer: str, inner: str) -> Rule:
    """(x inner c) outer d with the constants gathered: both are the same operator."""

    def gather(b: Builder, m: Match) -> Node:
        return b.elementwise(outer, m["x"], b.elementwise(inner, m["c"], m["d"]))

    return Rule(name, op(outer, op(inner, x, c), d), gather, domain="integer")


_IDENTITIES = (
    Rule("mul-one", x * 1, x, domain="number"),
    Rule("div-one", x / 1, x),
    Rule("sub-zero", x - 0, x, domain="number"),
    Rule("add-minus-zero", x + -0.0, x, domain="float"),
    Rule("add-zero-integer", x + 0, x, domain="integer"),
    Rule("add-zero", x + 0.0, x, exactness="no_signed_zeros", domain="float"),
    Rule("sub-minus-zero", x - (-0.0), x, exactness="no_signed_zeros", domain="float"),
    Rule("mul-zero-integer", x * 0, lambda b, m: b.zeros_like(m["x"]), domain="integer"),
    Rule("mul-zero", x * 0.0, lambda b, m: b.zeros_like(m["x"]), exactness="no_nans", domain="float"),
    Rule("sub-self-integer", x - x, lambda b, m: b.zeros_like(m["x"]), domain="integer"),
    Rule("sub-self", x - x, lambda b, m: b.zeros_like(m["x"]), exactness="no_nans", domain="float"),
    Rule("floor-divide-one-integer", op("floor_divide", x, 1), x, domain="integer"),
    Rule("remainder-one-integer", op("remainder", x, 1), lambda b, m: b.zeros_like(m["x"]), domain="integer"),
    Rule("shift-zero", op(("shift_left", "shift_right", "shift_right_logical"), x, 0), x),
    Rule("maximum-self", op("maximum", x, x), x),
    Rule("minimum-self", op("minimum", x, x), x),
    Rule("maximum-minus-infinity", op("maximum", x, -math.inf), x),
    Rule("minimum-infinity", op("minimum", x, math.inf), x),
    Rule("pow-one", x**1, x),
    Rule("pow-zero", x**0, lambda b, m: b.constant(1, m["x"].type)),
    # The reference rounds the square correctly too: it computes powers in f64 (f32), and pow is exact there for
    # squares.
    Rule("pow-two", x**2, x * x),
)

_SIGNS = (
    Rule("neg-neg", op("neg", -x), x),
    Rule("mul-minus-one", x * -1, -x, domain="signed"),
    Rule("div-minus-one", x / -1, -x),
    Rule("add-neg", x + (-y), x - y),
    Rule("sub-neg", x - (-y), x + y),
    Rule("minus-zero-sub", -0.0 - x, -x, domain="float"),
    Rule("zero-sub-integer", 0 - x, -x, domain="integer"),
    Rule("zero-sub", 0.0 - x, -x, exactness="no_signed_zeros", domain="float"),
    Rule("neg-sub-integer", -(x - y), y - x, domain="integer"),
    Rule("neg-sub", -(x - y), y - x, exactness="no_signed_zeros", domain="float"),
    Rule("mul-neg-neg", (-x) * (-y), x * y),
    Rule("div-neg-neg", (-x) / (-y), x / y),
    Rule("abs-abs", op("abs", op("abs", x)), op("abs", x)),
    Rule("abs-neg", op("abs", -x), op("abs", x), domain="signed"),
    Rule("abs-unsigned", op("abs", x), x, condition=lambda m: m["x"].dtype.kind == "uint"),
    Rule("square-abs", op("abs", x).named("a") * op("abs", x).named("a"), x * x, domain="signed"),
    Rule("sign-sign", op("sign", op("sign", x)), op("sign", x)),
)

_ROUNDING = tuple(
    Rule(f"{outer}-of-whole", op(outer, op(("floor", "ceil", "round", "trunc"), x).named("whole")), var("whole"))
    for outer in ("floor", "ceil", "round", "trunc")
)

_CONSTANTS_TOGETHER = (
    # Equal expressions become one node when constants always stand on the right.
    Rule(
        "constant-right",
        any_of(("add", "mul", "maximum", "minimum", "eq", "ne", "bitwise_and", "bitwise_or", "bitwise_xor")),
        lambda b, m: b.elementwise(m.root.op, m.root.inputs[1], m.root.inputs[0]),
        condition=lambda m: _is_constant(m.root.inputs[0]) and not _is_constant(m.root.inputs[1]),
    ),
    Rule("div-power-of-two", x / c, lambda b, m: b.mul(m["x"], 1 / m.value("c")), condition=_is_power_of_two),
    _fold("add-add-integer", "add", "add"),
    _fold("mul-mul-integer", "mul", "mul"),
    Rule("add-add", (x + c) + d, lambda b, m: b.add(m["x"], b.add(m["c"], m["d"])), None, "reassociates", "float"),
    Rule("mul-mul", (x * c) * d, lambda b, m: b.mul(m["x"], b.mul(m["c"], m["d"])), None, "reassociates", "float"),
)

ARITHMETIC: tuple[Rule, ...] = _IDENTITIES + _SIGNS + _ROUNDING + _CONSTANTS_TOGETHER
