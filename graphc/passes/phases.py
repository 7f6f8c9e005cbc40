"""Where the elements of an operand lie among zeros, and which taps of a kernel meet them for which results."""

from __future__ import annotations

import math
from functools import cached_property

from graphc.ir.contraction import Dim
from graphc.ir.node import Node
from graphc.ir.record import record

MANY = 4  # from so many phases along an axis on one contraction is better than one for each, even if it takes
MERGED_EXCESS = 1.2  # times as many products (it computes results that are then cut off at the ends)


@record(slots=False)
class Spread:
    """Along one dimension: element `j` of `first <= j < end` lies at `low + step * j` of `size` places, zeros
    elsewhere.
    """

    low: int
    step: int
    first: int
    end: int
    size: int

    def padded(self, low: int, high: int, interior: int) -> Spread:
        """The same with zeros around and between the places."""
        step = interior + 1
        size = low + high + (self.size - 1) * step + 1
        return Spread(low + step * self.low, step * self.step, self.first, self.end, size)._within()

    def sliced(self, start: int, size: int, step: int) -> Spread | None:
        """Every `step`-th place from `start` on; None where that leaves out elements between others."""
        if step < 1 or self.step % step or (self.low - start) % step:
            return None
        return Spread((self.low - start) // step, self.step // step, self.first, self.end, size)._within()

    def _within(self) -> Spread:
        first = max(self.first, -(self.low // self.step))
        end = min(self.end, (self.size - 1 - self.low) // self.step + 1)
        return Spread(self.low, self.step, first, max(end, first), self.size)


def spread_of(x: Node) -> tuple[Node, list[Spread]]:
    """The value whose elements `x` shows among zeros, and where."""
    path: list[Node] = []
    while x.op == "slice" or (x.op == "pad" and x.attr("value") == 0):
        path.append(x)
        x = x.inputs[0]
    while path and path[-1].op == "slice":
        x = path.pop()
    dims = [Spread(0, 1, 0, n, n) for n in x.shape]
    while path:
        node = path.pop()
        names = ("low", "high", "interior") if node.op == "pad" else ("start", "size", "step")
        parts = zip(dims, *(node.ints(name) for name in names), strict=True)
        found = [d.padded(*p) if node.op == "pad" else d.sliced(*p) for d, *p in parts]
        if None in found:
            x, found = node, [Spread(0, 1, 0, n, n) for n in node.shape]
        dims = [d for d in found if d is not None]
    return x, dims


@record(slots=False)
class Phase:
    """Results `rest + count * q` meet the taps `tap + every * k` for k below `taps`, at element `offset + ...`."""

    rest: int
    tap: int
    taps: int
    offset: int


@record(slots=False)
class Axis:
    """A dimension of the operand that is indexed by a label of the result, and perhaps by one of the kernel's: result
    p and tap r meet at place `coefficient * p + dilation * r`. `size` results are wanted.
    """

    dim: int
    out: int
    label: str
    coefficient: int
    tap_label: str | None
    tap_dim: int
    dilation: int
    taps: int
    size: int
    spread: Spread

    @property
    def count(self) -> int:
        """How many phases there are."""
        return self.spread.step // math.gcd(self.coefficient, self.spread.step)

    @property
    def every(self) -> int:
        """The distance of the taps of one phase."""
        return self.spread.step // math.gcd(self.dilation, self.spread.step)

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """Those that meet elements at all; just one that stands for all where they are merged."""
        if self.is_merged:
            return (Phase(0, 0, self.taps // self.spread.step, -self._before // self.spread.step),)
        return self._apart

    @property
    def _before(self) -> int:
        """Tap `s*k + s-1-t` and element `u + k` meet at the result `s*u + t + before`."""
        return self.spread.low - self.spread.step + 1

    @property
    def stands_alone(self) -> bool:
        """Whether there is one phase, with zeros between its results."""
        return not self.is_joined and not self.is_merged

    @cached_property
    def is_merged(self) -> bool:
        """Whether one contraction computes all phases."""
        step = self.spread.step
        if step == 1 or self.coefficient != 1 or self.dilation != 1 or self.taps % step:
            return False
        together = self._merged_extent * self.taps
        apart = sum(-(-self.size // step) * phase.taps for phase in self._apart)
        return together <= (MERGED_EXCESS if step >= MANY else 1) * apart

    @property
    def _merged_extent(self) -> int:
        """How many results of each merged phase cover all that are wanted."""
        step = self.spread.step
        return (self.size - 1 - self._before) // step + -(-self._before // step) + 1

    @property
    def merged_start(self) -> int:
        """The first result wanted of those that merged phases compute."""
        return -self._before % self.spread.step

    @cached_property
    def _apart(self) -> tuple[Phase, ...]:
        found = []
        for rest in range(min(self.count, self.size)):
            places = [self.coefficient * rest + self.dilation * r - self.spread.low for r in range(self.taps)]
            real = [r for r, place in enumerate(places) if place % self.spread.step == 0]
            if real:
                found.append(Phase(rest, real[0], len(real), places[real[0]] // self.spread.step))
        return tuple(found)

    @property
    def is_joined(self) -> bool:
        """Whether phases stand side by side; one alone is spread out among zeros."""
        return len(self.phases) > 1

    def extent(self, phase: Phase) -> int:
        """How many results of a phase are computed: equally many of each that stand side by side."""
        if self.is_merged:
            return self._merged_extent
        return -(-(self.size - (0 if self.is_joined else phase.rest)) // self.count)

    @property
    def products(self) -> int:
        """How many products of elements and taps all phases take."""
        each = self.spread.step if self.is_merged else 1
        return each * sum(self.extent(phase) * phase.taps for phase in self.phases)

    def terms(self, phase: Phase) -> Dim:
        """The index of the operand's element, less the offset."""
        step = self.spread.step
        dim = ((self.label, self.coefficient * self.count // step),)
        return dim if phase.taps == 1 else (*dim, (str(self.tap_label), self.dilation * self.every // step))

    def reach(self, phase: Phase) -> int:
        """How many elements a phase walks over."""
        extents = (self.extent(phase), phase.taps)
        return 1 + sum(c * (n - 1) for (_, c), n in zip(self.terms(phase), extents, strict=False))
