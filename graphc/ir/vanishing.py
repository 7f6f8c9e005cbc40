"""Where terms of a sum vanish: which steps of a row a mask that is computed from their numbers leaves out, as in causal
attention, so that nobody has to go there.
"""

from __future__ import annotations

import math

from graphc.ir.access import SINGLE_READ, Index
from graphc.ir.demand import Demands
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import i32, i64
from graphc.ir.visit import topological

_ORDERS = {
    "le": (1, 0),
    "lt": (1, -1),
    "ge": (-1, 0),
    "gt": (-1, -1),
}  # of which side the first operand is, and by what


@record
class Limit:
    """Steps count for a row only where `side * step <= side * row + offset`; `side` is 1 or -1."""

    side: int
    offset: int


_Limits = frozenset[Limit]
_NONE: _Limits = frozenset()


def limits_of(term: Node, walk: Demands, row: Var, step: Var, lowest: bool) -> frozenset[Limit]:
    """Limits past which `term`, whose computation is `walk`, is 0 or, if `lowest`, -inf. What that is multiplied with
    is taken for finite.
    """
    nodes = topological((term,), stop=lambda node: node not in walk.indices)
    conditions = {
        node: _conditions(node.inputs[0], walk, row, step)
        for node in nodes
        if node.op == "select" and node in walk.indices
    }
    every: _Limits = frozenset().union(*conditions.values())
    if not every:
        return _NONE
    zero: dict[Node, _Limits] = {}
    low: dict[Node, _Limits] = {}
    for node in nodes:
        inside = node in walk.indices
        zeros = [zero[i] for i in node.inputs] if inside else []
        lows = [low[i] for i in node.inputs] if inside else []
        zero[node], low[node] = _NONE, _NONE
        if node.op == "constant":
            zero[node] = every if node.attr("value") == 0 else _NONE
            low[node] = every if node.attr("value") == -math.inf else _NONE
        elif node.op in SINGLE_READ or node.op == "cast":
            zero[node], low[node] = (zeros[0], lows[0]) if inside and node.op != "pad" else (_NONE, _NONE)
        elif not inside:
            continue
        elif node.op == "select":
            chosen = conditions[node]
            zero[node] = (zeros[1] | chosen) & zeros[2]
            low[node] = (lows[1] | chosen) & lows[2]
        elif node.op == "exp":
            zero[node] = lows[0]
        elif node.op == "neg":
            zero[node] = zeros[0]
        elif node.op in ("add", "sub"):
            zero[node] = zeros[0] & zeros[1]
            low[node] = lows[0] | (lows[1] if node.op == "add" else _NONE)
        elif node.op == "mul":
            zero[node] = zeros[0] | zeros[1]
            scaled = [lows[1 - n] for n, x in enumerate(node.inputs) if _is_positive(x)]
            low[node] = scaled[0] if scaled else _NONE
        elif node.op == "div":
            zero[node] = zeros[0]
            low[node] = lows[0] if _is_positive(node.inputs[1]) else _NONE
    return low[term] if lowest else zero[term]


def _is_positive(node: Node) -> bool:
    """Whether the node is a number above 0."""
    while node.op in ("broadcast", "reshape", "cast"):
        node = node.inputs[0]
    value = node.attr("value") if node.op == "constant" else 0
    return isinstance(value, (int, float)) and 0 < value < math.inf


def _conditions(node: Node, walk: Demands, row: Var, step: Var) -> _Limits:
    """Limits past which the condition `node` does not hold."""
    while node.op in SINGLE_READ and node.op != "pad":
        node = node.inputs[0]
    if node.op == "bitwise_and":
        first, second = (_conditions(i, walk, row, step) for i in node.inputs)
        return first | second
    places = walk.indices.get(node, {})
    if node.op not in _ORDERS or len(places) != 1:
        return _NONE
    (at,) = places
    sides = [_number(i, at) for i in node.inputs]
    if any(side is None for side in sides):
        return _NONE
    first, second = (side for side in sides if side is not None)
    sign, closer = _ORDERS[node.op]
    # sign * first <= sign * second + closer
    apart = first + second * -1
    by_step, by_row = apart.coefficient(step), apart.coefficient(row)
    if {by_step, by_row} != {1, -1} or len(apart.terms) != 2:
        return _NONE
    side = sign * by_step
    return frozenset({Limit(side, closer - sign * apart.const)})


def _number(node: Node, at: Index) -> Ix | None:
    """The whole number that `node` is at an index, if that follows from the index. Narrow integers may wrap."""
    if node.dtype not in (i32, i64):
        return None
    if node.op == "iota":
        return at[node.integer("axis")]
    if node.op == "constant":
        value = node.attr("value")
        return Ix(value) if isinstance(value, int) else None
    if node.op in ("broadcast", "reshape", "slice", "permute"):
        return _number(node.inputs[0], SINGLE_READ[node.op](node, at).at)
    if node.op == "cast":
        return _number(node.inputs[0], at)
    if node.op in ("add", "sub"):
        first, second = (_number(i, at) for i in node.inputs)
        if first is None or second is None:
            return None
        return first + second * (1 if node.op == "add" else -1)
    return None
