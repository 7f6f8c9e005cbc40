"""Panels: an operand of a contraction copied into the order in which register tiles read it.

The rows of a large matrix lie far apart, so that each step of a sum touches other cache lines and other pages. In a
panel the elements of one register tile, for one step after the other, lie side by side; the copy costs little when each
element is used many times (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from graphc.codegen.schedule import Chunk, Panel, Schedule, pick
from graphc.codegen.sites import Nest, Site
from graphc.codegen.target import LINE, Target
from graphc.codegen.traffic import FULL, footprint
from graphc.codegen.values import accumulator_dtype, factor_type
from graphc.ir.demand import base_of
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import TensorType

STREAMED = 4  # nearest caches that a tile of the lane axis reads in one chunk of a sum, each line once
FEW = 8  # places from which a sum may read in turns as if from one
MIN_STEPS = 64  # vectors of a sum in one chunk, where what tiles read stays in a cache: parts are kept and read again
SHARED = 0.75  # of what all tiles read together there is at most so much
MIN_USES = 48  # multiply-adds that each element of an operand must take part in, or copying it does not pay


def choose_panels(site: Site, nest: Nest, schedule: Schedule, target: Target, number: int = 0) -> tuple[Panel, ...]:
    """The operands of the contraction `site` to copy, given its tiles and loop order: those for which it pays, and
    those that the kernel may copy for itself, or as option `number` others.
    """
    if len(site.points) != 1 or len(site.operands[0]) != 2:
        return pick(((),), number)
    panels = [p for p in (_panel(k, site, nest, schedule) for k in (0, 1)) if p is not None]
    paying = tuple(p for p in panels if _pays(p, target))
    optional = tuple(replace(p, is_optional=True) for p in panels if p not in paying and not p.is_lane)
    subsets = [c for n in range(len(panels) + 1) for c in combinations(panels, n) if c != paying]
    return pick([(*paying, *optional), *subsets], number)


def axes_of_points(site: Site) -> list[Var | None] | None:
    """The axis that runs along each dimension of the contraction (None: index 0 throughout); None if that is not so
    simple.
    """
    axes: list[Var | None] = []
    for ix in site.points[0]:
        if ix == Ix():
            axes.append(None)
        elif ix.const == 0 and len(ix.terms) == 1 and ix.terms[0][1] == 1 and isinstance(ix.terms[0][0], Var):
            axes.append(ix.terms[0][0])
        else:
            return None
    return axes


def can_copy(number: int, site: Site, axes: Sequence[Var], lane: Var | None) -> bool:
    """Whether operand `number` may be copied into panels along `lane`: its elements have one place each, and each is
    used often.
    """
    if len(site.points) != 1 or len(site.operands[0]) != 2 or lane is None:
        return False
    source, address = site.operands[0][number]
    known = axes_of_points(site)
    if known is None or any(not isinstance(symbol, Var) for symbol, _ in address.terms):
        return False
    if _is_padded(site, number, source):
        return False
    mine = [v for v in axes if address.coefficient(v)]
    elements = math.prod(v.hi + 1 for v in (*mine, *site.loops) if address.coefficient(v))
    uses = math.prod(v.hi + 1 for v in axes if v not in mine)
    return (
        lane in mine
        and all(v in known for v in mine)
        and any(v.hi and address.coefficient(v) for v in site.loops)
        and elements <= source.type.size  # a copy of sliding windows would repeat elements
        and uses >= MIN_USES
    )


def _is_padded(site: Site, number: int, source: Node) -> bool:
    """Whether the contraction pads the operand as it reads it from `source`."""
    assert site.stage is not None
    node = site.stage.inputs[number]
    while base_of(node) is not source:
        if node.op == "pad":
            return True
        node = node.inputs[0]
    return False


def _panel(number: int, site: Site, nest: Nest, schedule: Schedule) -> Panel | None:
    source, address = site.operands[0][number]
    mine = [v for v in nest.axes if address.coefficient(v)]
    tiled = [v for v in mine if v is schedule.lane or schedule.tile[v] > 1]
    if len(tiled) != 1 or not can_copy(number, site, nest.axes, tiled[0]):
        return None
    axis = tiled[0]
    is_lane = axis is schedule.lane
    width = schedule.tile[axis] * (schedule.lanes if is_lane else 1)
    loops = tuple(v for v in (*schedule.loop_order[site], *schedule.unrolled[site]) if v.hi and address.coefficient(v))
    outer = tuple(v for v in mine if v is not axis)
    steps = math.prod(v.hi + 1 for v in loops)
    dtype = factor_type(source.dtype)
    tiles = -(-(axis.hi + 1) // width)
    size = tiles * width * steps * math.prod(v.hi + 1 for v in outer)
    assert site.stage is not None
    memory = Scratch(site.stage, f"panel{number}", TensorType(dtype, (size,), source.type.device))
    return Panel(number, source, address, axis, is_lane, width, outer, loops, memory)


def _pays(panel: Panel, target: Target) -> bool:
    """Whether the kernel would otherwise read the operand from afar, or have no vectors of it."""
    step = min(_steps(panel)) * panel.source.dtype.itemsize
    is_far = step >= LINE and step * math.prod(v.hi + 1 for v in panel.loops) > target.l1_bytes
    return is_far or (panel.is_lane and panel.address.coefficient(panel.axis) != 1)


def _steps(panel: Panel) -> Iterator[int]:
    """How far apart elements are that the sum reads next, or after a few others: these are few lines read on and on."""
    others = 1
    for var in reversed(panel.loops):
        yield abs(panel.address.coefficient(var))
        others *= var.hi + 1
        if others > FEW:
            return


def choose_chunk(site: Site, nest: Nest, schedule: Schedule, target: Target, number: int = 0) -> Chunk | None:
    """Chunks of the outermost loop of a long sum, or as option `number` more or fewer of them; None when the sum is
    made at once.
    """
    loops, lane = schedule.loop_order[site], schedule.lane
    known = axes_of_points(site) if len(site.points) == 1 and len(site.operands[0]) == 2 else None
    if known is None or not loops or site.stage is None or any(v not in known for v in nest.axes):
        return pick((None,), number)
    if lane is None and schedule.site_lane.get(site) in (None, loops[0]):
        return pick((None,), number)
    extent = loops[0].hi + 1
    best = _chunk_count(site, nest, schedule, target)
    counts = dict.fromkeys((best, 2 * best, best // 2, 4 * best, 1))
    count = pick([n for n in counts if 1 <= n <= extent], number)
    if count == 1:
        return None
    widths = {v: schedule.tile[v] * (schedule.lanes if v is lane else 1) for v in nest.axes}
    held = math.prod(-(-(v.hi + 1) // w) * w for v, w in widths.items()) * (1 if lane is not None else schedule.lanes)
    type = TensorType(accumulator_dtype(site.stage.inputs[0].dtype), (held,), site.stage.type.device)
    return Chunk(loops[0], -(-extent // count), Scratch(site.stage, "sums", type))


def _chunk_count(site: Site, nest: Nest, schedule: Schedule, target: Target) -> int:
    """How many chunks pay, 1 when the sum is not that long.

    What a tile of the lane axis reads in one chunk is four times the nearest cache: the second one gives it as fast as
    it is used. When the sum itself runs across lanes, what all tiles read in one chunk fits the second-level cache, or,
    where one step of the outermost loop is too much for that, what two tiles do: neighbours then find there what they
    share, if they share anything.
    """
    lane, extent = schedule.lane, schedule.loop_order[site][0].hi + 1
    if lane is not None:
        itemsize = max(factor_type(leaf.dtype).itemsize for leaf, _ in site.operands[0])
        wanted = max(1, STREAMED * target.l1_bytes // (schedule.tile[lane] * schedule.lanes * itemsize))
        steps = math.prod(v.hi + 1 for v in site.loops)
        count = 1 if steps // extent > 2 * wanted else round(steps / wanted)
    elif not _is_shared(site, nest, schedule):
        return 1
    else:
        extents = {v: v.hi + 1 for v in (*nest.axes, *site.loops)}
        whole = sum(footprint(ix, extents, leaf.dtype.itemsize) for leaf, ix in site.operands[0])
        count = math.ceil(whole / (target.l2_bytes * FULL))
        if whole / extent > target.l2_bytes:
            extents.update({v: schedule.tile[v] for v in nest.axes})
            near = 2 * sum(footprint(ix, extents, leaf.dtype.itemsize) for leaf, ix in site.operands[0])
            count = math.ceil(near / (target.l2_bytes * FULL))
            steps = math.prod(v.hi + 1 for v in site.loops) // schedule.lanes
            count = 1 if near / extent > target.l2_bytes or steps < MIN_STEPS * count else count
    return max(1, min(count, extent))


def _is_shared(site: Site, nest: Nest, schedule: Schedule) -> bool:
    """Whether tiles read much of what other tiles read."""
    whole = {v: v.hi + 1 for v in (*nest.axes, *site.loops)}
    tile = {**whole, **{v: schedule.tile[v] for v in nest.axes}}
    tiles = math.prod(math.ceil((v.hi + 1) / schedule.tile[v]) for v in nest.axes)
    return any(
        footprint(ix, whole, leaf.dtype.itemsize) < SHARED * tiles * footprint(ix, tile, leaf.dtype.itemsize)
        for leaf, ix in site.operands[0]
    )
