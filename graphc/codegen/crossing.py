"""Stores of vectors whose lanes lie apart in memory.

The lanes of a contraction may run along an axis of which the results lie far apart: channels of a picture. Where
another axis has them side by side, the vectors of some of its places are transposed in registers, and each lane
stores its places at once. Where vectors fill all places between each other's lanes, whole vectors are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.kernel import SEGMENT, Affine, Param, Value
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Nest
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.types import i64

SCATTERED = 1.5  # cycles for storing one lane by itself
SHUFFLED = 1.5  # cycles for each of the rounds that transpose, for each vector
WORD = 4  # bytes from which on an element can be moved between vectors by one instruction


def crossed_axis(nest: Nest, lane: Var | None) -> Var | None:
    """The axis along which all that is stored apart with `lane` across the lanes lies side by side."""
    if lane is None or any(s.is_kept for s in nest.sites):
        return None
    stores = [a for s in nest.sites if s.root is not None for a in s.accesses if a.is_store]
    apart = [a for a in stores if a.address.coefficient(lane) != 1]
    if not apart or any(s.root is not None and s.loops for s in nest.sites):
        return None
    known = all(isinstance(symbol, Var) for a in apart for symbol, _ in a.address.terms)
    if not known or any(a.buffer.dtype.itemsize < WORD or a.address.coefficient(lane) < 1 for a in apart):
        return None
    return next((v for v in nest.axes if v.hi and all(a.address.coefficient(v) == 1 for a in apart)), None)


def blocks(places: int, lanes: int) -> list[int]:
    """Neighbouring places cut into blocks of powers of two, which can be transposed, the largest first."""
    sizes: list[int] = []
    while places:
        sizes.append(min(lanes, 1 << places.bit_length() - 1))
        places -= sizes[-1]
    return sizes


def crossing_cost(places: int, lanes: int) -> float:
    """Estimated cycles for storing one vector when so many places are computed together."""
    total = 0.0
    for size in blocks(places, lanes):
        total += SCATTERED * lanes if size == 1 else lanes + size * math.log2(size) * SHUFFLED
    return total / places


def together_cost(nest: Nest, lane: Var, short: Var, lanes: int) -> float:
    """The same where all places of the axis `short` are computed together and stored side by side, else 0."""
    if crossed_axis(nest, lane) is not short:
        return 0.0
    places = short.hi + 1
    stores = [a.address for s in nest.sites for a in s.accesses if a.is_store]
    if all(a.coefficient(lane) == places for a in stores) and places <= lanes and not places & (places - 1):
        return 1.0 + SHUFFLED * math.log2(places)
    return crossing_cost(places, lanes)


Stored = tuple[Node, Ix, Value]
"""A vector on its way to memory: the target, and the element that each of its lanes goes to."""


def neighbours(pending: Sequence[Stored], lane: Var) -> tuple[list[list[Stored]], list[Stored]]:
    """What is stored with its lanes apart, in runs of places that lie side by side; and the rest."""
    runs: list[list[Stored]] = []
    rest: list[Stored] = []
    apart: dict[tuple[Node, object], list[Stored]] = {}
    for target, ix, value in pending:
        mine = rest if ix.coefficient(lane) <= 1 else apart.setdefault((target, ix.terms), [])
        mine.append((target, ix, value))
    for group in apart.values():
        group.sort(key=lambda stored: stored[1].const)
        for stored in group:
            if runs and runs[-1][-1][0] is stored[0] and runs[-1][-1][1] + 1 == stored[1]:
                runs[-1].append(stored)
            else:
                runs.append([stored])
    return runs, rest


def store_crossed(
    e: ScopedEmitter, param: Param, first: Affine, step: int, values: Sequence[Value], count: int
) -> None:
    """Store vectors of neighbouring places, whose lanes lie `step` apart, from `first` on: the first `count` lanes."""
    lanes = values[0].type.lanes
    if _fills(values, step):
        for vector, row in enumerate(zipped(e, values, len(values).bit_length() - 1)):
            left = count * step - vector * lanes
            if left > 0:
                mask = e.op("lt", e.lanes(i64, lanes), left) if left < lanes else None
                e.store(param, Affine(first.const + vector * lanes, first.terms), row, 1, None, mask)
        return
    place = 0
    for size in blocks(len(values), lanes):
        rows = zipped(e, values[place : place + size], size.bit_length() - 1)
        for lane in range(count):
            vector, at = divmod(lane * size, lanes)
            index = Affine(first.const + place + lane * step, first.terms)
            e.store(param, index, e.part(rows[vector], at, size), 1 if size > 1 else 0, None, None)
        place += size


def filling(pending: Sequence[Stored], lane: Var) -> tuple[list[list[Stored]], list[Stored]]:
    """What is stored with its lanes as far apart as there are vectors that fill the places between; and the rest."""
    runs, rest = neighbours(pending, lane)
    filled = [run for run in runs if _fills([value for _, _, value in run], run[0][1].coefficient(lane))]
    return filled, [*rest, *(stored for run in runs if run not in filled for stored in run)]


def _fills(values: Sequence[Value], step: int) -> bool:
    type, size = values[0].type, len(values)
    return size == step <= type.lanes and not size & (size - 1) and type.dtype.kind != "bool"


def zipped(e: ScopedEmitter, vectors: Sequence[Value], rounds: int) -> list[Value]:
    """A power of two of vectors as one sequence, zipped so often, half by half: element `i` of `n` moves to `2 * i`
    (modulo `n - 1`) each time.

    After as many rounds as a lane's number has bits every element is in the vector of its lane, after as many as a
    vector's number has bits the elements of a lane are together. A square is then transposed.
    """
    rows, half, lanes = list(vectors), len(vectors) // 2, vectors[0].type.lanes
    if len(rows) == lanes == 1 << rounds and lanes * rows[0].type.dtype.itemsize >= SEGMENT:
        return _transposed(e, rows)
    for _ in range(rounds):
        rows = [e.op(name, rows[i], rows[i + half]) for i in range(half) for name in ("zip_low", "zip_high")]
    return rows


def _transposed(e: ScopedEmitter, rows: list[Value]) -> list[Value]:
    """The columns of as many rows as they have lanes, of at least a segment of 16 bytes.

    Every round exchanges a bit of a lane's number for one of a row's: first bits within segments, whose shuffles are
    the fastest that processors have, then those of whole segments.
    """
    lanes = len(rows)
    low, high = (SEGMENT // rows[0].type.dtype.itemsize).bit_length() - 1, lanes.bit_length() - 1
    steps = [(1 << i, "unpack_low", "unpack_high") for i in reversed(range(low))]
    steps += [(1 << i, "even_segments", "odd_segments") for i in range(low, high)]
    for bit, *names in steps:
        for i in [i for i in range(lanes) if not i & bit]:
            rows[i], rows[i + bit] = [e.op(name, rows[i], rows[i + bit]) for name in names]
    return rows
