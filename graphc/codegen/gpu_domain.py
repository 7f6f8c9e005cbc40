"""The domain of a kernel on a GPU: all of it is the parallel range, so that neighbours along its fastest axis are
neighbouring threads.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

from graphc.codegen.domain import Bases, Domain
from graphc.codegen.kernel import INDEX, Value
from graphc.ir.index import Ix, Var

ACROSS, ALONG = 4, 8  # blocks of a warp where elements are transposed: of the axis that is loaded, and that is stored


class GridDomain(Domain):
    """A domain without loops. The last axis of the schedule's order is the fastest; the lanes divide theirs."""

    def run(self, index: Value) -> int:
        """Find the point (or block of points) of `index` and compute it; gives the size of the parallel range."""
        schedule = self._schedule
        numbers = self._numbers(index)
        bases: Bases = {}
        across: tuple[Var, Value] | None = None
        for var in schedule.order:
            if var is schedule.lane:
                width = schedule.lanes * schedule.tile[var]
                across = Var(var.name, var.hi, multiple=width), self._e.op("mul", numbers[var], width)
            else:
                bases[var] = self._base(var, numbers[var])
        self._body(bases, across, range(self._whole_tile), None)
        return math.prod(map(self._steps, schedule.order))

    def stored_once(self, place: tuple[Ix, ...], bases: Bases) -> AbstractContextManager[None]:
        """Around the stores of a place of a transposed block. Blocks are of different threads: of two that share a
        place, as the last one was moved back, the one before stores it.
        """
        turned = self._schedule.turned
        if turned is None:
            return nullcontext()
        base, tiles = bases[turned][0], self.tiles(turned)
        (own,) = [ix for ix in place if ix.coefficient(base)]
        if own.const >= tiles * self._schedule.tile[turned] - (turned.hi + 1):
            return nullcontext()
        number = self._env[self.tile_numbers[base]]
        return self._e.guard(self._e.op("lt", number, tiles - 1))

    def _numbers(self, index: Value) -> dict[Var, Value]:
        """The number of the tile along each axis."""
        e = self._e
        parts = self._parts_of_index()
        numbers: dict[Var, Value] = {var: e.const(0, INDEX) for var in self._schedule.order}
        known: set[Var] = set()
        rest = index
        for position, (var, _, weight) in enumerate(parts):
            inner = math.prod(n for _, n, _ in parts[position + 1 :])
            number = e.op("floordiv", rest, inner) if inner > 1 else rest
            rest = e.op("mod", rest, inner) if inner > 1 else rest
            number = e.op("mul", number, weight) if weight > 1 else number
            numbers[var] = e.op("add", numbers[var], number) if var in known else number
            known.add(var)
        return numbers

    def _parts_of_index(self) -> list[tuple[Var, int, int]]:
        """Of what the index is made, the slowest part first: an axis, the number of its steps, and of tiles in each.

        Where elements are transposed, a warp is a block of tiles: it loads and stores whole sectors.
        """
        schedule = self._schedule
        parts = [(var, self._steps(var), 1) for var in schedule.order]
        turned, lane = schedule.turned, schedule.lane
        if turned is not None and lane is not None:
            across, along = self._steps(turned), self._steps(lane)
            if across % ACROSS == 0 and along % ALONG == 0:
                outer = [part for part in parts if part[0] is not turned and part[0] is not lane]
                blocks = [(turned, across // ACROSS, ACROSS), (lane, along // ALONG, ALONG)]
                parts = [*outer, *blocks, (turned, ACROSS, 1), (lane, ALONG, 1)]
        return [part for part in parts if part[1] > 1]

    def _steps(self, var: Var) -> int:
        if var is self._schedule.lane:
            return (var.hi + 1) // (self._schedule.lanes * self._schedule.tile[var])
        return self.tiles(var)
