"""Rules for constants (tensors with one value everywhere) and for tensors without elements."""

from __future__ import annotations

import math

import numpy as np

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.types import TensorType
from graphc.passes.pattern import Match, Number, Rule, any_of, const, op, same_number, var

x = var("x")

_ELEMENTWISE = tuple(name for name, record in OPS.items() if record.kind == "elementwise")
_COMPUTED = tuple(name for name, record in OPS.items() if record.kind != "source")
_WRITES = tuple(name for name, record in OPS.items() if record.kind == "indexing" and record.arity == 3)
_MOVES_FIRST = ("reshape", "permute", "broadcast", "slice", "window", "gather", "take_along")

# Up to these, whole numbers are exact, and so is each partial sum that stays below.
_EXACT_WHOLE = {"f64": 2.0**53, "f32": 2.0**24, "f16": 2.0**24, "bf16": 2.0**24}


def number_of(array: np.ndarray) -> Number:
    """The single element of `array` as a Python number."""
    kind = array.dtype.kind
    if kind == "b":
        return bool(array.item())
    return int(array.item()) if kind in "iu" else float(array.astype(np.float64).item())


def _all_constant(m: Match) -> bool:
    return all(operand.op == "constant" for operand in m.root.inputs)


def _evaluated(b: Builder, m: Match) -> Node:
    """The reference of the operator on one element of each operand."""
    node = m.root
    element = TensorType(node.dtype, ())
    with np.errstate(all="ignore"):
        scalars = [OPS["constant"].evaluate((), attrs_of(c), TensorType(c.dtype, ())) for c in node.inputs]
        value = OPS[node.op].evaluate(scalars, attrs_of(node), element)
    return b.constant(number_of(np.asarray(value)), node.type)


def _same_constant(b: Builder, m: Match) -> Node:
    return b.constant(m.value("c"), m.root.type)


def _concat_of_one_value(b: Builder, m: Match) -> Node | None:
    """All operands are constants of one value: interned values differ only in shape."""
    if not _all_constant(m):
        return None
    values = {repr(operand.attr("value")) for operand in m.root.inputs}
    return b.make("constant", (), m.root.inputs[0].attrs, m.root.type) if len(values) == 1 else None


def _pads_with_itself(m: Match) -> bool:
    inside, outside = m.value("c"), m.root.attr("value")
    return same_number(outside, inside) or (inside != inside and outside != outside)


def reduced_count(node: Node) -> int:
    """How many elements the reduction `node` takes together."""
    return math.prod(node.inputs[0].shape[a] for a in node.ints("axes"))


def _sum_is_exact(m: Match) -> bool:
    """Every partial sum of the constant is exact, so that the order of adding does not matter."""
    value, count = m.value("c"), reduced_count(m.root)
    if not m["c"].dtype.is_float:
        return True
    whole = math.isfinite(value) and value == math.floor(value)
    return whole and abs(value) * count <= _EXACT_WHOLE[m["c"].dtype.name] and not _overflows_half(m, value * count)


def _overflows_half(m: Match, total: float) -> bool:
    """A sum of f16 or bf16 is rounded at its end; only totals that stay exact are folded."""
    limit = {"f16": 2.0**11, "bf16": 2.0**8}.get(m["c"].dtype.name, math.inf)
    return abs(total) > limit


def _sum(b: Builder, m: Match) -> Node:
    value, count = m.value("c"), reduced_count(m.root)
    if m["c"].dtype.is_float:
        return b.constant(value * count + 0.0, m.root.type)
    return wrapped(b, int(value) * count, m.root.type)


def wrapped(b: Builder, value: int, type: TensorType) -> Node:
    """The integer constant `value` modulo the range of the dtype."""
    low = 0 if type.dtype.kind == "uint" else -(1 << (type.dtype.bits - 1))
    return b.constant((value - low) % (1 << type.dtype.bits) + low, type)


def _is_empty(m: Match) -> bool:
    return m.root.type.size == 0


def _reduces_nothing(m: Match) -> bool:
    return m.root.inputs[0].type.size == 0 and m.root.type.size > 0


CONSTANTS: tuple[Rule, ...] = (
    Rule("no-elements", any_of(_COMPUTED), lambda b, m: b.zeros_like(m.root), _is_empty),
    Rule("sum-of-nothing", op("reduce_sum", x), lambda b, m: b.zeros_like(m.root), _reduces_nothing),
    Rule("product-of-nothing", op("reduce_prod", x), lambda b, m: b.constant(1, m.root.type), _reduces_nothing),
    Rule("any-of-nothing", op("reduce_max", x), lambda b, m: b.constant(False, m.root.type), _reduces_nothing),
    Rule("all-of-nothing", op("reduce_min", x), lambda b, m: b.constant(True, m.root.type), _reduces_nothing),
    Rule(
        "contract-of-nothing",
        op("contract", x, var("y")),
        lambda b, m: b.zeros_like(m.root),
        lambda m: m.root.type.size > 0 and any(operand.type.size == 0 for operand in m.root.inputs),
    ),
    Rule(
        "write-of-nothing", any_of(_WRITES), lambda b, m: m.root.inputs[0], lambda m: m.root.inputs[2].type.size == 0
    ),
    Rule("fold-constants", any_of(_ELEMENTWISE), _evaluated, _all_constant),
    *(
        Rule(f"{name}-of-constant", op(name, const("c"), *([var("index")] if name in ("gather", "take_along") else [])),
             _same_constant)
        for name in _MOVES_FIRST
    ),
    Rule("pad-of-constant", op("pad", const("c")), _same_constant, _pads_with_itself),
    Rule("concat-of-constant", any_of(("concat",)), _concat_of_one_value),
    Rule("fold-of-zeros", op("fold", const("c")), lambda b, m: b.zeros_like(m.root), lambda m: m.value("c") == 0),
    Rule(
        "extreme-of-constant", op(("reduce_max", "reduce_min"), const("c")), _same_constant,
        lambda m: reduced_count(m.root) > 0,
    ),
    Rule("sum-of-constant", op("reduce_sum", const("c")), _sum, _sum_is_exact),
    Rule(
        "iota-of-one", op("iota"), lambda b, m: b.zeros_like(m.root),
        lambda m: m.root.shape[m.root.integer("axis")] <= 1,
    ),
)  # fmt: skip
