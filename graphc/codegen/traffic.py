"""How much a contraction moves between caches by the order of its loops, and the order that moves least.

For each loop, from the innermost out: when all that one of its iterations touches fits a cache, the next iteration
finds there what it touches again; otherwise every iteration brings in its data anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations

from graphc.codegen.schedule import Panel, Schedule, pick
from graphc.codegen.sites import Nest, Site
from graphc.codegen.target import LINE, Target
from graphc.ir.index import Ix, Var

FULL = 0.75  # share of a cache that a working set may fill
NEAR, FAR = 1 / 16, 1 / 5  # cycles for a byte that comes from the second-level cache, and from beyond it
MAX_AXES = 4  # more axes have too many orders to look at; the order of the others stays
PIECES_PER_CORE = 8  # of a contraction, so that an uneven finish costs little
OWN = 0.25  # of the second-level cache that a panel may fill for which the kernel itself has the memory
HELD, MOST_HELD = 0.6, 1 << 19  # the same for a block of tiles of an axis without lanes: share of that cache, and bytes
FILLED = 0.5  # of the time that copying takes: for a panel that stays in a cache near the core
APART = 0.03  # of the arithmetic: what it costs to read a block's rows far apart rather than side by side
UNEVEN = 1.01  # times the shortest time in which the last core ends that larger pieces may take
GAIN = 0.98  # what another order must bring


def footprint(address: Ix, extents: Mapping[Var, int], itemsize: int) -> int:
    """About how many bytes, in whole cache lines, are touched when each variable takes so many neighbouring values."""
    span, count = 1, 1  # elements of a contiguous run, and runs
    for stride, extent in sorted((abs(c), extents.get(s, 1)) for s, c in address.terms if isinstance(s, Var)):
        if extent == 1:
            continue
        if stride <= span or stride * itemsize < LINE:
            span += stride * (extent - 1)
        else:
            count *= extent
    return count * math.ceil(span * itemsize / LINE) * LINE


class Traffic:
    """The loops of one scheduled contraction with all that its kernel touches, and the bytes that it moves for an order
    of its axes.
    """

    def __init__(self, site: Site, nest: Nest, schedule: Schedule, target: Target, copied: Sequence[Panel]) -> None:
        self.schedule = schedule
        self.target = target
        self.caches = ((target.l1_bytes, NEAR), (target.l2_bytes, FAR))
        self.axes = nest.axes
        self.step = {v: schedule.tile[v] * (schedule.lanes if v is schedule.lane else 1) for v in nest.axes}
        self.tiles = {v: -(-(v.hi + 1) // self.step[v]) for v in nest.axes}
        self.sums = {v: v.hi + 1 for v in site.loops}
        panels = {p.operand: p for p in copied}
        others = [a for s in nest.sites if s is not site and not s.loops for a in s.accesses]
        self._operands: list[tuple[Ix, int, Panel | None]] = [
            *((ix, leaf.dtype.itemsize, panels.get(k)) for k, (leaf, ix) in enumerate(site.operands[0])),
            # A store brings in its line first, and writes it back later.
            *((a.address, a.buffer.dtype.itemsize * (2 if a.is_store else 1), None) for a in others),
        ]
        self._known: dict[tuple[int, ...], list[int]] = {}

    def _level(self, extents: Mapping[Var, int]) -> list[int]:
        key = tuple(extents.values())
        if key not in self._known:
            self._known[key] = [
                footprint(ix, extents, size) if panel is None else _packed(panel, extents)
                for ix, size, panel in self._operands
            ]
        return self._known[key]

    @property
    def whole(self) -> int:
        """Bytes of all that the kernel touches."""
        return sum(self._level({**{v: v.hi + 1 for v in self.axes}, **self.sums}))

    def cycles(self, order: Sequence[Var], block: tuple[Var | None, int], columns: int) -> float:
        """Estimated cycles for moving all that with these outer axes, outermost first, this block, and so many
        places of the lane axis at a time (0: all).
        """
        schedule, (blocked, size) = self.schedule, block
        lane, chunk = schedule.lane, schedule.chunk
        loops: list[tuple[Var, int]] = []  # innermost first: variable, values that it has taken after the loop
        if blocked is not None:
            loops.append((blocked, min(size * self.step[blocked], blocked.hi + 1)))
        if lane is not None:
            loops.append((lane, columns or lane.hi + 1))
        extents = {**self.step, **self.sums}
        if chunk is not None:
            extents[chunk.var] = chunk.size
        parts = [(chunk.var, chunk.var.hi + 1)] if chunk is not None else []
        if lane is not None:
            loops += parts
        loops += [(v, v.hi + 1) for v in reversed(order)]
        if lane is None:
            loops += parts
        if lane is not None and columns:
            loops.append((lane, lane.hi + 1))
        levels, trips = [self._level(extents)], []
        for var, reached in loops:
            trips.append(-(-reached // extents[var]))
            extents[var] = reached
            levels.append(self._level(extents))
        total = 0.0
        for capacity, cost in self.caches:
            moved = [float(n) for n in levels[0]]
            for inner, outer, trip in zip(levels, levels[1:], trips, strict=False):
                stays = sum(inner) <= capacity * FULL
                moved = [m * (b / a if stays else trip) for m, a, b in zip(moved, inner, outer, strict=True)]
            total += cost * sum(moved)
        return total


def _packed(panel: Panel, extents: Mapping[Var, int]) -> int:
    """Bytes of so much of a copied operand, which lies without gaps."""
    elements = math.prod(extents.get(v, 1) for v in (panel.axis, *panel.outer, *panel.loops))
    return elements * panel.memory.type.dtype.itemsize


def _near(panel: Panel, traffic: Traffic, block: tuple[Var | None, int]) -> Panel | None:
    """`panel` as one that the kernel fills, when it may do so with this block.

    On the lane axis: all tiles that read one of its tiles run right after each other. On another one: it is in blocks,
    and one of them for a chunk of the sum is not too large.
    """
    chunk = traffic.schedule.chunk
    if panel.is_lane:
        readers = [v for v in traffic.axes if v.hi and not panel.address.coefficient(v)]
        if chunk is not None or readers != [block[0]]:
            return None
        nbytes = panel.length * panel.memory.type.dtype.itemsize
        fits = block[1] >= traffic.tiles[readers[0]] and nbytes <= traffic.target.l2_bytes * OWN
        return replace(panel, is_near=True) if fits else None
    if block[0] is not panel.axis:
        return None
    near = replace(
        panel,
        is_near=True,
        held=block[1],
        chunk=chunk if chunk is not None and chunk.var in panel.loops else None,
    )
    nbytes = near.held * near.length * panel.memory.type.dtype.itemsize
    return near if nbytes <= min(traffic.target.l2_bytes * HELD, MOST_HELD) else None


_Way = tuple[list[Var], tuple[Var | None, int], int, tuple[Panel, ...]]
"""An order of the axes but the lane axis, a block, how many places of the lane axis to take at a time, and panels."""


class _Ways:
    """Ways of going through the domain of a contraction, and what they cost."""

    def __init__(self, site: Site, nest: Nest, schedule: Schedule, target: Target) -> None:
        self._schedule = schedule
        self._target = target
        self._make = partial(Traffic, site, nest, schedule, target)
        self._known: dict[tuple[int, ...], Traffic] = {}
        self.plain = self._traffic([p for p in schedule.panels if not p.is_optional])

    def _traffic(self, copied: Sequence[Panel]) -> Traffic:
        key = tuple(p.operand for p in copied)
        if key not in self._known:
            self._known[key] = self._make(copied)
        return self._known[key]

    def way(self, order: list[Var], block: tuple[Var | None, int], columns: int) -> tuple[float, _Way]:
        """This way with its panels, and before it the estimated cycles for moving all that."""
        panels: list[Panel] = []
        cost = 0.0
        for panel in self._schedule.panels:
            near = _near(panel, self.plain, block)
            fills = 0 if near is None or panel.is_lane else self._fills(panel, order, block[0], columns)
            copying = panel.copying * FILLED
            if panel.is_optional:
                filling, apart = copying * fills, APART * self._schedule.cycles
                if near is not None and filling < apart:
                    panels.append(near)
                    cost += filling
                else:
                    cost += apart
            elif near is not None:
                panels.append(near)
                cost += copying * max(0, fills - 1)
            else:
                panels.append(panel)
                size = panel.memory.type.nbytes  # written to memory and read there
                cost += 2 * size * (FAR if size > self._target.l2_bytes * FULL else NEAR)
        return cost + self._traffic(panels).cycles(order, block, columns), (order, block, columns, tuple(panels))

    def _fills(self, panel: Panel, order: Sequence[Var], blocked: Var | None, columns: int) -> int:
        """How often the kernel fills a panel of blocks: anew for each piece of the lane axis, and of other axes."""
        lane = self._schedule.lane
        pieces = -(-(lane.hi + 1) // columns) if lane is not None and columns else 1
        others = (self.plain.tiles[v] for v in order if v is not blocked and not panel.address.coefficient(v))
        return pieces * math.prod(others)


def choose_order(site: Site, nest: Nest, schedule: Schedule, target: Target, number: int = 0) -> None:
    """Set the order of the axes and the block of the contraction `site` so that it moves least between caches, or as
    option `number` after that; and which panels are near.
    """
    lane = schedule.lane
    outer = [v for v in schedule.order if v is not lane]
    found: list[tuple[float, _Way]] = []
    kept = tuple(p for p in schedule.panels if not p.is_optional)
    best: tuple[float, _Way] = math.inf, (outer, schedule.block, schedule.lane_block, kept)
    if len(site.points) == 1 and len(site.operands[0]) == 2:
        ways = _Ways(site, nest, schedule, target)
        best = math.inf, ways.way(outer, schedule.block, schedule.lane_block)[1]
        fixed = [v for v in outer if v in schedule.outermost]
        free = [v for v in outer if v not in schedule.outermost]
        if free and ways.plain.whole > target.l1_bytes * FULL:
            first, moving = [*fixed, *free[:-MAX_AXES]], free[-MAX_AXES:]
            for order in permutations(moving):
                for block, columns in _blocks(order[-1], [*first, *order], ways.plain):
                    found.append(ways.way([*first, *order], block, columns))
                    if found[-1][0] < best[0] * GAIN:
                        best = found[-1]
    others = sorted((w for w in found if w is not best), key=lambda w: w[0]) if number else []
    _, (order, schedule.block, schedule.lane_block, schedule.panels) = pick([best, *others], number)
    schedule.order = [*order, *([lane] if lane is not None else [])]


def _blocks(var: Var, order: Sequence[Var], traffic: Traffic) -> Iterator[tuple[tuple[Var | None, int], int]]:
    """Sizes of a block of `var` inside the lane loop, with the places of the lane axis to take at a time so that there
    are pieces for all cores.
    """
    yield (None, 1), 0
    lane = traffic.schedule.lane
    if lane is None or traffic.tiles[lane] == 1 or traffic.schedule.outermost:
        return
    others = math.prod(traffic.tiles[v] for v in order if v is not var)
    count = traffic.tiles[var]
    sizes = (n << k for k in range(count.bit_length()) for n in (2, 3))
    for size in dict.fromkeys(-(-count // -(-count // n)) for n in sizes):  # all blocks as large as each other
        pieces = others * -(-traffic.tiles[var] // size)
        wanted = -(-traffic.target.cores * PIECES_PER_CORE // pieces) if traffic.target.cores > 1 else 1
        if wanted == 1:
            yield (var, size), 0
            continue
        step = traffic.step[lane]
        tiles = _even_piece((lane.hi + 1) / step, -(-traffic.tiles[lane] // wanted), pieces, traffic.target.cores)
        yield (var, size), tiles * step


def _even_piece(tiles: float, most: int, times: int, cores: int) -> int:
    """Of how many tiles of the lane axis, `most` at most and half of that at least, a piece should consist so that all
    cores end together, where `times` pieces go along the same tiles. Large pieces are handed out before what is left.
    """

    def longest(size: int) -> float:
        whole = times * int(tiles // size)
        return max(-(-whole // cores) * size, whole // cores * size + tiles % size, times * tiles / cores)

    best = min(map(longest, range(-(-most // 2), most + 1)))
    return max(n for n in range(-(-most // 2), most + 1) if longest(n) <= best * UNEVEN)
