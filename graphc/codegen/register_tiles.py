"""Register tiles of contractions: how many points are computed at once, so that operands are loaded seldom."""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, compress
from operator import itemgetter

from graphc.codegen.crossing import crossing_cost
from graphc.codegen.schedule import MAX_UNROLLED, Schedule, pick
from graphc.codegen.sites import Nest, Site
from graphc.codegen.target import LINE, PAGE, PER_CYCLE, Target
from graphc.ir.demand import WIDE_STRIDE
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node

STREAMED = 0.2  # cycles for a vector of new data, beside the arithmetic: it comes from farther than the nearest cache
SCATTERED = 1.05  # cost of a tile that takes an operand's elements from several rows far apart
CROWDED = 0.1  # of the arithmetic: for each row of a tile that finds no place in the nearest cache beside the others
SHUFFLED = 1.5  # cycles for taking a vector's elements out of longer ones, beside the arithmetic, which waits for it
ENTERED = 2.0  # cycles for a loop that leaves out steps: its bounds are not foreseen
FAR = 1 << 20  # elements: more than any cache line or page has
STEPS, POINTS = 4, 64  # of a sum in one pass through its loop: steps, and multiply-adds
SHORT = 8  # vectors up to which a row is short
ROW = 4  # vectors from which on a row is long
TILES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16)


