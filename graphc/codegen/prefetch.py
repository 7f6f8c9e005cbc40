"""Rows of the next point of a domain are asked for while the ones of this point are computed.

A kernel that goes over each row several times waits for memory in its first loop and computes in the others. There it
asks for what the first loop reads next; a kernel with one loop reads in order, which the machine foresees by itself.

It does not foresee rows that are picked by an index: a kernel that copies such rows asks for those of a later point.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.domain import Bases
from graphc.codegen.kernel import Value
from graphc.codegen.schedule import Schedule
from graphc.codegen.sites import Access, Nest, Site
from graphc.codegen.steps import Step
from graphc.codegen.target import LINE
from graphc.codegen.values import Values
from graphc.ir.index import Data, Ix, Symbol, Var
from graphc.ir.record import record

SHORTEST, LONGEST = 512, 1 << 14  # bytes of rows: shorter ones are foreseen, longer ones would push each other out
DISTANCE, MOST_POINTS = 1 << 12, 16  # bytes of picked rows that are asked for early, and at how many points at most
STREAMED = 1 << 19  # bytes of a buffer that does not stay in a cache near the core


@record
class Ahead:
    """In the loops of `step`: where, in the terms of the loops of `site`, a row of the next point is read."""

    step: Step
    site: Site
    accesses: tuple[Access, ...]


def choose_ahead(nest: Nest, schedule: Schedule, steps: Sequence[Step]) -> Ahead | None:
    """The step with the most work for each element and the rows that it asks for; None where that brings nothing."""
    if schedule.lane is not None or len(steps) < 2 or not nest.axes:
        return None
    sites = {s.stage: s for s in nest.sites if s.stage is not None}
    parts = {step: (*(sites[n] for n, _ in step.stages), *step.rows) for step in steps}
    step = max(steps, key=lambda s: sum(p.operations for p in parts[s]))
    site = parts[step][0]
    lane = schedule.site_lane.get(site)
    if lane is None or len(site.loops) != 1:
        return None
    own = {access.buffer for s in nest.sites for access in s.accesses if access.is_store}
    found: dict[tuple[object, Ix], Access] = {}
    for other in (p for s in steps for p in parts[s]):
        if len(other.loops) != 1 or other.loops[0].hi != lane.hi:
            continue
        renamed: dict[Symbol, Symbol] = {other.loops[0]: lane}
        for access in other.accesses:
            address = Ix(access.address.const, tuple((renamed.get(s, s), c) for s, c in access.address.terms))
            stride = address.coefficient(nest.axes[-1])
            streams = access.buffer not in own and access.buffer.type.nbytes >= STREAMED
            if streams and address.coefficient(lane) == 1 and stride > lane.hi:
                found[access.buffer, address] = Access(access.buffer, address)
    row = sum(a.buffer.dtype.itemsize * (lane.hi + 1) for a in found.values())
    return Ahead(step, site, tuple(found.values())) if SHORTEST <= row <= LONGEST else None


@record
class Picked:
    """Along the axis `var`: what is read where `symbol` says, and how many places early it is asked for."""

    var: Var
    lane: Var
    access: Access
    symbol: Data
    distance: int

    def ask(self, values: Values, bases: Bases, lane: tuple[Var, Value], count: int) -> None:
        """Ask for the lines of a later point's row, at the `count` elements from the start `lane` of a tile on."""
        later = Var(f"{self.var.name}_later", self.var.hi)
        number = values.e.op("add", bases[self.var][1], self.distance)
        values.env[later] = values.e.op("minimum", number, self.var.hi)
        known: dict[Symbol, Ix] = {var: Ix.of(base) for var, (base, _) in bases.items()}
        known[self.var], known[self.lane] = Ix.of(later), Ix.of(lane[0])

        def moved(ix: Ix) -> Ix:
            result = Ix(ix.const)
            for symbol, coefficient in ix.terms:
                result = result + known[symbol] * coefficient
            return result

        symbol = Data(self.symbol.node, tuple(map(moved, self.symbol.at)), self.symbol.hi)
        values.prepare(symbol)
        known[self.symbol] = Ix.of(symbol)
        address, buffer = moved(self.access.address), self.access.buffer
        for first in range(0, count, LINE // buffer.dtype.itemsize):
            values.e.prefetch(values.buffers[buffer], values.address(address + first)[0])


def choose_picked(nest: Nest, schedule: Schedule) -> tuple[Picked, ...]:
    """The rows that a kernel without loops of its own reads at an index from memory, one row for each place of the axis
    around its lane axis.
    """
    lane, outer = schedule.lane, [v for v in schedule.order if v is not schedule.lane]
    if lane is None or not outer or schedule.tile[outer[-1]] != 1 or any(s.stage or s.loops for s in nest.sites):
        return ()
    if schedule.lane_block or schedule.whole is not None or schedule.turned is not None:
        return ()
    var = outer[-1]
    found: dict[Access, Picked] = {}
    for access in (a for site in nest.sites for a in site.accesses if not a.is_store):
        symbols = [s for s, _ in access.address.terms if not isinstance(s, Var)]
        row = (lane.hi + 1) * access.buffer.dtype.itemsize
        if len(symbols) != 1 or access.buffer.type.nbytes < STREAMED or row < LINE:
            continue
        (symbol,) = symbols
        if not isinstance(symbol, Data) or access.address.coefficient(lane) != 1:
            continue
        own = [s for ix in symbol.at for s, _ in ix.terms]
        if var in own and lane not in own and all(isinstance(s, Var) for s in own):
            found[access] = Picked(var, lane, access, symbol, max(1, min(MOST_POINTS, DISTANCE // row)))
    return tuple(found.values())
