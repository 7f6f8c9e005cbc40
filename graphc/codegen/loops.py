"""The scheduler: which axis runs across lanes, register tiles, loop order. Decided by a cost model over machine
facts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

from graphc.codegen.borders import borders
from graphc.codegen.crossing import crossed_axis, together_cost
from graphc.codegen.dealing import dealt_rows
from graphc.codegen.extremes import BLOCK_VECTORS, is_place, is_searched
from graphc.codegen.lane_costs import (
    access_cost,
    across_cost,
    inner_cost,
    loads_of,
    own_lane,
    site_cost,
    work_cycles,
)
from graphc.codegen.panels import can_copy, choose_chunk, choose_panels
from graphc.codegen.register_tiles import least_cycles, tile_contraction
from graphc.codegen.schedule import MAX_UNROLLED, MODEL, Choice, NoOption, Schedule, pick
from graphc.codegen.sites import Access, Nest, Site, tile_work, unrolled
from graphc.codegen.target import LINE, Target
from graphc.codegen.traffic import FULL, choose_order, footprint
from graphc.ir.demand import UNROLLED_REDUCTION, WIDE_STRIDE
from graphc.ir.index import Derived, Ix, Var

SPLIT = 4  # independent partial results of a reduction that has too few of its own
BLOCK = 128  # places of the lane axis (each in a page of its own) for which a transposition walks all other axes
STRETCH = 1 << 14  # bytes from which on several stretches of a row are read at once
SHARED = 0.75  # what is computed another way must cost less than so much of the usual one
MAX_TOGETHER = 8  # vectors of the lane axis that may be computed at once because they share work
MAX_TURNED = 2 * MAX_UNROLLED  # the same where vectors are transposed: element by element takes longer than the code is
CHUNK_VECTORS = 256  # vectors per parallel chunk of a long lane axis
STREAMS = 8  # rows read or written at once: rows of 4 KB share the places of the first cache
ROWS_WORK = 256  # operations on rows that are computed at once; what costs more does not wait for memory
SHORT_LOOP = 2  # tiles
MAX_ZIPPED, MAX_ZIPPED_WORK = 16, 256  # vectors computed together that are zipped, and operations and accesses for them
MAX_SHARED_WORK = 128  # operations on elements in the loop of a reduction, of places that share what they read
MOVED = 3  # innermost loops whose order may be another than the model's


def lane_count(nest: Nest, target: Target) -> int:
    """Lanes for the widest element type that takes part in arithmetic (index values of `argmax` not counted)."""
    floats = [a for site in nest.sites for a in site.accesses if a.buffer.dtype.is_float]
    # A single number, such as a learning rate in f64, is converted before it meets a vector.
    sizes = [a.buffer.dtype.itemsize for a in floats if a.buffer.type.size > 1]
    if not sizes:
        places = any(s.stage is not None and is_place(s.stage) for s in nest.sites)
        accesses = [a for site in nest.sites for a in site.accesses if not (places and a.is_store)]
        sizes = [a.buffer.dtype.itemsize for a in accesses if a.address.terms]  # others read one number, such as a key
    return target.lanes(max(4, *sizes) if sizes else 4)


def make_schedule(nest: Nest, target: Target, choice: Choice = MODEL, outermost: tuple[Var, ...] = ()) -> Schedule:
    """Choose lanes, tiles and loop orders for `nest`: the options of `choice`. NoOption when there are not so many.

    `outermost` are axes that lanes do not run along.
    """
    lanes = lane_count(nest, target)
    axes = [v for v in nest.axes if v.hi > 0 and v not in outermost]
    contraction = next((s for s in nest.sites if s.stage is not None and s.stage.op == "contract"), None)
    if contraction is not None:
        return _contraction_schedule(nest, contraction, axes, lanes, target, choice, outermost)
    if choice.panels or choice.chunk:
        raise NoOption
    rows = nest.rows
    barred = {*outermost, *(nest.axes[: nest.axes.index(rows[-1]) + 1] if rows else ())}
    options = [o for o in _lane_options(nest, target, lanes) if o[2] is None or o[2] not in barred]
    options.sort(key=lambda o: o[:2])
    together = _together(nest, target, lanes, options[0][0], outermost) if not rows else None
    if together is not None and not choice.lane:
        if choice != MODEL:
            raise NoOption
        lane, short = together
        schedule = _with_lane(nest, lane, lanes)
        schedule.whole, schedule.tile[short] = short, short.hi + 1
        schedule.dealt = frozenset(dealt_rows(unrolled(nest, short).loads, lane, target, lanes))
        if together_cost(nest, lane, short, lanes):
            schedule.crossed = short
        schedule.outermost = outermost
        return schedule
    lane = pick(options, choice.lane - (together is not None))[2]
    schedule = _with_lane(nest, lane, lanes, choice.sums)
    if lane is not None:
        schedule.dealt = frozenset(dealt_rows(loads_of(nest), lane, target, lanes))
    schedule.outermost = outermost
    _choose_tiles(nest, schedule, target, choice.tile)
    if rows:
        if choice.order:
            raise NoOption
        _tile_rows(nest, schedule, rows)
        return schedule
    if not choice.tile:
        _turn(nest, schedule)
    outer = _plain_innermost(nest, schedule, target)
    kept, moving = outer[:-MOVED], outer[-MOVED:]
    order = pick([*permutations(moving)] if choice.order else [moving], choice.order)
    schedule.order = [*kept, *order, *([lane] if lane is not None else [])]
    return schedule


def _plain_innermost(nest: Nest, schedule: Schedule, target: Target) -> list[Var]:
    """The axes outside the lane loop, in order; where that loop is so short that computing indices takes longer than
    using them, the last axis that no computed index depends on is innermost: it uses them again.
    """
    lane = schedule.lane
    outer = [v for v in schedule.order if v is not lane]
    if lane is None or schedule.turned is not None or any(s.stage is not None or s.loops for s in nest.sites):
        return outer
    if lane.hi + 1 > SHORT_LOOP * schedule.tile[lane] * schedule.lanes:
        return outer
    accesses = [a for site in nest.sites for a in site.accesses]
    indices = [*nest.other, *(a.address for a in accesses)]
    computed = [s for ix in indices for s, _ in ix.terms if not isinstance(s, Var)]
    used = {v for s in computed for v in Ix.of(s).symbols()}
    free = outer[max(1, len(schedule.outermost)) :]  # pieces for cores go along the outermost
    plain = next((v for v in reversed(free) if v not in used), None)
    if not used or plain is None:
        return outer
    extents = {plain: plain.hi + 1, lane: lane.hi + 1}
    if sum(footprint(a.address, extents, a.buffer.dtype.itemsize) for a in accesses) > target.l1_bytes * FULL:
        return outer
    return [*(v for v in outer if v is not plain), plain]


def _vectors_together(nest: Nest, lane: Var, lanes: int, most: int, usual: int) -> int:
    """How many vectors of the lane axis to compute at once.

    `usual`, or a power of two up to `most` for which they share so much (the words of one counter of random bits) that
    each takes less work.
    """
    best, least = usual, tile_work(nest, lane, lanes, 1)
    count = 2
    while count <= most:
        each = tile_work(nest, lane, lanes, count) / count
        if each < SHARED * least:
            best, least = count, each
        count *= 2
    return best


def _lane_options(nest: Nest, target: Target, lanes: int) -> list[tuple[float, int, Var | None]]:
    """Estimated cycles, and a number that decides between equals, for each axis across the lanes; None: for loops of
    the sites' own. Rows are kept by these only.
    """
    options: list[tuple[float, int, Var | None]] = [(inner_cost(nest, nest.sites, lanes), 1, None)]
    if any(s.is_kept for s in nest.sites):
        return options
    for number, var in enumerate(v for v in nest.axes if v.hi > 0):
        turns = _turned_axis(nest, var, lanes) is not None
        zips = _are_zipped(nest, var, lanes)
        dealt = dealt_rows(loads_of(nest), var, target, lanes)
        options.append((sum(site_cost(s, nest, var, lanes, turns, zips, dealt) for s in nest.sites), -number, var))
    return options


def keeping_pays(kept: Nest, plain: Nest, target: Target) -> bool:
    """Whether a nest that keeps rows costs no more than `plain`, which computes them again."""
    return _least_cost(kept, target) <= _least_cost(plain, target)


def cutting_pays(cut: Nest, plain: Nest, target: Target) -> bool:
    """Whether a nest whose axes are cut costs so much less than `plain` that shorter loops do not matter."""
    return _least_cost(cut, target) < _least_cost(plain, target) * SHARED


def _least_cost(nest: Nest, target: Target) -> float:
    """Estimated cycles with the best axis across the lanes."""
    return min(cost for cost, _, _ in _lane_options(nest, target, lane_count(nest, target)))


def _together(
    nest: Nest, target: Target, lanes: int, limit: float, outermost: tuple[Var, ...]
) -> tuple[Var, Var] | None:
    """A lane axis and a short one, all of whose places are computed together, if that costs less than `limit`.

    Places of a short axis that is reduced in line share their operands: the exponentials of a softmax over few classes.
    """
    if any(s.stage is not None or s.loops for s in nest.sites):
        return None
    best: tuple[float, tuple[Var, Var] | None] = (limit, None)
    for short in nest.axes:
        if short in outermost or not 0 < short.hi < UNROLLED_REDUCTION or all(s.maps < short.hi for s in nest.sites):
            continue
        walk = unrolled(nest, short)
        work = work_cycles(walk.maps, walk.heavy_maps)
        stores = [(a, short.hi + 1) for s in nest.sites for a in s.accesses if a.is_store]
        if walk.operations > MAX_UNROLLED:
            continue
        for lane in nest.axes:
            if lane is short or lane in outermost or lane.hi + 1 < lanes:
                continue
            dealt = dealt_rows(walk.loads, lane, target, lanes)
            each = work + sum(access_cost(Access(n, ix), lane, lanes, dealt=dealt) for n, ix in walk.loads)
            stored = together_cost(nest, lane, short, lanes)
            each += sum(count * (stored or access_cost(a, lane, lanes)) for a, count in stores)
            cost = each * nest.points / (short.hi + 1) / (lane.hi + 1) * math.ceil((lane.hi + 1) / lanes)
            if cost < best[0]:
                best = cost, (lane, short)
    return best[1]


def _with_lane(nest: Nest, lane: Var | None, lanes: int, number: int = 0, bordered: bool = False) -> Schedule:
    """A schedule with its lanes and option `number` of its reduction loops chosen, and no tiles; `bordered`: loops of a
    contraction leave out steps where they can.
    """
    schedule = Schedule(lanes, lane, [v for v in nest.axes if v is not lane], dict.fromkeys(nest.axes, 1))
    if lane is not None:
        schedule.order.append(lane)
    counts = [1]
    for site in nest.sites:
        if bordered:
            schedule.borders.update(borders(site))
        if lane is None:
            best = own_lane(site, lanes)
            if best is not None:
                schedule.site_lane[site] = best
        options = reduction_loops(site, schedule, bool(number))
        schedule.unrolled[site], schedule.loop_order[site] = options[min(number, len(options) - 1)]
        counts.append(len(options))
    pick(range(max(counts)), number)
    return schedule


def _contraction_schedule(
    nest: Nest,
    site: Site,
    axes: list[Var],
    lanes: int,
    target: Target,
    choice: Choice,
    outermost: tuple[Var, ...],
) -> Schedule:
    """The schedule of a contraction that takes the options of `choice`. Lanes that must lose are not looked at."""
    ways = (False, True) if borders(site) else (False,)
    started = [_with_lane(nest, lane, lanes, 0, bordered) for lane in (*axes, None) for bordered in ways]
    least = [least_cycles(site, nest, schedule) for schedule in started]
    made: dict[int, Schedule] = {}
    fewest = math.inf
    for number in sorted(range(len(started)), key=least.__getitem__):
        if least[number] > fewest and not choice.lane:
            break
        made[number] = _contraction_with(nest, site, started[number], target, outermost)
        fewest = min(fewest, made[number].cycles)
    schedule = made[pick(sorted(made, key=lambda number: (made[number].cycles, number)), choice.lane)]
    if choice.tile or choice.sums or choice.panels:
        begun = _with_lane(nest, schedule.lane, lanes, choice.sums, bool(schedule.borders))
        schedule = _contraction_with(nest, site, begun, target, outermost, choice)
    schedule.chunk = choose_chunk(site, nest, schedule, target, choice.chunk) if not outermost else None
    choose_order(site, nest, schedule, target, choice.order)
    return schedule


def _contraction_with(
    nest: Nest,
    site: Site,
    schedule: Schedule,
    target: Target,
    outermost: tuple[Var, ...],
    choice: Choice = MODEL,
) -> Schedule:
    """The schedule of a contraction, with the lanes and the loops of `schedule`, but for chunks and order."""
    lane, lanes = schedule.lane, schedule.lanes
    schedule.outermost = outermost
    copied = frozenset(k for k in (0, 1) if can_copy(k, site, nest.axes, lane))
    schedule.crossed = crossed_axis(nest, lane)
    cost = tile_contraction(site, nest, schedule, target, copied, choice.tile)
    schedule.panels = choose_panels(site, nest, schedule, target, choice.panels)
    missing = copied - {panel.operand for panel in schedule.panels}
    if any(abs(site.operands[0][k][1].coefficient(lane)) > 1 for k in missing if lane is not None):
        cost = tile_contraction(site, nest, schedule, target, number=choice.tile)
        schedule.panels = choose_panels(site, nest, schedule, target, choice.panels)
    cost += sum(panel.copying for panel in schedule.panels if not panel.is_optional)
    others = [s for s in nest.sites if s is not site]
    if lane is None and site in schedule.site_lane:
        cost += across_cost(site, nest, lanes)
    others_cost = (
        inner_cost(nest, others, lanes) if lane is None else sum(_other_cost(s, nest, schedule) for s in others)
    )
    schedule.cycles = cost + others_cost
    return schedule


def _turned_axis(nest: Nest, lane: Var, lanes: int) -> Var | None:
    """In a kernel that only moves elements: an axis along which all loads that are strided along `lane` are contiguous,
    forwards or backwards.

    Such loads are made along that axis, and transposed in registers.
    """
    if any(s.stage is not None or s.loops for s in nest.sites):
        return None
    strided = [
        a for s in nest.sites for a in s.accesses if not a.is_store and abs(a.address.coefficient(lane)) > WIDE_STRIDE
    ]
    if _work(nest) * lanes > MAX_TURNED:  # every place is computed in line
        return None
    if not strided or lane.hi + 1 < lanes:
        return None
    fits = (v for v in nest.axes if v is not lane and v.hi + 1 >= lanes)
    return next((v for v in fits if all(abs(a.address.coefficient(v)) == 1 for a in strided)), None)


def _work(nest: Nest) -> int:
    return sum(s.operations + len(s.accesses) for s in nest.sites)


def _turn(nest: Nest, schedule: Schedule) -> None:
    """Transpose in registers where that is possible."""
    lane, lanes = schedule.lane, schedule.lanes
    schedule.turned = var = _turned_axis(nest, lane, lanes) if lane is not None else None
    if lane is None or var is None:
        return
    # Blocks as long as a cache line on both sides, where code for them is not too long.
    size = max((a.buffer.dtype.itemsize for s in nest.sites for a in s.accesses), default=LINE)
    line = max(1, LINE // size // lanes)
    if _work(nest) * lanes * line * line > MAX_UNROLLED or min(lane.hi, var.hi) + 1 < line * lanes:
        line = 1
    schedule.tile.update({var: lanes * line, lane: line})
    schedule.lane_block = BLOCK


def _filling_axis(nest: Nest, lane: Var, lanes: int) -> Var | None:
    """The axis whose places fill what lies between the lanes in all that is stored: vectors of them are zipped, and
    stored as whole vectors.
    """
    step, stores = _step_of_stores(nest, lane, lanes)
    if _work(nest) * step > MAX_ZIPPED_WORK:
        return None
    return next((v for v in nest.axes if v.hi + 1 == step and all(a.coefficient(v) == 1 for a in stores)), None)


def _step_of_stores(nest: Nest, lane: Var, lanes: int) -> tuple[int, list[Ix]]:
    """How far apart the lanes of what is stored lie, where vectors can be zipped, else 0; and where it is stored."""
    stores = [a.address for s in nest.sites for a in s.accesses if a.is_store]
    step = stores[0].coefficient(lane) if stores else 0
    can = 1 < step <= lanes and not step & (step - 1) and all(a.coefficient(lane) == step for a in stores)
    return step if can else 0, stores


def _are_zipped(nest: Nest, lane: Var, lanes: int) -> bool:
    """Whether vectors fill what lies between each other's lanes in all that is stored."""
    step, stores = _step_of_stores(nest, lane, lanes)
    if not step:
        return False
    return _filling_axis(nest, lane, lanes) is not None or len({a.const % step for a in stores}) == len(stores) == step


