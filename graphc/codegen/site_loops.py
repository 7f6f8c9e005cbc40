"""The loops of one site of a kernel, around what is computed at each place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from graphc.codegen.domain import Domain
from graphc.codegen.kernel import Value
from graphc.codegen.products import Products
from graphc.codegen.schedule import Schedule
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Site
from graphc.codegen.values import Masks, Values, regroup
from graphc.ir.index import Ix, Var
from graphc.ir.types import i64

Point = dict[Var, Ix]
Parts = list[list[Value]]
"""What loops carry: a list of values for each independent partial result."""
Visit = Callable[[Point, Masks, list[Value]], list[Value]]
"""What is computed where the loops are at a point: the carried values of one partial result afterwards."""


@dataclass(frozen=True, slots=True)
class SiteLoops:
    """Runs `visit` over the looped variables of `site`. Those in `inside` have fewer steps: from, and up to."""

    e: ScopedEmitter
    values: Values
    schedule: Schedule
    lane: Var
    domain: Domain
    products: Products | None
    site: Site
    masks: Masks
    visit: Visit
    inside: Mapping[Var, tuple[Value, Value]]

    def run(self, carried: Parts) -> Parts:
        """What is carried after all loops."""
        return self._level(0, {}, carried)

    def _level(self, level: int, point: Point, totals: Parts) -> Parts:
        """The loop number `level`, and those inside of it."""
        order = self.schedule.loop_order[self.site]
        if level == len(order):
            return [self.visit(point, self.masks, totals[0]), *totals[1:]]
        var = order[level]
        first, extent = self._extent(var)
        lo, hi = (0, extent)
        if self.site.stage is not None and len(totals) == 1:
            lo, hi = self.inside.get(var, (0, extent))
        if level < len(order) - 1:
            return self._loop(
                var, lo, hi, 1, totals, lambda ix, t: self._level(level + 1, {**point, var: first + ix}, t)
            )  # fmt: skip
        return self._innermost(var, first, extent, (lo, hi), point, totals)

    def _extent(self, var: Var) -> tuple[Ix, int]:
        """The first index of a loop and its number of steps: all of them, or those of a part."""
        part, chunk = self.domain.part, self.schedule.chunk
        if part is not None and chunk is not None and var is chunk.var:
            return part.start, part.count
        return Ix(), var.hi + 1

    def _innermost(
        self, var: Var, first: Ix, extent: int, ends: tuple[int | Value, int | Value], point: Point, totals: Parts
    ) -> Parts:
        """The innermost loop, several steps at once, and what is left of it; its last vector may be masked."""
        schedule, site, split, visit = self.schedule, self.site, len(totals), self.visit
        is_own = var is schedule.site_lane.get(site)
        step = schedule.lanes if is_own else 1
        run = schedule.side_by_side if is_own else 1
        across = first + Ix.of(self.lane) * run if is_own else first
        count, tail = divmod(extent, step)
        together = split * schedule.steps.get(site, 1)
        whole = count // together * together
        apart, size = (whole // split * step, step) if site in schedule.streamed else (step, together * step)

        def within(ix: Ix, t: Parts) -> Parts:
            after = list(t)
            if site.stage is not None and site.stage.op == "contract" and self.products is not None:
                self.products.ask_ahead({**point, var: ix + across})
            for k in range(together):
                place = ix + (k // run * run * apart + k % run) + across
                after[k % split] = visit({**point, var: place}, self.masks, after[k % split])
            return after

        if isinstance(ends[0], Value):
            return self._loop(var, *ends, 1, totals, within)
        totals = self._loop(var, 0, whole // together * size, size, totals, within)
        for k in range(count - whole):
            place = Ix((whole + k // run * run) * step + k % run) + across
            totals[k % split] = visit({**point, var: place}, self.masks, totals[k % split])
        if tail:
            mask = self.e.op("lt", self.e.lanes(i64, schedule.lanes), tail)
            masks = Masks(mask, self.masks.conditions, self.masks.scalars)
            last = visit({**point, var: Ix(count * step) + across}, masks, totals[-1])
            totals = [*totals[:-1], last]
        return totals

    def _loop(
        self,
        var: Var,
        lo: int | Value,
        hi: int | Value,
        step: int,
        totals: Parts,
        within: Callable[[Ix, Parts], Parts],
    ) -> Parts:
        """One loop; none where it has one step, or no step at all."""
        most = var.hi
        if isinstance(lo, int) and isinstance(hi, int):
            if hi <= lo:
                return totals
            if hi - lo == step:
                return within(Ix(lo), totals)
            most = hi - step
        flat = tuple(v for part in totals for v in part)
        with self.e.loop(var.name, lo, hi, step, flat) as loop:
            base = Var(var.name, most)
            self.values.env[base] = loop.var
            after = within(Ix.of(base), regroup(loop.phis, totals))
            loop.yields = tuple(v for part in after for v in part)
        return regroup(loop.results, totals)