def tile_contraction(
    site: Site, nest: Nest, schedule: Schedule, target: Target, copied: frozenset[int] = frozenset(), number: int = 0
) -> float:
    """Choose the register tile with the most multiply-adds per load that fits the registers with little waste, or
    option `number` after it.

    Operands whose number is in `copied` will lie in panels. Gives the estimated cycles of the whole contraction.
    """
    budget = target.registers - 3  # accumulators; the rest holds operands
    free = target.registers - (0 if target.fma else 1)  # a product that is added by itself needs a place too
    axes = [v for v in nest.axes if v.hi > 0]
    lanes = schedule.lanes
    extents = [max(1, (v.hi + 1) // lanes) if v is schedule.lane else v.hi + 1 for v in axes]
    sizes = [
        [t for t in TILES if t <= (1 if v in schedule.outermost else n)] for v, n in zip(axes, extents, strict=True)
    ]
    if _is_outer_product(site, schedule):
        sizes = [s if v is schedule.lane else s[:1] for v, s in zip(axes, sizes, strict=True)]
    taps = math.prod(v.hi + 1 for v in schedule.unrolled[site])
    per_point = len(site.points)
    loads = _LoadCounter(site, axes, schedule, target, copied)
    ranked: list[tuple[float, float, tuple[int, ...]]] = []  # the best so far, not more than are asked for
    limit = math.inf
    far = _far_axes(site, axes, schedule)
    rows = _row_steps(site, axes, schedule)
    crossed, stores = schedule.crossed, _stores_across(site, nest, schedule)
    lane = schedule.lane
    # Of a long row what whole tiles leave is a small share. Without windows, whose elements several sums use, narrower
    # tiles load an element for each multiply-add, and that costs what they save.
    across = axes.index(lane) if lane is not None and lane.hi < SHORT * lanes and taps > 1 else None
    # How much more than there is is computed along an axis cut into pieces of a size.
    excess = [{t: math.ceil(n / t) * t / n for t in pieces} for n, pieces in zip(extents, sizes, strict=True)]
    for tile in _products(sizes, min(budget, max(1, MAX_UNROLLED // taps)) // per_point):
        points = math.prod(tile) * per_point
        steps = points * taps
        waste = math.prod([known[t] for known, t in zip(excess, tile, strict=True)])
        if _arithmetic(points, taps) / steps * waste >= limit:
            continue  # whatever it loads
        cost, vectors = 0.0, 0
        for count, part in _passes(tile, across, axes, lanes):
            own = math.prod(part) * per_point
            loads.take(part, free - own)
            taken = SHUFFLED * loads.shuffled()
            cost += count * (max(_arithmetic(own, taps), loads.count() / PER_CYCLE + 0.6) + taken)
            vectors += count * own
        others = waste if across is None else math.prod([excess[k][t] for k, t in enumerate(tile) if k != across])
        cost *= others / (vectors * taps)
        if cost >= limit:
            continue
        loads.take(tile, free - points)
        if crossed is not None:
            cost += stores * crossing_cost(tile[axes.index(crossed)], lanes)
        if any(sum(tile[n] > 1 or axes[n] is schedule.lane for n in own) > 1 for own in far):
            cost *= SCATTERED
        if rows:
            cost *= 1 + CROWDED * _crowded(rows, tile, target)
        # Of tiles that the arithmetic bounds alike, those that take fewer new vectors for it wait less for them.
        rank = cost + STREAMED * loads.streamed() / steps * waste
        if rank < limit - 1e-9 and points + loads.registers() <= free:
            insort(ranked, (rank, cost, tile), key=itemgetter(0))
            del ranked[number + 1 :]
            limit = ranked[-1][0] if len(ranked) > number else math.inf
    _, best, chosen = pick(ranked or [(math.inf, math.inf, (1,) * len(axes))], number)
    schedule.tile.update(zip(axes, chosen, strict=True))
    points = math.prod(chosen) * per_point
    schedule.split[site] = max(1, 8 // points) if taps == 1 else 1
    if taps == 1 and schedule.split[site] == 1:
        innermost = [v for v in schedule.loop_order[site][-1:] if v not in schedule.borders]
        schedule.steps[site] = _steps_together(innermost, points)
    kept = _kept(site, schedule)
    steps = _vector_steps(site, nest, schedule)
    entries = sum(steps / math.prod(chosen) / (v.hi + 1) for v in schedule.loop_order[site][-1:] if v in kept)
    return best * per_point * steps * math.prod(kept.values()) + ENTERED * entries


def _kept(site: Site, schedule: Schedule) -> dict[Var, float]:
    """Loops that leave out steps: the share that the tiles of `schedule` take."""
    tile = {v: n * schedule.lanes if v is schedule.lane else n for v, n in schedule.tile.items()}
    across = schedule.lane or schedule.site_lane.get(site)
    looped = [v for v in schedule.loop_order[site] if v in schedule.borders and v is not across]
    return {v: schedule.borders[v].kept(tile) for v in looped}


def _arithmetic(points: int, taps: int) -> float:
    """Cycles for `taps` multiply-adds of each of `points` sums: too few independent sums wait for each other."""
    return points * taps * max(1.0, 8 / points) / PER_CYCLE + 0.6


def _passes(
    tile: tuple[int, ...], across: int | None, axes: Sequence[Var], lanes: int
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """What goes once along axis number `across`, which has the lanes: how many tiles of which sizes. After the whole
    ones come the vectors that are left, and then the one with fewer elements.
    """
    if across is None:
        yield 1, tile
        return
    whole, few = divmod(axes[across].hi + 1, lanes)
    full, left = divmod(whole, tile[across])
    for count, size in ((full, tile[across]), (min(left, 1), left), (min(few, 1), 1)):
        if count:
            yield count, (*tile[:across], size, *tile[across + 1 :])


def _is_outer_product(site: Site, schedule: Schedule) -> bool:
    """Whether nothing is added up and rows are long: memory bounds that, which is fastest one row after the other."""
    lane = schedule.lane
    return lane is not None and lane.hi + 1 >= ROW * schedule.lanes and all(v.hi == 0 for v in site.loops)


def _steps_together(innermost: Sequence[Var], points: int) -> int:
    """Steps of the sum in one pass through its loop, so that counting them takes no share of the work; those that
    divide the loop's length, if there are some.
    """
    most = min(STEPS, POINTS // points)
    if not innermost or most < 2:
        return 1
    return next((n for n in range(most, 1, -1) if (innermost[0].hi + 1) % n == 0), most)


def _vector_steps(site: Site, nest: Nest, schedule: Schedule) -> float:
    """Multiply-adds of vectors (of scalars, when nothing runs across lanes) for one point of each domain point."""
    steps = float(nest.points * math.prod(v.hi + 1 for v in site.loops))
    across = schedule.lane or schedule.site_lane.get(site)
    if across is None:
        return steps
    extent = across.hi + 1
    return steps / extent * math.ceil(extent / schedule.lanes)


def least_cycles(site: Site, nest: Nest, schedule: Schedule) -> float:
    """What a contraction takes at least, whatever its tile."""
    steps = len(site.points) * _vector_steps(site, nest, schedule)
    return steps * math.prod(_kept(site, schedule).values()) / PER_CYCLE


def _stores_across(site: Site, nest: Nest, schedule: Schedule) -> float:
    """Vectors stored across the lanes for each multiply-add of vectors."""
    lane = schedule.lane
    if schedule.crossed is None or lane is None:
        return 0.0
    stores = [a for s in nest.sites if s.root is not None for a in s.accesses if a.is_store]
    count = sum(a.address.coefficient(lane) > 1 for a in stores)
    return count / (len(site.points) * math.prod(v.hi + 1 for v in site.loops))


def _far_axes(site: Site, axes: list[Var], schedule: Schedule) -> list[list[int]]:
    """For each operand whose elements lie far apart along the sum, the axes that it has, by number.

    It can be copied into panels when the tile has only one of them.
    """
    order = [v for v in (*schedule.loop_order[site], *schedule.unrolled[site]) if v.hi]
    if len(site.points) != 1 or not order:
        return []
    return [
        [n for n, v in enumerate(axes) if _step(ix, v)]
        for leaf, ix in site.operands[0]
        if abs(_step(ix, order[-1])) * leaf.dtype.itemsize >= LINE
    ]


def _row_steps(site: Site, axes: list[Var], schedule: Schedule) -> list[tuple[int, ...]]:
    """For each operand of which the sum reads a few rows side by side: how many bytes its neighbours along the axes lie
    apart. Of an operand that lies along the lane axis it reads whole vectors of them, one after the other.
    """
    order = [v for v in (*schedule.loop_order[site], *schedule.unrolled[site]) if v.hi]
    if len(site.points) != 1 or not order:
        return []
    return [
        tuple(_step(ix, v) * leaf.dtype.itemsize for v in axes)
        for leaf, ix in site.operands[0]
        if (schedule.lane is None or not _step(ix, schedule.lane))
        and 0 < abs(_step(ix, order[-1])) * leaf.dtype.itemsize < LINE
    ]


def _crowded(rows: list[tuple[int, ...]], tile: tuple[int, ...], target: Target) -> int:
    """How many rows of a tile are too many for the nearest cache where they begin at the same places of pages.

    It has a page in each way, as it is looked up while the address is translated; a quarter more rows than ways were
    measured to do no harm.
    """
    count = 0
    for steps in rows:
        lines = {place // LINE for place in _places({0}, steps, tile)}
        count += max(Counter(line % (PAGE // LINE) for line in lines).values())
    ways = max(1, target.l1_bytes // PAGE)
    return max(0, count - ways * 5 // 4)


def _step(address: Ix, var: Var) -> int:
    """How far apart neighbours along `var` lie; far where the address divides it."""
    step = address.coefficient(var)
    return step if step or var not in address.symbols() else FAR


def _products(sizes: list[list[int]], limit: int) -> Iterator[tuple[int, ...]]:
    """All choices of one size per axis whose product is at most `limit` (at least the choice of the first sizes)."""
    if not sizes:
        yield ()
        return
    for size in sizes[0]:
        if size > max(limit, 1):
            break
        for rest in _products(sizes[1:], limit // size):
            yield (size, *rest)


def _places(places: set[int], steps: tuple[int, ...], tile: tuple[int, ...]) -> set[int]:
    """Where the elements of a tile lie that reads `places` at its first point, with `steps` between neighbours."""
    for step, count in zip(steps, tile, strict=True):
        if step and count > 1:
            places = {p + step * i for p in places for i in range(count)}
    return places


class _LoadCounter:
    """Counts the loads of an unrolled contraction body; equal addresses count once among the taps of a sliding window
    that share registers (`taps.by_elements`).

    `take` says of which tile.
    """

    def __init__(self, site: Site, axes: list[Var], schedule: Schedule, target: Target, copied: frozenset[int]) -> None:
        unrolled = schedule.unrolled[site]
        lane = schedule.lane or schedule.site_lane.get(site)
        forms: dict[tuple[Node, tuple[int, ...], tuple[int, ...], int], set[int]] = {}
        held: set[Node] = set()  # operands of which the nearest cache holds all that the places of the lane axis read
        for per_point in site.operands:
            for number, (buffer, ix) in enumerate(per_point):
                across = _step(ix, lane) if lane is not None else 0
                if across and number in copied:
                    across = 1
                read = math.prod(v.hi + 1 for v in {lane, *site.loops} if v is not None and ix.coefficient(v))
                if read * buffer.dtype.itemsize <= target.l1_bytes:
                    held.add(buffer)
                steps = tuple(_step(ix, v) * (schedule.lanes if v is schedule.lane else 1) for v in axes)
                taps = tuple(ix.coefficient(v) for v in unrolled)
                forms.setdefault((buffer, steps, taps, across), set()).add(ix.const)
        self._taps = math.prod(v.hi + 1 for v in unrolled)
        self._each: list[float] = []
        self._is_streamed: list[bool] = []
        self._is_shuffled: list[bool] = []
        slides: set[int] = set()
        for buffer, steps, taps, across in forms:
            wide = abs(across)
            self._each.append(1.0 if wide <= 1 else 1.0 + wide if wide <= WIDE_STRIDE else float(schedule.lanes))
            self._is_streamed.append(wide == 1 and buffer not in held)
            self._is_shuffled.append(1 < wide <= WIDE_STRIDE)
            reach = [abs(c) * v.hi for c, v in zip(taps, unrolled, strict=True)]
            slides |= {k for k, far in enumerate(reach) if any(0 < abs(s) <= far for s in steps)}
        self._ways: list[_Way] = []
        for count in range(len(slides) + 1):
            for inner in combinations(sorted(slides), count):
                places = []
                for (_, steps, taps, _), found in forms.items():
                    for k in inner:
                        found = {p + taps[k] * i for p in found for i in range(unrolled[k].hi + 1)}
                    places.append((steps, found))
                self._ways.append(_Way(self._taps // math.prod(unrolled[k].hi + 1 for k in inner), places))
        self._counts: list[int] = []
        self._groups = 1
        self._taken: tuple[tuple[int, ...], int] | None = None

    def take(self, tile: tuple[int, ...], free: int) -> None:
        """What is asked next is about a tile of these sizes along the axes, beside whose sums `free` registers are
        left.
        """
        if self._taken == (tile, free):
            return
        self._taken = tile, free
        least = math.inf
        for way in self._ways:
            counts = way.counts(tile)
            loads = way.groups * sum([each * n for each, n in zip(self._each, counts, strict=True)])
            if loads < least and (least == math.inf or _registers(counts) <= free):
                least, self._counts, self._groups = loads, counts, way.groups

    def count(self) -> float:
        """Loads."""
        return self._groups * sum([each * n for each, n in zip(self._each, self._counts, strict=True)])

    def streamed(self) -> int:
        """Those of them that are vectors of an operand which the nearest cache does not hold."""
        return self._groups * sum(compress(self._counts, self._is_streamed))

    def shuffled(self) -> int:
        """Those of them that are vectors of elements a few places apart."""
        return self._groups * sum(compress(self._counts, self._is_shuffled))

    def registers(self) -> int:
        """Registers for operands."""
        return _registers(self._counts)


def _registers(counts: Sequence[int]) -> int:
    """Registers for operands: all elements but the most numerous ones, which stream through one register."""
    return sum(counts) - max(counts, default=0) + 1


class _Way:
    """A body of `groups` groups of taps, in each of which elements are loaded once: for each operand how far it steps
    along the axes, and the places of its elements for one point.
    """

    def __init__(self, groups: int, places: list[tuple[tuple[int, ...], set[int]]]) -> None:
        self.groups = groups
        axes = [[k for k, step in enumerate(steps) if step] for steps, _ in places]  # along which each operand goes
        self._places = [
            (own, tuple([steps[k] for k in own]), found) for own, (steps, found) in zip(axes, places, strict=True)
        ]
        self._known: list[dict[tuple[int, ...], int]] = [{} for _ in places]

    def counts(self, tile: tuple[int, ...]) -> list[int]:
        """How many elements of each operand a group of a tile has."""
        counts: list[int] = []
        for (axes, steps, found), known in zip(self._places, self._known, strict=True):
            relevant = tuple([tile[k] for k in axes])
            count = known.get(relevant)
            if count is None:
                count = known[relevant] = len(_places(found, steps, relevant))
            counts.append(count)
        return counts