def _other_cost(site: Site, nest: Nest, schedule: Schedule) -> float:
    """Estimated cycles of a site beside a contraction; stores across the lanes are part of the contraction's tiles."""
    assert schedule.lane is not None
    crossed = [a for a in site.accesses if a.is_store and a.address.coefficient(schedule.lane) > 1]
    if schedule.crossed is not None and crossed:
        site = replace(site, accesses=[a for a in site.accesses if a not in crossed])
    return site_cost(site, nest, schedule.lane, schedule.lanes)


_Loops = tuple[tuple[Var, ...], tuple[Var, ...]]
"""The loops of a site: unrolled ones, and looped ones, the outermost first."""


def reduction_loops(site: Site, schedule: Schedule, more: bool = False) -> list[_Loops]:
    """A site's own loops split into unrolled ones and looped ones, the most contiguous innermost; with `more` in all
    other ways after that.
    """
    own_lane = schedule.site_lane.get(site)
    own = () if own_lane is None else (own_lane,)
    if site.stage is not None and is_place(site.stage):  # the first extreme wins: keep the order
        return [((), (*(v for v in site.loops if v is not own_lane), *own))]
    short: list[Var] = []
    if site.stage is not None:
        budget = MAX_UNROLLED // 24
        for var in sorted(site.loops, key=lambda v: v.hi):
            extent = var.hi + 1
            if var is own_lane or extent > 8 or extent > budget or var in schedule.borders:
                continue
            if extent == 1 or _in_window(site, var):
                short.append(var)
                budget //= extent
    options: list[_Loops] = []
    for inline in (short, [v for v in short if v.hi == 0]) if more else (short,):
        looped = [v for v in site.loops if v not in inline and v is not own_lane]
        looped.sort(key=lambda v: -sum(abs(a.address.coefficient(v)) for a in site.accesses))
        kept, moving = looped[:-MOVED], looped[-MOVED:]
        for order in permutations(moving) if more else (moving,):
            options.append((tuple(v for v in site.loops if v in inline), (*kept, *order, *own)))
    return list(dict.fromkeys(options))


