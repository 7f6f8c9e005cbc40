"""Storages: the memory behind tensors, realised or pending, and the records of what was computed from what."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from heapq import heappush
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc.grad_mode import MODE
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, copy_into, equal, values_of

if TYPE_CHECKING:
    from graphc.recording import Recorder


SERIALS = itertools.count(1)
TOUCHED = [0]  # how often contents of memory were looked at or written
_make: Any = object.__new__
_weak = weakref.ref


def _nobody(storage: Storage) -> None:
    pass


_watching: list[Callable[[Storage], None]] = [_nobody]


def set_watching(function: Callable[[Storage], None]) -> None:
    """Tell who wants to know that the contents of a storage are looked at."""
    _watching[:] = [function]


def next_serial() -> int:
    """A number above those of all storages made so far and below those of all made later."""
    return next(SERIALS)


class Binding:
    """A node whose value is known: an input leaf (`index` >= 0) or a computed value that a later program reads
    (`index` -1).

    While it lives, the node stands for this buffer; its death frees the leaf's number. `source` is what the buffer
    belongs to, `steady` is set for a leaf that is kept between programs, `turn` is the last program that read it then.
    """

    __slots__ = ("__weakref__", "buffer", "counter", "index", "node", "recorder", "source", "steady", "turn", "version")

    def __init__(self, recorder: Recorder, node: Node, index: int, buffer: AnyBuffer, source: object) -> None:
        # The counter of writes of the memory that is bound, and what it showed then.
        self.counter = source.counter if isinstance(source, Storage) else None
        self.version = self.counter[0] if self.counter is not None else 0
        self.recorder = recorder
        self.node = node
        self.index = index
        self.buffer = buffer
        self.source = source
        self.steady: weakref.ref[Storage] | None = None
        self.turn = -1

    def __del__(self) -> None:
        recorder = self.recorder
        recorder.bound.pop(self.node, None)
        if self.index >= 0:
            heappush(recorder.free, self.index)


class Seen(NamedTuple):
    """A view that an operation read: the node of its elements, the value behind it, and the names of the gradient nodes
    between the two.
    """

    node: Node
    keep: Value | Binding
    names: tuple[str, ...]


class Value:
    """One recorded occurrence of a node: which values it was made from, and whether gradients flow through it.

    Nodes are timeless and shared between iterations; values are what one run of the user's code did. Holding a value
    keeps the bindings of its leaves; `binding` and `saved` stand for it and for what its gradient reads, once computed.
    `leaf` is set for the variable of a tensor that collects gradients. `serial` counts values, so parents have lower
    ones. `counter` counts the writes of the memory that held the value, `version` is what it showed then. `gate` is
    Python code that gradients of the value go through, `fn` the object that `grad_fn` gave for it. `through` is set for
    an operation on views: the nodes of its operands, and which of them were views. `replaced` is the place of the
    parent whose memory the operation itself wrote, else -1.
    """

    __slots__ = (
        "__weakref__",
        "binding",
        "counter",
        "fn",
        "freed",
        "gate",
        "grad",
        "leaf",
        "lineage",
        "name",
        "node",
        "parents",
        "replaced",
        "saved",
        "serial",
        "through",
        "version",
    )

    def __init__(self, node: Node, parents: tuple[Value | Binding, ...], name: str = "", grad: bool = False) -> None:
        self.node = node
        self.parents = parents
        self.name = name
        self.grad = grad
        self.freed = False
        self.binding: Binding | None = None
        self.saved: tuple[Binding, ...] = ()
        self.leaf: weakref.ref[Any] | None = None
        self.lineage: weakref.ref[Lineage] | None = None
        self.serial = next(SERIALS)
        self.counter: list[int] | None = None
        self.version = 0
        self.gate: Any = None
        self.fn: Any = None
        self.through: tuple[Sequence[Node], Sequence[Seen]] | None = None
        self.replaced = -1


_HOLDING = threading.Lock()


class Lineage:
    """The gradient side of a tensor and of its views; tensors made by `detach` share the storage but not the lineage.

    `depth` is the number of view steps at which the lineage starts. `requires_grad` is the flag of a leaf; `hist` the
    value of a non-leaf. `version` is the storage's version that `hist` stands for. `owner` is the leaf whose `.grad`
    collects gradients. `hooks` are called with the gradient of a leaf. `variable` is the value that a leaf is for the
    recorder whose token is `holder`, the first that needed one; others keep theirs themselves.
    """

    __slots__ = ("__weakref__", "depth", "hist", "holder", "hooks", "owner", "requires_grad", "variable", "version")

    def __init__(
        self, depth: int = 0, hist: Value | None = None, requires_grad: bool = False, version: int = 0
    ) -> None:
        self.depth = depth
        self.hist = hist
        self.requires_grad = requires_grad
        self.version = version
        self.owner: weakref.ref[Any] | None = None
        self.variable: weakref.ref[Value] | None = None
        self.holder: object = None
        self.hooks: Any = None

    def hold(self, token: object) -> None:
        """Let `variable` be for the recorder with this token from now on, unless it is another's already."""
        with _HOLDING:
            if self.holder is None:
                self.holder = token


