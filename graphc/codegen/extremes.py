"""Places of extremes (`argmax`, `argmin`): the first extreme wins, the first NaN wins over everything.

A partial result is the best value so far and its number. Numbers are kept in i32 where the values have 32 bits or
less and there are few enough of them: vectors of both then have the same width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.kernel import Value
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.demand import reduction_extents
from graphc.ir.node import Node
from graphc.ir.types import DType, i32, i64

MAX_I32 = (1 << 31) - 1


def is_place(node: Node) -> bool:
    """Whether `node` is a reduction that gives the place of an extreme."""
    return node.op in ("argmax", "argmin")


def number_dtype(node: Node) -> DType:
    """The dtype in which the places of `argmax` or `argmin` are kept while they are looked for."""
    fits = node.inputs[0].dtype.itemsize <= 4 and math.prod(reduction_extents(node)) <= MAX_I32
    return i32 if fits else i64


def step(e: ScopedEmitter, op: str, best: Value, place: Value, part: Value, number: Value) -> tuple[Value, Value]:
    """One step: `part`, which comes later than `best`, wins when it is better, or the first NaN."""
    if part.type.dtype.is_float:  # not (part <= best) holds for NaN too
        wins = e.op("and", e.op("not", e.op("le" if op == "argmax" else "ge", part, best)), e.op("eq", best, best))
    else:
        wins = e.op("gt" if op == "argmax" else "lt", part, best)
    return e.op("select", wins, part, best), e.op("select", wins, number, place)


def combine(e: ScopedEmitter, op: str, parts: Sequence[tuple[Value, Value]], across: bool) -> Value:
    """The place that wins among partial results, and `across` their lanes: the first of those with the best value.

    A partial result that saw nothing better than the identity has place 0, which is right when none did.
    """
    if len(parts) == 1 and not across:
        return parts[0][1]
    better = "maximum" if op == "argmax" else "minimum"
    best = parts[0][0]
    for value, _ in parts[1:]:
        best = e.op(better, best, value)
    if across:
        best = e.op(f"reduce_{better}", best)
    last = (1 << (parts[0][1].type.dtype.bits - 1)) - 1
    first: Value | None = None
    for value, place in parts:
        same = e.op("eq", value, best)
        if best.type.dtype.is_float:  # when the best is NaN, so are the winners
            same = e.op("or", same, e.op("ne", value, value))
        candidate = e.op("select", same, place, last)
        first = candidate if first is None else e.op("minimum", first, candidate)
    assert first is not None
    return e.op("reduce_minimum", first) if across else first