def _in_window(site: Site, var: Var) -> bool:
    """Whether `var` steps through memory together with another variable at the same stride scale: a sliding window."""
    for access in site.accesses:
        mine = abs(access.address.coefficient(var))
        if mine and sum(1 for _, c in access.address.terms if 0 < abs(c) <= 4 * mine and c % mine == 0) > 1:
            return True
    return False


def _choose_tiles(nest: Nest, schedule: Schedule, target: Target, number: int = 0) -> None:
    lane = schedule.lane
    if lane is None:
        pick((1,), number)
    else:
        vectors = (lane.hi + 1) // schedule.lanes
        work = sum(s.operations for s in nest.sites) + 1
        has_stage = any(s.stage is not None for s in nest.sites)
        want = 4 if work <= 12 or has_stage else 2 if work <= 40 else 1
        if schedule.dealt:  # each place of a row is a vector
            want = min(want, max(1, MAX_ZIPPED // max(length for _, length in schedule.dealt)))
        if not has_stage and any(isinstance(s, Derived) for ix in nest.other for s, _ in ix.terms):
            want = _vectors_together(nest, lane, schedule.lanes, min(vectors, MAX_TOGETHER), want)
        sizes = dict.fromkeys((min(want, vectors), 1, 2, 4, 8))
        schedule.tile[lane] = max(1, pick([n for n in sizes if n <= vectors or n == 1], number))
        if (filling := _filling_axis(nest, lane, schedule.lanes)) is not None:
            schedule.tile[filling] = filling.hi + 1
            schedule.tile[lane] = min(schedule.tile[lane], max(1, MAX_ZIPPED // (filling.hi + 1)))
        if (var := _shared_axis(nest, lane)) is not None:
            most = target.registers // 2 // schedule.tile[lane]
            sizes = [n for n in (4, 2) if n <= most and not (var.hi + 1) % n and work * n <= MAX_SHARED_WORK]
            schedule.tile[var] = max(sizes, default=1)
    for site in nest.sites:
        if site.stage is not None:
            points = len(site.points) * schedule.tile.get(lane, 1) if lane is not None else len(site.points)
            schedule.split[site] = max(1, SPLIT // points)
            if lane is None and is_searched(site, schedule.site_lane.get(site), schedule.lanes):
                schedule.split[site], schedule.steps[site] = 1, BLOCK_VECTORS
            if _is_streamed(site, schedule):
                schedule.streamed.add(site)


def _shared_axis(nest: Nest, lane: Var) -> Var | None:
    """Another axis than the lanes', whose places read the most of the same vectors in the loops of a reduction."""
    sites = [s for s in nest.sites if s.stage is not None]
    if not sites or any(s.is_kept for s in nest.sites) or not all(s.loops for s in sites):
        return None
    vectors = [a for s in sites for a in s.accesses if a.address.coefficient(lane)]
    shared = {v: sum(not a.address.coefficient(v) for a in vectors) for v in nest.axes if v is not lane and v.hi}
    best = max(shared, key=shared.__getitem__, default=None)
    return best if best is not None and shared[best] else None


def _tile_rows(nest: Nest, schedule: Schedule, rows: tuple[Var, ...]) -> None:
    """How many rows are added up before they are added to what is in memory: as many as are read from end to end at
    once without being in each other's way.
    """
    schedule.rows, last = rows, rows[-1]
    if schedule.lane is None or any(s.stage is not None or s.loops for s in nest.sites):
        return
    accesses = [a for s in nest.sites for a in s.accesses]
    streams = len({a.buffer for a in accesses if a.address.coefficient(last) and a.address.coefficient(schedule.lane)})
    work = _work(nest) * schedule.tile[schedule.lane]
    count = max(1, STREAMS // max(1, streams))
    while count > 1 and ((last.hi + 1) % count or work * count > ROWS_WORK):
        count //= 2
    schedule.tile[last] = count


def _is_streamed(site: Site, schedule: Schedule) -> bool:
    """Whether the partial results of a reduction are those of stretches of a long row: one core then has more lines
    under way than it asks for where all that it reads lies in a row. Two rows read side by side are that already.
    """
    lane, split = schedule.site_lane.get(site), schedule.split[site]
    if lane is None or split < 2 or schedule.lane is not None or (site.stage is not None and is_place(site.stage)):
        return False
    loads = [a for a in site.accesses if a.buffer.type.size > 1]
    least = min((a.buffer.dtype.itemsize for a in loads), default=0) * (lane.hi + 1) // split
    return len(loads) == 1 and least >= STRETCH and all(a.address.coefficient(lane) == 1 for a in loads)