class Storage:
    """Memory of one base tensor: a buffer, or a pending value (`value`). `version` counts all writes, `counter` those
    that PyTorch would count: not those through `.data`. It is None for tensors of inference mode.

    `export` is a weak reference to the owner of the arrays of other libraries that see the memory; `external` the
    object that lent it. `origin`, for a run-time number, reads it anew. `slot` is the leaf that stands for the buffer
    in what is recorded now, `slots` the leaves of contiguous parts of it. `kept` is the leaf while it waits for a
    later program, `last` the program and the number that the leaf had when it was made last, and how
    many times in a row that was soon after the time before.
    """

    slot: weakref.ref[Binding] | None
    slots: dict[tuple[object, ...], Callable[[], Binding | None]] | None
    kept: Binding | None
    last: tuple[int, int, int] | None
    export: Callable[[], object] | None
    external: object | None
    origin: Callable[[], float] | None

    __slots__ = (
        "__weakref__",
        "buffer",
        "counter",
        "export",
        "external",
        "kept",
        "last",
        "origin",
        "recorder",
        "serial",
        "slot",
        "slots",
        "type",
        "value",
        "version",
    )

    def __init__(self, recorder: Recorder, type: TensorType, value: Value | None, buffer: AnyBuffer | None) -> None:
        self.recorder = recorder
        self.type = type
        self.value = value
        self.buffer = buffer
        self.version = 0
        self.counter: list[int] | None = None if MODE.inference else [0]
        self.serial = next(SERIALS)
        self.slots = self.slot = self.export = self.external = self.origin = self.kept = self.last = None
        if value is not None:
            value.counter = self.counter
            recorder.pending.append(_weak(self))

    @staticmethod
    def pending(
        recorder: Recorder, node: Node, parents: tuple[Value | Binding, ...], name: str, grad: bool
    ) -> tuple[Storage, Lineage]:
        """`Storage(recorder, node.type, Value(node, parents, name, grad), None)` and the lineage of its tensor, written
        out: each recorded operation makes these.
        """
        value = _make(Value)
        value.node = node
        value.parents = parents
        value.name = name
        value.grad = grad
        value.freed = False
        value.saved = ()
        value.version = 0
        value.replaced = -1
        value.binding = value.leaf = value.gate = value.fn = value.through = None
        lineage = _make(Lineage)
        lineage.depth = lineage.version = 0
        lineage.requires_grad = False
        lineage.owner = lineage.variable = lineage.holder = lineage.hooks = None
        if grad:
            lineage.hist = value
            value.lineage = _weak(lineage)
        else:
            lineage.hist = value.lineage = None
        self = _make(Storage)
        self.recorder = recorder
        self.type = node.type
        self.value = value
        self.version = 0
        self.counter = value.counter = None if MODE.inference else [0]
        self.serial = value.serial = next(SERIALS)
        self.buffer = self.slots = self.slot = self.export = self.external = self.origin = self.kept = self.last = None
        recorder.pending.append(_weak(self))
        return self, lineage

    @staticmethod
    def over(recorder: Recorder, type: TensorType, buffer: AnyBuffer) -> Storage:
        """`Storage(recorder, type, None, buffer)`, written out for results of replays."""
        self = _make(Storage)
        self.recorder = recorder
        self.type = type
        self.buffer = buffer
        self.version = 0
        self.counter = None if MODE.inference else [0]
        self.serial = next(SERIALS)
        self.value = self.slots = self.slot = self.export = self.external = self.origin = self.kept = self.last = None
        return self

    @property
    def is_exported(self) -> bool:
        """Whether NumPy arrays may see the memory. Once the last is gone, the memory counts as written."""
        if self.external is not None:
            return True
        if self.export is None:
            return False
        if self.export() is not None:
            return True
        self.export = self.slot = self.slots = self.kept = None
        self.version += 1
        return False

    def set_value(self, value: Value, recorder: Recorder) -> None:
        """A write: from now on the storage holds `value`, which `recorder` recorded."""
        TOUCHED[0] += 1
        if self.recorder is not recorder:
            self.recorder = recorder
            self.value = None
        if self.value is None:
            recorder.pending.append(_weak(self))
        self.value = value
        self.slot = self.slots = self.kept = None
        self.version += 1

    def set_buffer(self, buffer: AnyBuffer) -> None:
        """The pending value is computed. Memory that NumPy sees stays where it is and takes the new contents."""
        self.value = self.slot = self.slots = self.kept = None
        if self.buffer is not None and self.is_exported:
            copy_into(self.buffer, buffer)
        else:
            self.buffer = buffer
            self.export = None

    def own_buffer(self) -> None:
        """Before NumPy gets to see the memory: let no recorded leaf read it later, as NumPy may write."""
        self.recorder.part_from(self.buffer)
        self.kept = None
        if (self.slot is not None and self.slot() is not None) or self.slots is not None:
            assert self.buffer is not None
            self.buffer = self.buffer.copy()
        self.slot = self.slots = None

    def realise(self) -> AnyBuffer:
        """The buffer, computed now if it is pending."""
        TOUCHED[0] += 1
        if self.value is not None:
            self.recorder.look(self)
        assert self.buffer is not None
        return self.buffer

    def looked_at(self) -> AnyBuffer:
        """`realise`, for somebody who looks at the contents: errors that another device found are raised now."""
        _watching[0](self)
        TOUCHED[0] += 1
        if self.value is not None:
            self.recorder.look(self)
        buffer = self.buffer
        assert buffer is not None
        if self.type.device != "cpu" and self.recorder.late:
            self.recorder.late.raise_found()
        return buffer

    def array(self) -> np.ndarray:
        """The contents as an array of the base shape: one that shares the memory on the CPU, else a copy."""
        return values_of(self.looked_at(), self.type)


