"""Rows of the next point of a domain are asked for while the ones of this point are computed.

A kernel that goes over each row several times waits for memory in its first loop and computes in the others. There it
asks for what the first loop reads next; a kernel with one loop reads in order, which the machine foresees by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.schedule import Schedule
from graphc.codegen.sites import Access, Nest, Site
from graphc.codegen.steps import Step
from graphc.ir.index import Ix, Symbol

SHORTEST, LONGEST = 512, 1 << 14  # bytes of rows: shorter ones are foreseen, longer ones would push each other out
STREAMED = 1 << 19  # bytes of a buffer that does not stay in a cache near the core


@dataclass(frozen=True, slots=True)
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
    step = max(steps, key=lambda s: sum(p.maps + 8 * p.heavy for p in parts[s]))
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
