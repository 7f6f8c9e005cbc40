"""What the kernel of a contraction has beside its operands: panels, parts of long sums, and what it asks for ahead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from graphc.codegen.domain import Bases, Domain
from graphc.codegen.kernel import Param, Value, VType
from graphc.codegen.pack import fill_block, fill_near
from graphc.codegen.panels import axes_of_points
from graphc.codegen.schedule import Panel, Schedule
from graphc.codegen.sites import Site
from graphc.codegen.target import LINE, Target
from graphc.codegen.values import Values
from graphc.ir.access import Index
from graphc.ir.index import Ix, Var

Panels = Mapping[int, tuple[Panel, Param]]
"""The copied operands by number, each with its memory."""


class Products:
    """Emits these parts of the kernel of the contraction `site`.

    `lane` is the variable that runs across the lanes, `sums` the memory for parts of sums. `domain` must be set before
    the first use.
    """

    domain: Domain

    def __init__(
        self,
        site: Site,
        schedule: Schedule,
        target: Target,
        values: Values,
        lane: Var,
        panels: Panels,
        sums: Param | None,
    ) -> None:
        self._site = site
        self._axes = axes_of_points(site) or []
        self._schedule = schedule
        self._target = target
        self._values = values
        self._e = values.e
        self._lane = lane
        self._panels = panels
        self._sums = sums
        self._next: dict[int, Ix] = {}  # for each panel the first index of the lane axis's next tile
        self._sources: dict[int, Ix] = {}  # where that tile begins in the operand, for panels that are filled from it

    # panels

    def enter(self, bases: Bases, lane: tuple[Var, Value], is_whole: bool) -> None:
        """Before what is computed for a tile of the lane axis: copy what it needs of the operands whose panels are
        near.
        """
        for number, (panel, memory) in self._panels.items():
            if panel.is_near and panel.is_lane:
                outer = {var: bases[var][1] for var in panel.outer}
                source = self._values.buffers[panel.source]
                fill_near(panel, self._target, self._e, source, memory, lane[1], outer, is_whole)
                self._sources.pop(number, None)
                if is_whole and self._asks_source(panel):
                    places = {var: Ix.of(bases[var][0]) for var in panel.outer}
                    places[panel.axis] = self._following(number, panel, lane[1])
                    terms = (places[v] * panel.address.coefficient(v) for v in (*panel.outer, panel.axis))
                    self._sources[number] = sum(terms, Ix(panel.address.const))
            elif self._asks_ahead(panel):
                self._next[number] = self._following(number, panel, lane[1])

    def _following(self, number: int, panel: Panel, first: Value) -> Ix:
        """The first index of the tile of the lane axis that comes after the one which begins at `first`."""
        last = (panel.tiles - 1) * panel.width
        after = Var(f"next{number}", last)
        self._values.env[after] = self._e.op("minimum", self._e.op("add", first, panel.width), last)
        return Ix.of(after)

    def begin(self, bases: Bases, tiles: tuple[Value, Value]) -> None:
        """Before the lane axis is gone through for a block of tiles: copy what they need of the operands of which the
        kernel holds a block.
        """
        part = self.domain.part
        steps: tuple[Value | int, int] | None = None
        if part is not None:
            ((start, _),) = part.start.terms or ((None, 0),)
            steps = (part.start.const if start is None else self._values.env[start], part.count)  # type: ignore[index]
        for panel, memory in self._panels.values():
            if panel.is_near and not panel.is_lane:
                outer = {var: bases[var][1] for var in panel.outer}
                source = self._values.buffers[panel.source]
                fill_block(panel, self._target, self._e, source, memory, tiles, outer, steps)

    def has(self, number: int) -> bool:
        """Whether operand `number` is copied."""
        return number in self._panels

    def element(self, number: int, at: Index, over: Index) -> Value:
        """The element of a copied operand. All lanes of a panel can be read, so no mask is needed."""
        panel, param = self._panels[number]
        address = Ix()
        for var, ix in zip(self._axes, at, strict=True):
            if panel.is_near and var is not panel.axis:
                continue
            if panel.is_near and panel.is_lane:
                address += Ix.of(self._lane, ix.coefficient(self._lane), ix.const)
            elif panel.is_near:
                assert self.domain.inside is not None
                address += self.domain.inside * panel.length + ix.const
            elif var is panel.axis and panel.is_lane:  # tiles begin at multiples of the width
                lane = ix.coefficient(self._lane)
                base = Ix(0, tuple((s, c) for s, c in ix.terms if s is not self._lane))
                address += base * (panel.length // panel.width) + Ix.of(self._lane, lane, ix.const)
            elif var is panel.axis:
                ((base_var, _),) = ix.terms
                address += Ix.of(self.domain.tile_numbers[base_var], panel.length, ix.const)  # type: ignore[index]
            elif var is not None:
                address += ix * panel.stride(var)
        for var, ix in zip(self._site.loops, over, strict=True):
            place = ix
            if panel.chunk is not None and var is panel.chunk.var:
                assert self.domain.part is not None
                place = ix + self.domain.part.start * -1
            address += place * panel.stride(var)
        affine, stride, _ = self._values.address(address)
        type = VType(param.dtype, self._schedule.lanes if stride else 1)
        return self._e.load(type, param, affine, stride, None, None)

    def _asks_ahead(self, panel: Panel) -> bool:
        """Whether the panel of the lane axis's next tile is asked for while this one is used.

        All tiles of a block use one tile's panel; the next one comes from afar, faster than memory gives it.
        """
        is_far = panel.memory.type.nbytes > self._target.l1_bytes
        return panel.is_lane and is_far and panel.tiles > 1 and self._schedule.block[0] is not None

    def _asks_source(self, panel: Panel) -> bool:
        """Whether lines of the operand that the next tile's panel is filled from are asked for while this tile's is
        used: a few elements of many rows, which the machine does not foresee, from beyond the second cache.
        """
        is_far = panel.source.type.nbytes > self._target.l2_bytes
        taps = math.prod(v.hi + 1 for v in self._schedule.unrolled[self._site])
        side_by_side = panel.address.coefficient(panel.axis) == 1
        return is_far and taps == 1 and side_by_side and panel.tiles > 1 and self._schedule.block[0] is not None

    def ask_ahead(self, point: Mapping[Var, Ix]) -> None:
        """At this point of the sum: ask for some lines of the next tile's panel, or of what it is filled from, so that
        all of them are asked for by the end of the block. The same line may be asked for again, which costs little.
        """
        inside = self.domain.inside
        if inside is None:
            return
        for number, first in self._sources.items():
            panel = self._panels[number][0]
            share = -(-panel.width // self._schedule.block[1])
            address = first + inside * share
            for var in panel.loops:
                address += point.get(var, Ix()) * panel.address.coefficient(var)
            innermost = panel.address.coefficient(self._schedule.loop_order[self._site][-1])
            for step in range(self._schedule.steps.get(self._site, 1)):
                there = address + step * innermost
                self._e.prefetch(self._values.buffers[panel.source], self._values.address(there)[0])
        for number, first in self._next.items():
            panel, param = self._panels[number]
            size = self._schedule.block[1]
            length = panel.length
            share = -(-panel.width // size)  # elements of the next panel for each step
            address = first * (panel.length // panel.width)
            for var in panel.loops:
                place = point.get(var, Ix())
                if (part := self.domain.part) is not None and var is self._chunked:
                    address += part.start * panel.stride(var)
                    place = place + part.start * -1
                    length = length // (var.hi + 1) * part.count
                address += place * (panel.stride(var) // panel.width * share)
            address += inside * -(-length // size)
            taps = math.prod(v.hi + 1 for v in self._schedule.unrolled[self._site] if v in panel.loops)
            nbytes = share * taps * self._schedule.steps.get(self._site, 1) * param.dtype.itemsize
            for line in range(-(-nbytes // LINE)):
                there = address + line * (LINE // param.dtype.itemsize)
                self._e.prefetch(param, self._values.address(there)[0])

    @property
    def _chunked(self) -> Var | None:
        return self._schedule.chunk.var if self._schedule.chunk is not None else None

    # parts of long sums

    @property
    def finishes(self) -> bool:
        """Whether the part of the sum that is being made is the last one."""
        return self.domain.part is not None and self.domain.part.is_last

    def ask_for_sums(self, points: Iterable[Index]) -> None:
        """Ask for what is kept for these points, which is wanted after the next steps of their sums."""
        assert self._sums is not None
        asked: set[tuple[object, int]] = set()
        for at in points:
            place = self._sum_place(at)
            line = place.terms, place.const * self._sums.dtype.itemsize // LINE
            if line not in asked:
                asked.add(line)
                self._e.prefetch(self._sums, self._values.address(place)[0])

    def kept_sum(self, at: Index, zero: Value) -> Value:
        """The part of a long sum that was kept for the point `at`; zero after the first steps."""
        assert self.domain.part is not None and self._sums is not None
        address, stride, _ = self._values.address(self._sum_place(at))
        pinned, self._e.pinned = self._e.pinned, True  # each part of the sum reads what the one before stored
        kept = self._e.load(zero.type, self._sums, address, stride, None, None)
        self._e.pinned = pinned
        if self.domain.part.first is None:
            return kept
        return self._e.op("select", self._e.op("eq", self.domain.part.first, 0), zero, kept)

    def keep_sum(self, at: Index, value: Value) -> None:
        """Keep the part of a long sum for the point `at`."""
        assert self._sums is not None
        address, stride, _ = self._values.address(self._sum_place(at))
        self._e.store(self._sums, address, value, stride, None, None)

    def _sum_place(self, at: Index) -> Ix:
        """Where the part of a long sum for the point `at` is kept: tile after tile, in the order in which they run."""
        schedule = self._schedule
        own = {v: ix for v, ix in zip(self._axes, at, strict=True) if v is not None}
        lane = schedule.lane
        inner = schedule.lanes if lane is not None or self._site in schedule.site_lane else 1
        step = math.prod(schedule.tile.values()) * inner
        address = Ix.of(self._lane) if inner > 1 else Ix()
        if lane is not None:
            ix = own[lane]
            inner *= schedule.tile[lane]
            address += Ix(0, tuple((s, c) for s, c in ix.terms if s is not self._lane)) * (step // inner) + ix.const
            step *= math.ceil((lane.hi + 1) / inner)
        for var in reversed([v for v in schedule.tile if v is not lane]):
            ix, tile = own[var], schedule.tile[var]
            if tile > 1:
                ((base, _),) = ix.terms
                address += Ix.of(self.domain.tile_numbers[base], step, ix.const * inner)  # type: ignore[index]
            else:
                address += ix * step
            inner, step = inner * tile, step * self.domain.tiles(var)
        return address
