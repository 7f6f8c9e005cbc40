"""What a tile of the domain has computed goes to memory: rows that are added up, vectors that are transposed or zipped
first, and what only some places of the domain have a place for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

from graphc.codegen.crossing import Stored, filling, neighbours, store_crossed
from graphc.codegen.kernel import Affine, Param, Value
from graphc.codegen.schedule import Schedule
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import kept_where, store_address
from graphc.codegen.target import Target
from graphc.codegen.values import Masks, Values
from graphc.ir.access import Index
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.schedule import Root

_Cuts = tuple[tuple[Ix, int], ...]


class Stores:
    """Stores of `values` to the memory `params` of targets, of which `sums` are added to. Lanes run along `lane`."""

    def __init__(
        self,
        values: Values,
        params: Mapping[Node, Param],
        sums: frozenset[Node],
        schedule: Schedule,
        target: Target,
        lane: Var,
    ) -> None:
        self._values = values
        self._e: ScopedEmitter = values.e
        self._params = params
        self._sums = sums
        self._schedule = schedule
        self._target = target
        self._lane = lane
        self._pending: list[Stored] = []
        self._cuts: dict[tuple[Node, Ix], _Cuts] = {}  # of what is pending

    def pend(self, root: Root, at: Index, value: Value) -> None:
        """Note what is stored of `root` at `at`; rows of a tile that are added to the same one are added up first."""
        place = (root.target, store_address(root, at))
        known = next((i for i, s in enumerate(self._pending) if s[:2] == place), None) if root.adds else None
        if known is None:
            self._pending.append((*place, value))
        else:
            self._pending[known] = (*place, self._values.combine("reduce_sum", self._pending[known][2], value))
        cuts = kept_where(root, at)
        if cuts:
            self._cuts[place] = cuts

    def store_pending(self, masks: Masks) -> None:
        """Store what one tile of the domain has computed."""
        schedule, lane = self._schedule, self._schedule.lane
        whole = [s for s in self._pending if s[:2] not in self._cuts]
        cut = [s for s in self._pending if s[:2] in self._cuts]
        runs, rest = ([], whole)
        if schedule.crossed is not None:
            runs, rest = neighbours(whole, self._lane)
        elif self._target.device == "cpu" and not self._sums:
            runs, rest = filling(whole, self._lane)
        for run in runs:
            assert lane is not None
            target, ix, _ = run[0]
            vectors = [self._e.splat(value, schedule.lanes) for _, _, value in run]
            count = schedule.lanes if masks.tail is None else (lane.hi + 1) % schedule.lanes
            address, step, _ = self._values.address(ix)
            store_crossed(self._e, self._params[target], address, step, vectors, count)
        for target, ix, value in [*rest, *cut]:
            self._store(target, ix, value, masks, self._cuts.get((target, ix), ()))
        self._pending.clear()
        self._cuts.clear()

    def store(self, root: Root, at: Index, value: Value, masks: Masks) -> None:
        """Store `root` at `at`."""
        self._store(root.target, store_address(root, at), value, masks, kept_where(root, at))

    def _store(self, target: Node, ix: Ix, value: Value, masks: Masks, cuts: _Cuts) -> None:
        e = self._e
        address, stride, offsets = self._values.address(self._values.in_row(target, ix))
        wide = stride != 0 or offsets is not None
        if wide:
            value = e.splat(value, self._schedule.lanes)
        assert wide or value.type.lanes == 1, "a vector is stored to one place"
        mask = masks.tail if wide else None
        condition: Value | None = None  # of all lanes
        for place, extent in cuts:
            inside = e.op("lt", self._values.as_number(place), extent)
            if inside.type.lanes == 1:
                condition = inside if condition is None else e.op("and", condition, inside)
            else:
                mask = inside if mask is None else e.op("and", mask, inside)
        with nullcontext() if condition is None else e.guard(condition):
            if target in self._sums:
                total = self._summed(target, address, value, stride, offsets, mask)
                value = self._values.combine("reduce_sum", total, value)
            e.store(self._params[target], address, value, stride, offsets, mask)

    def _summed(
        self, target: Node, address: Affine, like: Value, stride: int, offsets: Value | None, mask: Value | None
    ) -> Value:
        """What a row that others are added to has so far, read where it is added to."""
        e = self._e
        e.epoch += 1
        pinned, e.pinned = e.pinned, True
        value = e.load(like.type, self._params[target], address, stride, offsets, mask)
        e.pinned = pinned
        return value
