"""Rules for bits, comparisons and `select`."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.passes.pattern import Match, Rule, const, op, var

x, y, z, c, k = var("x"), var("y"), var("z"), var("c"), const("k")


def _truth(value: bool) -> Callable[[Builder, Match], Node]:
    """Makes the constant `value` of the root's type."""

    def make(b: Builder, m: Match) -> Node:
        return b.constant(value, m.root.type)

    return make


_BITS = (
    Rule("not-not", ~(~x), x),
    Rule("and-self", x & x, x),
    Rule("or-self", x | x, x),
    Rule("xor-self", x ^ x, lambda b, m: b.zeros_like(m["x"])),
    Rule("and-zero", x & 0, lambda b, m: b.zeros_like(m["x"])),
    Rule("or-zero", x | 0, x),
    Rule("xor-zero", x ^ 0, x),
    Rule("and-all-ones", x & -1, x),
    Rule("or-all-ones", x | -1, lambda b, m: b.constant(-1, m["x"].type)),
    Rule("and-true", x & True, x),
    Rule("and-false", x & False, _truth(False)),
    Rule("or-true", x | True, _truth(True)),
    Rule("or-false", x | False, x),
    Rule("xor-true", x ^ True, ~x),
    Rule("xor-false", x ^ False, x),
)

_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}

_COMPARISONS = (
    # With NaN a comparison with itself is false, so these hold for integers and bools alone.
    Rule("equal-self", op(("eq", "le", "ge"), x, x), _truth(True), lambda m: not m["x"].dtype.is_float),
    Rule("less-self", op(("ne", "lt", "gt"), x, x), _truth(False), lambda m: not m["x"].dtype.is_float),
    Rule("not-eq", ~op("eq", x, y), op("ne", x, y)),
    Rule("not-ne", ~op("ne", x, y), op("eq", x, y)),
    *(Rule(f"not-{a}", ~op(a, x, y), op(b, x, y), lambda m: not m["x"].dtype.is_float) for a, b in _OPPOSITE.items()),
    *(Rule(f"constant-{a}", op(a, k, x), op(b, x, k), lambda m: m["x"].op != "constant") for a, b in _MIRRORED.items()),
    Rule("eq-true", op("eq", x, True), x),
    Rule("eq-false", op("eq", x, False), ~x),
    Rule("ne-true", op("ne", x, True), ~x),
    Rule("ne-false", op("ne", x, False), x),
    # relu(x) <= 0 holds where x <= 0: elsewhere relu(x) is x, which is positive or NaN.
    Rule("relu-le-zero", op("le", op("select", op("le", x, 0), 0, x), 0), lambda b, m: b.elementwise("le", m["x"], 0)),
)

_SELECT = (
    Rule("select-true", op("select", True, x, y), x),
    Rule("select-false", op("select", False, x, y), y),
    Rule("select-same", op("select", c, x, x), x),
    Rule("select-not", op("select", ~c, x, y), op("select", c, y, x)),
    Rule("select-true-false", op("select", c, True, False), c),
    Rule("select-false-true", op("select", c, False, True), ~c),
    Rule("select-select-left", op("select", c, op("select", c, x, y), z), op("select", c, x, z)),
    Rule("select-select-right", op("select", c, x, op("select", c, y, z)), op("select", c, x, z)),
)

_CLAMPED = (
    rule
    for inside, outside, extreme in (("ge", "lt", "maximum"), ("le", "gt", "minimum"))
    for rule in (
        # NaN stays NaN, and of two zeros x is taken.
        Rule(
            f"bounded-by-{extreme}",
            op("select", op(inside, x, k), x, op(extreme, x, k)),
            op("select", op(outside, x, k), k, x),
            lambda m: not math.isnan(m.value("k")),
            domain="float",
        ),
        Rule(
            f"bounded-by-{extreme}-of-integers",
            op("select", op(inside, x, y), x, op(extreme, x, y)),
            op(extreme, x, y),
            domain="integer",
        ),
    )
)

LOGIC: tuple[Rule, ...] = (*_BITS, *_COMPARISONS, *_SELECT, *_CLAMPED)
