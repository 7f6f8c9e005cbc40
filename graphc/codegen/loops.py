"""The scheduler: which axis runs across lanes, register tiles, loop order. Decided by a cost model over machine facts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from graphc.codegen.sites import Access, Nest, Site
from graphc.codegen.target import Target
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node

MAX_UNROLLED = 600  # multiply-adds in one unrolled body
TILES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16)
SPLIT = 4  # independent partial results of a reduction that has too few of its own
CHUNK_VECTORS = 256  # vectors per parallel chunk of a long lane axis


@dataclass(slots=True)
class Schedule:
    """How to run a nest. `lane` is a domain axis, or None: then each site has its own lane variable in `site_lane` (or none).

    `tile` gives how many points of an axis (vectors, for the lane axis) are computed at once; `order` lists the domain's axes,
    outermost first; `unrolled` are reduction variables without a loop; `loop_order` the looped ones of each site.
    """

    lanes: int
    lane: Var | None
    order: list[Var]
    tile: dict[Var, int]
    site_lane: dict[Site, Var] = field(default_factory=dict)
    unrolled: dict[Site, tuple[Var, ...]] = field(default_factory=dict)
    loop_order: dict[Site, tuple[Var, ...]] = field(default_factory=dict)
    split: dict[Site, int] = field(default_factory=dict)


def lane_count(nest: Nest, target: Target) -> int:
    """Lanes for the widest element type that takes part in arithmetic (index values of `argmax` not counted)."""
    sizes = [a.buffer.dtype.itemsize for site in nest.sites for a in site.accesses if a.buffer.dtype.is_float]
    if not sizes:
        sizes = [a.buffer.dtype.itemsize for site in nest.sites for a in site.accesses]
    return target.lanes(max(4, *sizes) if sizes else 4)


def make_schedule(nest: Nest, target: Target) -> Schedule:
    """Choose lanes, tiles and loop orders for `nest`."""
    lanes = lane_count(nest, target)
    options: list[tuple[float, int, Var | None]] = []
    for number, var in enumerate(nest.axes):
        if var.hi > 0:
            options.append((sum(_site_cost(s, nest, var, lanes) for s in nest.sites), -number, var))
    options.append((_inner_cost(nest, lanes), 1, None))
    _, _, lane = min(options, key=lambda o: o[:2])
    schedule = Schedule(lanes, lane, [v for v in nest.axes if v is not lane], dict.fromkeys(nest.axes, 1))
    if lane is not None:
        schedule.order.append(lane)
    for site in nest.sites:
        if lane is None:
            best = _own_lane(site, lanes)
            if best is not None:
                schedule.site_lane[site] = best
        _reduction_loops(site, schedule)
    _choose_tiles(nest, schedule, target)
    return schedule


def _iterations(variables: tuple[Var, ...], nest: Nest) -> int:
    return nest.points * math.prod(v.hi + 1 for v in variables)


def _access_cost(access: Access, lane: Var, lanes: int) -> float:
    """Cycles for one vector's worth of an access when `lane` runs across the lanes."""
    stride = abs(access.address.coefficient(lane))
    varies = any(not isinstance(s, Var) and lane in Ix.of(s).symbols() for s, _ in access.address.terms)
    if varies or stride > 4:
        return lanes * (1.5 if access.is_store else 1.0)
    if stride == 0:
        return 0.6
    return 1.0 if stride == 1 else 1.0 + stride


def _site_cost(site: Site, nest: Nest, lane: Var | None, lanes: int) -> float:
    """Estimated cycles of a site with `lane` across lanes (None: scalar code)."""
    count = _iterations(site.loops, nest)
    work = site.maps * 0.5 + site.heavy * 8
    if lane is None:
        return count * (len(site.accesses) * 0.6 + work)
    extent = lane.hi + 1
    vectors = count / extent * math.ceil(extent / lanes)
    return vectors * (sum(_access_cost(a, lane, lanes) for a in site.accesses) + work)


def _own_lane(site: Site, lanes: int) -> Var | None:
    """The loop variable of the site itself that is best across lanes, if one beats scalar code."""
    if site.stage is not None and site.stage.op.startswith("arg"):
        return None
    best: tuple[float, Var | None] = (len(site.accesses) * 0.6 * lanes, None)
    for var in site.loops:
        extent = var.hi + 1
        waste = math.ceil(extent / lanes) * lanes / extent
        cost = waste * sum(_access_cost(a, var, lanes) for a in site.accesses)
        if extent > 1 and cost < best[0]:
            best = (cost, var)
    return best[1]


def _inner_cost(nest: Nest, lanes: int) -> float:
    """Cost when each site uses a loop of its own for the lanes; reductions then end with a sum across lanes."""
    total = 0.0
    for site in nest.sites:
        lane = _own_lane(site, lanes)
        total += _site_cost(site, nest, lane, lanes)
        if site.stage is not None and lane is not None:
            total += nest.points * len(site.points) * 2 * math.log2(lanes)
    return total


