"""Leaves: buffers that recorded work reads, as numbered inputs.

A loop has the same leaves in every turn, as numbers are given out in order and come back. What programs read again and
again keeps its number, and is not bound anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from heapq import heappop
from typing import TYPE_CHECKING, cast

from graphc.capture import Capture
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, equal, part
from graphc.storage import Binding, Storage, Value

if TYPE_CHECKING:
    from graphc.recording import Recorder

KEPT_TURNS = 64  # programs for which a leaf waits to be read again, at least
# A leaf waits after it was read again within so many programs, and under the same number, so many times in a row. The
# batches of a list that is gone through again and again do not: one after the other would take a number for itself.
NEAR_TURNS, NEAR_READS = 8, 4

Copy = Callable[[], AnyBuffer]


def _nothing() -> None:
    """Stands for a reference to a leaf where there is none."""


def leaf_behind(value: Value) -> Binding | None:
    """The leaf of a value that is one: an operation gave it as it is."""
    keep: Value | Binding = value
    while isinstance(keep, Value):
        if not keep.parents:
            return None
        keep = keep.parents[0]
    return keep if keep.node is value.node else None


class Leaves:
    """The leaves of what one thread records with the builder `b`."""

    __slots__ = (
        "__weakref__", "_leaves", "b", "bound", "capture", "cuts", "free", "held", "kept", "parted", "swept", "turn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.b = Builder()
        self.bound: dict[Node, AnyBuffer] = {}
        self.cuts: weakref.WeakValueDictionary[Node, Binding] = weakref.WeakValueDictionary()
        self.capture: Capture | None = None
        self.held: list[Binding] = []
        self.kept: list[weakref.ref[Storage]] = []  # those whose leaves wait for later programs
        self.swept = 0  # the program after which those were let go that nobody had read for long
        self.parted: list[Storage] = []  # those of which parts are leaves now
        self.free: list[int] = []  # numbers of leaves that died
        self._leaves = 0
        self.turn = 0  # counts programs, for leaves to know when they were read

    def bind(self, buffer: AnyBuffer, type: TensorType, source: object) -> Binding:
        """A new leaf for `buffer`, with the smallest free number."""
        if self.free:
            index = heappop(self.free)
        else:
            index = self._leaves
            self._leaves += 1
        node = self.b.input(index, type)
        self.bound[node] = buffer
        binding = Binding(cast("Recorder", self), node, index, buffer, source)
        self.held.append(binding)
        return binding

    def bind_cut(self, node: Node, buffer: AnyBuffer) -> Binding:
        """Let the computed `node` stand for `buffer` in later programs."""
        binding = self.cuts.get(node)
        if binding is None:
            binding = self.cuts[node] = Binding(cast("Recorder", self), node, -1, buffer, None)
            self.bound[node] = buffer
        return binding

    def part_from(self, buffer: AnyBuffer | None) -> None:
        """Somebody may write `buffer` from now on: computed values that it stands for are kept elsewhere."""
        for binding in list(self.cuts.values()) if self.cuts else ():
            if binding.buffer is buffer:
                binding.buffer = self.bound[binding.node] = binding.buffer.copy()

    def leaf(self, storage: Storage) -> Binding:
        """The leaf of a realised storage; the same one until its number is free again."""
        exported = (storage.export is not None or storage.external is not None) and storage.is_exported
        binding = storage.slot() if storage.slot is not None else None
        if binding is None or binding.recorder is not self:
            assert storage.buffer is not None
            buffer = storage.buffer
            if exported:
                # NumPy may write at any time: what is recorded reads the memory as it is now.
                buffer = buffer.copy()
            binding = self.bind(buffer, storage.type, storage)
            storage.slot = weakref.ref(binding)
            if not exported:
                last, reads = storage.last, 0
                if last and last[1] == binding.index and self.turn - last[0] <= NEAR_TURNS:
                    reads = min(last[2] + 1, NEAR_READS)
                    if reads == NEAR_READS:
                        binding.steady = weakref.ref(storage)
                storage.last = self.turn, binding.index, reads
        elif exported and not (
            storage.type.device == "cpu"  # elsewhere, a copy costs less than a look
            and equal(binding.buffer, storage.buffer)
        ):
            storage.slot = None
            return self.leaf(storage)
        elif storage.kept is binding:  # it is read for the first time since a program ran
            storage.kept = None
            if binding.counter is not None and binding.counter[0] != binding.version:
                storage.slot = None  # somebody counted a write
                return self.leaf(storage)
            binding.source = storage
            self.held.append(binding)
        elif self.capture is not None:
            self.held.append(binding)  # the capture asks where its leaves come from
        return binding

    def _keep_leaves(self) -> None:
        """After a program: what was a leaf of it and, under the same number, of one shortly before is likely a leaf of
        others soon. It keeps its number and its binding until no program has read it for long, or its memory is
        written.
        """
        for binding in self.held:
            home, storage = binding.steady, binding.source
            if home is None or not isinstance(storage, Storage):
                continue
            if storage.slot is not None and storage.slot() is binding:
                binding.source = None  # the storage, which holds it now, may die
                storage.kept = binding
                if binding.turn < 0:
                    self.kept.append(home)
                binding.turn = self.turn
        self.held.clear()
        self.turn += 1
        self._sweep_in_time()

    def _sweep_in_time(self) -> None:
        if self.turn - self.swept >= KEPT_TURNS:
            self._sweep()

    def _sweep(self) -> None:
        """Let go of kept leaves that no program has read since the last sweep."""
        kept, self.kept = self.kept, []
        for home in kept:
            storage = home()
            if storage is None:
                continue
            leaf, slot = storage.kept, storage.slot() if storage.slot is not None else None
            if leaf is not None and leaf.recorder is self:
                if leaf is slot and leaf.turn >= self.swept:
                    self.kept.append(home)
                    continue
                leaf.turn, storage.kept = -1, None
            elif slot is not None and slot.recorder is self:
                slot.turn = -1  # it is read now, and noted again after the program
        self.swept = self.turn

    def let_go(self) -> None:
        """Keep no leaves for later programs."""
        self.swept = self.turn
        self._sweep()

    def part(
        self, storage: Storage, type: TensorType, offset: int, strides: tuple[int, ...], copy: Copy | None = None
    ) -> Binding:
        """The leaf of a part of a realised storage from element `offset` on, which lies in one piece or is copied."""
        exported, key = storage.is_exported, (offset, type, strides)
        storage.slots = storage.slots or {}
        held = storage.slots.get(key)
        binding = held() if held is not None else None
        if binding is not None and binding.recorder is self and not exported:
            return binding
        assert storage.buffer is not None
        piece = copy() if copy else part(storage.buffer, offset * type.dtype.itemsize, type.nbytes)
        binding = self.bind(piece.copy() if exported and not copy else piece, type, storage)
        storage.slots[key] = weakref.ref(binding)
        if copy and type.device == "cpu":
            storage.slots[type, strides] = _nothing  # native code copies the next such parts
        self.parted.append(storage)
        return binding
