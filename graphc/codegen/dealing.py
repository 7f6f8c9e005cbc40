"""Rows that are read across the lanes, a row for each: probabilities of a few classes, coordinates, pixels.

The places of a row lie side by side, and the lanes as far apart as rows are long. Vectors are loaded along the rows
and transposed in registers, once for all places, where lane by lane every element would be loaded by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from graphc.codegen.crossing import WORD, zipped
from graphc.codegen.kernel import Affine, Param, Value, VType
from graphc.codegen.math_int import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import WIDE_STRIDE
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.types import DType, i32, u8

LONG = 64  # elements of a row whose places are all computed in line, at most

Rows = tuple[Node, int]
"""A value in memory, and how long its rows are."""


def dealt_rows(loads: Iterable[tuple[Node, Ix]], lane: Var, target: Target, lanes: int) -> dict[Rows, float]:
    """The rows that are dealt to the lanes where `lane` runs across them, with the cycles that one place takes."""
    places: dict[tuple[Node, int, object], dict[int, None]] = {}
    for base, address in loads:
        length = address.coefficient(lane)
        if WIDE_STRIDE < length <= LONG and begins_row(address, length) and _can_deal(base, length, target, lanes):
            places.setdefault((base, length, address.terms), {})[address.const % length] = None
    costs: dict[Rows, float] = {}
    for (base, length, _), wanted in places.items():
        blocks: dict[int, int] = {}
        for place in wanted:
            start = block_start(place, length, lanes)
            blocks[start] = blocks.get(start, 0) + 1
        rows = length if _is_whole(length, lanes) else lanes
        each = sum(rows * math.log2(lanes) + min(rows, count) for count in blocks.values()) / len(wanted)
        if each < lanes:
            costs[base, length] = max(each, costs.get((base, length), 0.0))
    return costs


def begins_row(address: Ix, length: int) -> bool:
    """Whether the address, but for its constant, is that of the beginning of a row."""
    return all(isinstance(symbol, Var) and coefficient % length == 0 for symbol, coefficient in address.terms)


def block_start(place: int, length: int, lanes: int) -> int:
    """Where the part of a row begins that is loaded for `place`: the last part ends where the row does."""
    return max(0, min(place // lanes * lanes, length - lanes))


def _can_deal(base: Node, length: int, target: Target, lanes: int) -> bool:
    """Whether a row can be loaded without what lies behind it."""
    if lanes == 1 or base.type.size % length:
        return False
    return length >= lanes or _is_whole(length, lanes) or (target.masks and base.dtype.itemsize >= WORD)


def _is_whole(length: int, lanes: int) -> bool:
    """Whether vectors hold rows without a rest."""
    return length <= lanes and not length & (length - 1)


def load_rows(
    e: ScopedEmitter, memory: Param, origin: Affine, step: int, dtype: DType, lanes: int, length: int
) -> list[Value]:
    """The first `length` places (or more, up to the lanes) of rows that begin `step` apart, a vector for each place."""
    type, mask = VType(dtype, lanes), None
    starts = [lane * step for lane in range(lanes)]
    if length == step and _is_whole(step, lanes):
        starts = [vector * lanes for vector in range(step)]
    elif length < lanes:
        mask = e.op("lt", e.lanes(i32, lanes), length)
    rows = [e.load(type, memory, Affine(origin.const + start, origin.terms), 1, None, mask) for start in starts]
    # Single bits are moved as bytes: no vector of them can be shuffled well.
    rows = transposed(e, [expand_cast(e, row, u8) for row in rows] if dtype.kind == "bool" else rows)
    return [expand_cast(e, row, dtype) for row in rows]


def transposed(e: ScopedEmitter, rows: list[Value]) -> list[Value]:
    """The columns of a block of rows, one after the other in vectors, as many of them as a power of two."""
    return zipped(e, rows, rows[0].type.lanes.bit_length() - 1)
