"""The domain of a kernel on a GPU: all of it is the parallel range, so that neighbours along its fastest axis are
neighbouring threads.
"""

from __future__ import annotations

import math

from graphc.codegen.domain import Bases, Domain
from graphc.codegen.kernel import INDEX, Value
from graphc.ir.index import Var


class GridDomain(Domain):
    """A domain without loops. The last axis of the schedule's order is the fastest; the lanes divide theirs."""

    def run(self, index: Value) -> int:
        """Find the point (or block of points) of `index` and compute it; gives the size of the parallel range."""
        schedule = self._schedule
        counts = [self._steps(var) for var in schedule.order]
        bases: Bases = {}
        across: tuple[Var, Value] | None = None
        rest = index
        for position, (var, count) in enumerate(zip(schedule.order, counts, strict=True)):
            inner = math.prod(counts[position + 1 :])
            number = self._e.const(0, INDEX)
            if count > 1:
                number = self._e.op("floordiv", rest, inner) if inner > 1 else rest
                rest = self._e.op("mod", rest, inner) if inner > 1 else rest
            if var is schedule.lane:
                width = schedule.lanes * schedule.tile[var]
                across = Var(var.name, var.hi, multiple=width), self._e.op("mul", number, width)
            else:
                bases[var] = self._base(var, number)
        vectors = range(self._whole_tile)
        self._body(bases, across, vectors, None)
        return math.prod(counts)

    def _steps(self, var: Var) -> int:
        if var is self._schedule.lane:
            return (var.hi + 1) // (self._schedule.lanes * self._schedule.tile[var])
        return self.tiles(var)
