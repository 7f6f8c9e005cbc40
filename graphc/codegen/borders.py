"""Borders of zeros around what a contraction reads: a loop of the sum leaves out the steps in which a tile meets
nothing else.

The gradient of a convolution by its input slides windows over a cotangent with as many zeros around it as windows
reach: of 5x5 taps over 10x10 elements half meet zeros alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from graphc.codegen.sites import Site
from graphc.ir.access import Index
from graphc.ir.demand import reduction_reads
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.record import record

LEAST_STEPS = 1 / 16  # of a loop that must be left out on average: bounds that are computed cost a little
LEAST_PRODUCTS = 1 << 13  # that must be left out: infinities and NaN may be lost, which is not for a trifle
MOST_TILES = 1 << 12  # for which steps are counted
_ONE_PLACE: Mapping[Var, int] = MappingProxyType({})


@record
class Border:
    """Of operand number `operand` elements other than zero lie only where dimension `first`, counted together with
    those up to `last`, is in [low, high). A loop of `steps` steps goes `step` places further there in each, from
    `start` on.
    """

    operand: int
    first: int
    last: int
    low: int
    high: int
    step: int
    steps: int
    start: Ix

    def place(self, operand: Node, at: Index) -> Ix:
        """Where `at` stands in these dimensions."""
        total = at[self.first]
        for d in range(self.first + 1, self.last + 1):
            total = total * operand.shape[d] + at[d]
        return total

    def kept(self, tile: Mapping[Var, int] = _ONE_PLACE) -> float:
        """The share of the steps that tiles of so many places along the axes take on average."""
        begins, reach = [self.start.const], 0
        for var, coefficient in self.start.terms:
            assert isinstance(var, Var)
            size = tile.get(var, 1)
            if len(begins) * (var.hi + 1) > MOST_TILES * size:
                return 1.0
            begins = [b + coefficient * k for b in begins for k in range(0, var.hi + 1, size)]
            reach += coefficient * (size - 1)
        total = 0
        for begin in begins:
            first, end = -(-(self.low - begin - reach) // self.step), -(-(self.high - begin) // self.step)
            total += max(0, min(end, self.steps) - max(first, 0))
        return total / (self.steps * len(begins))


def borders(site: Site) -> dict[Var, Border]:
    """The loops of the contraction `site` that can leave steps out."""
    stage = site.stage
    if stage is None or stage.op != "contract":
        return {}
    over = tuple(map(Ix.of, site.loops))
    reads = reduction_reads(stage, site.points[0], over)
    found: dict[Var, Border] = {}
    for number, (operand, at) in enumerate(zip(stage.inputs, reads, strict=True)):
        if operand.op != "pad" or operand.attr("value") != 0 or any(operand.ints("interior")):
            continue
        for d, edges in enumerate(zip(operand.ints("low"), operand.ints("high"), strict=True)):
            if min(edges) < 0 or not max(edges):
                continue
            for var in site.loops:
                border = _border(site, number, at, d, var)
                if border is not None and (var not in found or border.kept() < found[var].kept()):
                    found[var] = border
    return found


def _border(site: Site, number: int, at: Index, first: int, var: Var) -> Border | None:
    """What the border of dimension `first` of operand `number` leaves out of the loop over `var`, if that is enough."""
    stage = site.stage
    assert stage is not None
    operand = stage.inputs[number]
    if not at[first].coefficient(var) or any(ix.coefficient(var) for d, ix in enumerate(at) if d != first):
        return None
    last, each = first, 1
    while last + 1 < len(at) and at[last + 1].hi >= operand.shape[last + 1]:  # axes that are one loop
        last += 1
        each *= operand.shape[last]
    shape = operand.shape
    low, high = operand.ints("low")[first] * each, (shape[first] - operand.ints("high")[first]) * each
    place = Border(number, first, last, low, high, 1, 0, Ix()).place(operand, at)
    step, start = place.coefficient(var), Ix(place.const, tuple((s, c) for s, c in place.terms if s is not var))
    if step <= 0 or any(not isinstance(s, Var) or s in site.loops or c < 0 for s, c in start.terms):
        return None
    border = Border(number, first, last, low, high, step, var.hi + 1, start)
    left_out = 1 - border.kept()
    products = math.prod(v.hi + 1 for v in site.loops) * stage.type.size
    return border if left_out >= LEAST_STEPS and left_out * products >= LEAST_PRODUCTS else None


def places_of(border: Border, items: Sequence[tuple[Node, Index]], loops: Sequence[Var]) -> list[Ix]:
    """Where each sum of a tile reads the operand at step 0 of all `loops`."""
    zero = (Ix(),) * len(loops)
    return [
        border.place(stage.inputs[border.operand], reduction_reads(stage, at, zero)[border.operand])
        for stage, at in items
    ]
