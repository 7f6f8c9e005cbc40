"""Places of extremes (`argmax`, `argmin`): the first extreme wins, the first NaN wins over everything.

A partial result is the best value so far and its number. Numbers are kept in i32 where the values have 32 bits or
less and there are few enough of them: vectors of both then have the same width.

In a long row the best *block* of vectors is looked for, which takes one instruction for each vector and another one
for NaN, where a step takes four; then that block is read again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

from graphc.codegen.kernel import Value
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Site
from graphc.ir.demand import reduction_extents
from graphc.ir.index import Ix, Var, linear
from graphc.ir.node import Node
from graphc.ir.types import DType, i32, i64

MAX_I32 = (1 << 31) - 1
BLOCK_VECTORS = 8
FEWEST_BLOCKS = 4  # in a row of which the best one is looked for


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


def is_searched(site: Site, lane: Var | None, lanes: int) -> bool:
    """Whether a place along a row in memory, which the lanes run along, is looked for block by block."""
    stage = site.stage
    if stage is None or not is_place(stage) or lane is None or site.loops != (lane,):
        return False
    if site.maps > 1 or len(site.accesses) != 1:
        return False
    extents = reduction_extents(stage)
    if (lane.hi + 1) // lanes < FEWEST_BLOCKS * BLOCK_VECTORS or math.prod(extents) != lane.hi + 1:
        return False
    return linear(site.place((Ix.of(lane),)), extents) == Ix.of(lane)


class Search:
    """The place of an extreme in a row that is gone through from its beginning on, `BLOCK_VECTORS` vectors at a time,
    and vector by vector behind the last whole block.

    The number of a partial result is that of the block's first vector, or of a vector behind the blocks.
    """

    def __init__(self, e: ScopedEmitter, op: str) -> None:
        self._e, self._op = e, op
        self._left = BLOCK_VECTORS  # vectors of the block that are still to come
        self._best: Value | None = None  # of the block, but for NaN that are not in its first vector
        self._number: Value | None = None
        self._parts: list[Value] = []

    def step(self, best: Value, place: Value, part: Value, number: Callable[[], Value]) -> tuple[Value, Value]:
        """Take up the vector `part`, whose places are `number`."""
        e = self._e
        if not self._left:
            return step(e, self._op, best, place, part, number())
        self._left -= 1
        self._parts.append(part)
        if self._best is None:
            self._best, self._number = part, number()
        else:
            names = ("fmax", "fmin") if part.type.dtype.is_float else ("maximum", "minimum")
            self._best = e.op(names[self._op == "argmin"], part, self._best)
        if self._left:
            return best, place
        assert self._number is not None
        whole = self._best
        if part.type.dtype.is_float:
            # Two vectors are looked at by one instruction.
            pairs = [
                e.op("or", *(e.op("ne", x, x) for x in self._parts[i : i + 2])) for i in range(0, BLOCK_VECTORS, 2)
            ]
            whole = e.op("select", reduce(partial(e.op, "or"), pairs), math.nan, whole)
        return step(e, self._op, best, place, whole, self._number)

    @staticmethod
    def span(lanes: int) -> int:
        """Elements of a block."""
        return BLOCK_VECTORS * lanes

    def begin(self, best: Value, place: Value, count: int, lanes: int) -> Value:
        """Where in a row of `count` elements the block begins that must be read again, from the partial result."""
        e, span = self._e, self.span(lanes)
        self._lanes, self._whole = lanes, count // span * span  # elements in blocks
        self._found = combine(e, self._op, [(best, place)], True)
        self._extreme = e.op("reduce_maximum" if self._op == "argmax" else "reduce_minimum", best)
        inside = e.op("minimum", self._found, self._whole - 1)
        self._start = e.op("mul", e.op("floordiv", inside, span), span)
        return expand_cast(e, self._start, i64)

    def finish(self, elements: Sequence[Value]) -> Value:
        """The place itself, from the vectors of that block."""
        e, dtype = self._e, self._found.type.dtype
        inside = e.lanes(dtype, self._lanes)
        first: Value | None = None
        for k, part in enumerate(elements):
            same = e.op("eq", part, self._extreme)
            if part.type.dtype.is_float:  # when the extreme is NaN, the first NaN has the place; else there is none
                same = e.op("or", same, e.op("ne", part, part))
            number = e.op("add", inside, k * self._lanes) if k else inside
            candidate = e.op("select", same, number, (1 << (dtype.bits - 1)) - 1)
            first = candidate if first is None else e.op("minimum", first, candidate)
        assert first is not None
        again = e.op("add", self._start, e.op("reduce_minimum", first))
        return e.op("select", e.op("lt", self._found, self._whole), again, self._found)
