"""Rules for chains of conversions."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.narrow import HALVES
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.passes.pattern import Match, Rule, any_of, op, var

x, y = var("x"), var("y")

_MANTISSA = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}
_EXPONENT = {"f64": 11, "f32": 8, "f16": 5, "bf16": 8}


def keeps_all(source: DType, target: DType) -> bool:
    """Whether every value of `source` is a value of `target`, zeros' signs included."""
    if source is target or source.kind == "bool":
        return source is target or target.kind != "bool"
    if source.is_float:
        return (
            target.is_float
            and _MANTISSA[target.name] >= _MANTISSA[source.name]
            and _EXPONENT[target.name] >= _EXPONENT[source.name]
        )
    signed = source.kind == "int"
    if target.is_float:
        return source.bits - signed <= _MANTISSA[target.name] and source.bits <= 2 ** (_EXPONENT[target.name] - 1)
    if not target.is_integer:
        return False
    return source.bits <= target.bits if target.kind == source.kind else not signed and source.bits < target.bits


def _inner_keeps_all(m: Match) -> bool:
    return keeps_all(m["x"].dtype, m["inner"].dtype)


def _to_half(m: Match) -> bool:
    return m.root.dtype in HALVES


def _spread(m: Match) -> bool:
    return _to_half(m) and m["y"].op == "broadcast"


def _rounded(b: Builder, m: Match) -> Node:
    return b.reshape(b.cast(m["product"], m.root.dtype), m.root.shape)


def _biased(b: Builder, m: Match) -> Node:
    product = m["product"]
    return b.reshape(b.cast(b.add(product, b.reshape(m["y"], product.shape)), m.root.dtype), m.root.shape)


_PRODUCT = op("reshape", any_of(("contract",)).named("product"))

CASTS: tuple[Rule, ...] = (
    Rule("cast-same", op("cast", x), x, lambda m: m.root.dtype is m["x"].dtype),
    # x passes through a type that holds all its values: the second conversion sees the same number.
    Rule(
        "cast-cast",
        op("cast", op("cast", x).named("inner")),
        lambda b, m: b.cast(m["x"], m.root.dtype),
        _inner_keeps_all,
    ),
    # A linear layer of many dimensions multiplies matrices: its result is rounded as one too, where it is computed.
    Rule("round-reshaped-product", op("cast", _PRODUCT), _rounded, _to_half),
    Rule("round-reshaped-biased", op("cast", op("add", _PRODUCT, y)), _biased, _spread),
    # A bool as a number is 0 or 1.
    Rule("bool-number-ne-zero", op("ne", op("cast", x), 0), x, domain="bool"),
    Rule("bool-number-eq-zero", op("eq", op("cast", x), 0), ~x, domain="bool"),
)