def _reduction_loops(site: Site, schedule: Schedule) -> None:
    """Split a site's own loops into unrolled ones and looped ones, the most contiguous innermost."""
    own_lane = schedule.site_lane.get(site)
    unrolled: list[Var] = []
    if site.stage is not None:
        budget = MAX_UNROLLED // 24
        for var in sorted(site.loops, key=lambda v: v.hi):
            extent = var.hi + 1
            if var is own_lane or extent > 8 or extent > budget:
                continue
            if extent == 1 or _in_window(site, var):
                unrolled.append(var)
                budget //= extent
    looped = [v for v in site.loops if v not in unrolled and v is not own_lane]
    looped.sort(key=lambda v: -sum(abs(a.address.coefficient(v)) for a in site.accesses))
    if own_lane is not None:
        looped.append(own_lane)
    schedule.unrolled[site] = tuple(v for v in site.loops if v in unrolled)
    schedule.loop_order[site] = tuple(looped)


def _in_window(site: Site, var: Var) -> bool:
    """Whether `var` steps through memory together with another variable at the same stride scale: a sliding window."""
    for access in site.accesses:
        mine = abs(access.address.coefficient(var))
        if mine and sum(1 for _, c in access.address.terms if 0 < abs(c) <= 4 * mine and c % mine == 0) > 1:
            return True
    return False


def _choose_tiles(nest: Nest, schedule: Schedule, target: Target) -> None:
    contractions = [s for s in nest.sites if s.stage is not None and s.stage.op == "contract"]
    if contractions:
        _tile_contraction(contractions[0], nest, schedule, target)
        return
    lane = schedule.lane
    if lane is not None:
        vectors = (lane.hi + 1) // schedule.lanes
        work = sum(s.maps + 8 * s.heavy for s in nest.sites) + 1
        has_stage = any(s.stage is not None for s in nest.sites)
        want = 4 if work <= 12 or has_stage else 2 if work <= 40 else 1
        schedule.tile[lane] = max(1, min(want, vectors))
    for site in nest.sites:
        if site.stage is not None and not site.stage.op.startswith("arg"):
            points = len(site.points) * schedule.tile.get(lane, 1) if lane is not None else len(site.points)
            schedule.split[site] = max(1, SPLIT // points)


def _tile_contraction(site: Site, nest: Nest, schedule: Schedule, target: Target) -> None:
    """Hill-climb over register tiles: most multiply-adds per load that fit the registers with little waste."""
    budget = target.registers - (4 if target.registers >= 32 else 4)
    axes = [v for v in nest.axes if v.hi > 0]
    per_lane = schedule.lanes
    unrolled = [(v, v.hi + 1) for v in schedule.unrolled[site]]
    taps = math.prod(n for _, n in unrolled)

    def extent_of(var: Var) -> int:
        return max(1, (var.hi + 1) // per_lane) if var is schedule.lane else var.hi + 1

    def cost(tile: dict[Var, int]) -> float:
        points = math.prod(tile.values()) * len(site.points)
        if points > budget or points * taps > MAX_UNROLLED:
            return math.inf
        loads = _distinct_loads(site, tile, unrolled, schedule)
        steps = points * taps
        waste = 1.0
        for var in axes:
            n = extent_of(var)
            waste *= math.ceil(n / tile[var]) * tile[var] / n
        chain = max(1.0, 8 / points)  # too few independent sums wait for each other
        return max(steps / 2 * chain, loads / 2) / steps * waste + 0.6 / steps * waste

    tile = dict.fromkeys(axes, 1)
    best = cost(tile)
    while True:
        moves = []
        for var in axes:
            for size in TILES:
                if size <= extent_of(var) and size != tile[var]:
                    candidate = {**tile, var: size}
                    moves.append((cost(candidate), size, candidate))
        found = min(moves, key=lambda m: m[:2], default=None)
        if found is None or found[0] >= best - 1e-9:
            break
        best, tile = found[0], found[2]
    schedule.tile.update(tile)
    points = math.prod(tile.values()) * len(site.points)
    schedule.split[site] = max(1, 8 // points) if taps == 1 else 1


def _distinct_loads(site: Site, tile: dict[Var, int], unrolled: list[tuple[Var, int]], schedule: Schedule) -> float:
    """Loads that one iteration of the unrolled body needs; equal addresses count once."""
    total = 0.0
    forms: dict[tuple[Node, tuple[tuple[Var, int], ...]], set[int]] = {}
    for per_point in site.operands:
        for buffer, ix in per_point:
            key = (buffer, tuple((v, ix.coefficient(v)) for v in (*tile, *(u for u, _ in unrolled))))
            forms.setdefault(key, set()).add(ix.const)
    lane = schedule.lane or schedule.site_lane.get(site)
    for (buffer, coefficients), consts in forms.items():
        offsets = set(consts)
        across = 0
        for var, c in coefficients:
            if var is lane:
                across = c
                c *= schedule.lanes
            n = tile.get(var) or next((m for u, m in unrolled if u is var), 1)
            if c and n > 1:
                offsets = {o + c * i for o in offsets for i in range(n)}
        if schedule.lane is None and lane is not None:
            across = next((ix.coefficient(lane) for p in site.operands for b, ix in p if b is buffer), 0)
        each = 1.0 if across in (0, 1) else 1.0 + across if across <= 4 else float(schedule.lanes)
        total += len(offsets) * each
    return total