def recorder_of(value: Value, storage: Storage) -> Recorder | None:
    """Who recorded `value`, that `storage` holds or held; None where nothing of it is left."""
    if storage.value is value:
        return storage.recorder
    kept: Value | Binding = value
    while isinstance(kept, Value):
        if kept.binding is not None:
            return kept.binding.recorder
        if not kept.parents:
            return None
        kept = kept.parents[0]
    return kept.recorder


def still_holds(storage: Storage, lineage: Lineage, value: Value) -> bool:
    """Whether `storage` was not written since its contents became the variable `value`: not by NumPy either, which may
    have seen the memory without writing it.
    """
    exported = (storage.export is not None or storage.external is not None) and storage.is_exported
    if not exported and lineage.version == storage.version:
        return True
    if storage.value is not None or (value.counter is not None and value.counter[0] != value.version):
        return False
    keep, buffer = value.parents[0], storage.buffer
    if type(keep) is not Binding or buffer is None or not equal(keep.buffer, buffer):
        return False
    lineage.version = storage.version
    return True


def untouched(hist: Value, storage: Storage) -> bool:
    """Whether the memory still holds what was computed for `hist`, whatever NumPy did."""
    held, buffer = hist.binding, storage.buffer
    return held is not None and buffer is not None and equal(held.buffer, buffer)
