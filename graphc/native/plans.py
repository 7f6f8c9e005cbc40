"""Plans of native replays, made from `Replay` objects: all that one does for a call, as records for the native code.

What a plan cannot say - several programs in a row, results that share memory, results of unusual types - is left to
`Replay.run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.ir.types import TensorType
from graphc.native.layout import slots_of
from graphc.native.library import NativeLibrary, library
from graphc.native.tables import (
    ARGUMENT,
    GIVEN,
    GRADIENT,
    LIST,
    MADE,
    OBJECT,
    ONE,
    STORAGE,
    TUPLE,
    Plan,
    Words,
)
from graphc.random import key_buffer
from graphc.recording import current, found
from graphc.replay import Replay
from graphc.signatures import Plain, make_result
from graphc.storage import Lineage, Storage
from graphc.tensors.core import new
from graphc_runtime.buffer import Buffer, size_class
from graphc_runtime.executor import SMALL_ARENA, Executable
from graphc_runtime.options import NATIVE_CALLS

_MOST_ARGUMENTS = 16
_MOST_MISSED = 16  # calls in a row
# Arithmetic and bytes of a program above which other threads may run Python meanwhile: some ten microseconds.
_LONG = 1 << 17


class _Unsuitable(Exception):
    """There is no plan for this replay."""


class Direct:
    """A native replay: `call(*arguments)` gives the result, or MISSED when it did nothing."""

    def __init__(self, plan: Plan, call: Callable[..., Any], replay: Replay) -> None:
        self._plan = plan
        self._replay = replay
        self.call = call

    def renewed(self) -> Callable[..., Any] | None:
        """The replay was done in Python, as it could not be done here. What to call the next time; None when too many
        calls in a row were in vain.
        """
        self._plan.set("writes_seen", self._replay._guards._writes_seen)
        missed = self._plan.get("missed_calls") + 1
        self._plan.set("missed_calls", missed)
        return self.call if missed <= _MOST_MISSED else None


def direct(replay: Replay, plain: Plain) -> Direct | None:
    """The native form of a replay for arguments like `plain`; None when there is none."""
    native = library() if NATIVE_CALLS.get() else None
    if native is None:
        return None
    classes = tuple([cls for _, cls, *_ in plain.types])  # all else is the same in all calls of this replay
    if classes not in replay.natives:
        try:
            replay.natives[classes] = _Maker(native, replay, plain).made()
        except _Unsuitable:
            replay.natives[classes] = None
    return replay.natives[classes]


def _require(condition: bool) -> None:
    if not condition:
        raise _Unsuitable


class _Maker:
    """A plan in the making."""

    def __init__(self, native: NativeLibrary, replay: Replay, plain: Plain) -> None:
        self._native = native
        self._replay = replay
        self._plain = plain
        self._plan = Plan()
        self._recorder = current()
        self._prototypes: dict[type, Words] = {}
        _require(len(replay._segments) == 1 and not (replay._places or replay._constants or replay._checks))
        executable, self._input_slots = replay._segments[0]
        _require(isinstance(executable, Executable) and executable.native is not None)
        self._executable: Executable = executable
        self._first = replay._first_output
        self._count = len(replay._outputs)
        self._scratch = replay._new_scratch()
        self._keep(self._scratch, executable, replay)
        # Addresses of inputs, outputs, arena; the buffers of outputs and of the arena.
        self._addresses = self._plan.own([0] * (len(self._input_slots) + self._count + 1))
        self._buffers = self._plan.own([0] * (self._count + 1))

    def made(self) -> Direct:
        """The finished plan."""
        self._guards()
        self._inputs()
        self._memory()
        self._written()
        self._result()
        self._checks()
        executable, plan = self._executable, self._plan
        assert executable.native is not None
        entry, table, _ = executable.native
        launches = executable.artifact.launches
        for name, value in {
            "shared": self._native.shared.address,
            "count": self._plain.count,
            "enabled": id(self._plain.enabled),
            "release": int(sum(x.flops + x.bytes for x in launches) > _LONG),
            "entry": entry,
            "runtime": table,
            "addresses": self._addresses.address,
            "launches": len(launches),
            "owned": plan.own([0] * (len(self._input_slots) + 3 * self._count + 16 + len(self._replay._draws))).address,
        }.items():
            plan.set(name, value)
        call = self._native.function(plan.words.address, plan.keep, plan.words, self._plain)
        return Direct(plan, call, self._replay)

    def _keep(self, *objects: object) -> None:
        self._plan.keep.extend(objects)

    # what must hold

    def _guards(self) -> None:
        replay, guards, plain, plan = self._replay, self._replay._guards, self._plain, self._plan
        _require(len(plain.types) <= _MOST_ARGUMENTS)
        shared = replay._shared if replay._captured else [None] * len(plain.types)
        plan.table(
            "arguments",
            [
                (place, id(cls), id(kind), int(requires), 0 if storage is None else id(storage), 0)
                for (place, cls, kind, requires), storage in zip(plain.types, shared, strict=True)
            ],
        )
        plan.table("constants", [(place, id(value)) for place, _, value in plain.constants])
        plan.table("captured", [(id(storage),) for storage in replay._captured.values()])
        plan.table("gradients", [(id(t), 0 if kind is None else id(kind)) for t, kind in replay._grads])
        plan.table("calls", [(id(compute), id(expected)) for compute, expected in guards._calls])
        if guards._writes is not None:
            plan.set("writes", id(guards._writes))
        dicts: list[tuple[int, int, int]] = []
        proxies: list[tuple[int, int, int]] = []
        for mapping, key, value, *_ in guards._in_dicts:
            _require(type(mapping) is MappingProxyType or _is_dict(mapping))
            (proxies if type(mapping) is MappingProxyType else dicts).append((id(mapping), id(key), id(value)))
        plan.table("dicts", dicts)
        plan.table("proxies", proxies)
        plan.table("cells", [(id(cell), id(value)) for cell, value, *_ in guards._cells])
        sizes: dict[str, list[tuple[int, int]]] = {"dict_sizes": [], "list_sizes": []}
        for holder, size, _ in guards._sizes:
            _require(_is_dict(holder) or type(holder) is list)
            sizes["list_sizes" if type(holder) is list else "dict_sizes"].append((id(holder), size))
        for name, records in sizes.items():
            plan.table(name, records)
        _require(all(type(holder) is list for holder, *_ in guards._in_sequences))
        plan.table("items", [(id(h), i, id(v)) for h, items, _ in guards._in_sequences for i, v in enumerate(items)])
        plan.table(
            "tensors",
            [(id(t), id(storage), id(chain), int(needs)) for t, storage, chain, needs, _ in guards._tensors],
        )

    # inputs

    def _inputs(self) -> None:
        replay, plan = self._replay, self._plan
        _require(all(kind == np.float64 for kind in replay._number_types))
        sources = [
            *((STORAGE, id(storage)) for storage in replay._storages),
            *((ARGUMENT, self._plain.types[place][0]) for place in replay._arguments),
            *((GRADIENT, id(tensor)) for tensor in replay._gradients),
        ]
        lent = {alias: self._buffers.at(j) for j, alias in replay._aliases}
        place_of = {slot: place for place, slot in enumerate(self._input_slots)}
        records: list[tuple[int, int, int, int]] = []
        for place, slot in enumerate(self._input_slots):
            if slot < len(sources):
                records.append((*sources[slot], self._addresses.at(place), lent.pop(place, 0)))
        _require(not lent)  # something else than a storage is given away
        plan.table("inputs", records)
        computes: list[tuple[int, int]] = []
        slot = len(sources)
        for compute, buffer in zip(replay._computes, self._scratch.buffers, strict=True):
            computes.append((id(compute), buffer.ptr))
            if slot in place_of:
                self._addresses.values[place_of[slot]] = buffer.ptr
            slot += 1
        plan.table("computes", computes)
        draws: list[tuple[int, int, int]] = []
        for generator, is_read in replay._draws:
            operands = (generator,)
            self._keep(operands)
            address = 0
            if is_read:
                address = self._addresses.at(place_of[slot]) if slot in place_of else 0
                slot += 1
            draws.append((id(key_buffer if is_read else type(generator).skip), id(operands), address))
        plan.table("draws", draws)

    # memory

    def _take(self, nbytes: int, what: object) -> int:
        operands, prototype = (nbytes, what), Buffer.__new__(Buffer)
        prototype._memory = prototype._array = None
        prototype.ptr, prototype.nbytes = 0, nbytes
        self._keep(operands)
        return self._plan.own([size_class(nbytes), id(operands), self._prototype(prototype)]).address

    def _prototype(self, held: object) -> int:
        cls = type(held)
        if cls not in self._prototypes:
            self._prototypes[cls] = self._plan.own(list(slots_of(cls).values()))
        places = self._prototypes[cls]
        self._keep(held)
        return self._plan.own([id(cls), id(held), places.address, len(slots_of(cls))]).address

    def _record_of(self, tensor: Any, j: int) -> tuple[int, ...]:
        """A record of `made` for a tensor like this one over output `j`."""
        hist = tensor._lineage.hist
        value = 0 if hist is None else self._prototype(hist)
        prototypes = self._prototype(tensor._storage), self._prototype(tensor._lineage), value
        return (*prototypes, self._prototype(tensor), self._buffers.at(j), 0, 0)

    def _storage(self, type: TensorType) -> Storage:
        return Storage(self._recorder, type, None, None)

    def _memory(self) -> None:
        replay, plan, executable = self._replay, self._plan, self._executable
        takes = [
            (self._buffers.at(j), self._take(size, what))
            for j, size, what in zip(replay._allocated, replay._sizes, replay._types, strict=True)
        ]
        kept: list[tuple[int, ...]] = []
        for group, is_taken in ((replay._taken_over, False), (replay._kept_outputs, True)):
            for owner, kind, j in group:
                made = plan.own(self._record_of(new(self._storage(kind), kind, Lineage()), j))
                take = self._take(kind.nbytes, kind) if is_taken else 0
                kept.append((id(owner), id(kind), self._buffers.at(j), made.address, take, 0))
        plan.table("kept", kept)
        spares: list[Any] = [None] * len(replay._exchanged)
        plan.set("spares", id(spares))
        self._keep(spares)
        plan.table(
            "spare",
            [
                (place, self._buffers.at(j), self._take(kind.nbytes, kind))
                for place, (_, j, kind) in enumerate(replay._exchanged)
            ],
        )
        first = len(self._input_slots)
        for j in replay._scratched:
            buffer = self._scratch.outputs[j]
            assert buffer is not None
            self._buffers.values[j] = id(buffer)
        outputs = [(self._buffers.at(j), self._addresses.at(first + j)) for j in range(self._count)]
        arena = executable.arena_bytes
        if 0 < arena <= SMALL_ARENA:
            held = Buffer.allocate(arena, executable.arena_name)
            self._keep(held)
            self._addresses.values[first + self._count] = held.ptr
        elif arena:
            takes.append((self._buffers.at(self._count), self._take(arena, executable.arena_name)))
            outputs.append((self._buffers.at(self._count), self._addresses.at(first + self._count)))
        plan.table("takes", takes)
        plan.table("outputs", outputs)

    # results

    def _written(self) -> None:
        replay, plan, first = self._replay, self._plan, self._first
        records = [
            (STORAGE, id(storage), self._buffers.at(j), place, 0)
            for place, (storage, j, _) in enumerate(replay._exchanged)
        ]
        held = [(STORAGE, id(what), slot, copied) for what, slot, copied in replay._written]
        held += [(GRADIENT, id(what), slot, copied) for what, slot, copied in replay._written_gradients]
        types = self._plain.types
        held += [(ARGUMENT, types[what][0], slot, copied) for what, slot, copied in replay._written_arguments]
        for kind, what, slot, copied in held:
            _require(not copied)
            records.append((kind, what, self._buffers.at(slot - first), -1, 0))
        plan.table("written", records)
        _require(all(recipe is None for _, recipe in replay._new_gradients))
        plan.table("cleared", [(id(owner),) for owner, _ in replay._new_gradients])

    def _result(self) -> None:
        replay, plan = self._replay, self._plan
        recipe = replay._result
        _require(recipe is not None)
        fresh = {place: (kind, slot) for place, kind, slot, copied in replay._fresh if not copied}
        _require(len(fresh) == len(replay._fresh))
        if replay._whole is not None:
            fresh[recipe[2].storage] = replay._whole[0], replay._whole[2]
        tag, kind, what = recipe
        recipes: Sequence[Any] = what if tag == "seq" else [recipe]
        made: list[tuple[int, ...]] = []
        leaves: list[tuple[int, int]] = []
        for tag, _, what in recipes:
            if tag == "made":
                # Each output becomes one storage: two tensors over one are left to Python.
                place: Any = what.storage
                _require(place in fresh)
                type_of, slot = fresh.pop(place)
                storages: dict[int, Storage] = {place: self._storage(type_of)}
                tensor = make_result(what, storages)
                leaves.append((MADE, len(made)))
                made.append(self._record_of(tensor, slot - self._first))
            elif tag in ("value", "object"):
                self._keep(what)
                leaves.append((OBJECT, id(what)))
            else:
                _require(tag == "arg")
                leaves.append((GIVEN, self._plain.types[what][0]))
        table = plan.table("made", made)
        size = 7
        leaves = [(kind, table.at(size * what + 5) if kind == MADE else what) for kind, what in leaves]
        plan.table("leaves", leaves)
        plan.set("leaves_count", len(leaves))
        plan.set("result_kind", ONE if recipe[0] != "seq" else LIST if kind is list else TUPLE)

    def _checks(self) -> None:
        replay, plan, scratch = self._replay, self._plan, self._scratch
        flags: list[tuple[int]] = []
        for place, problem in replay._flags:
            buffer = scratch.outputs[replay._scratched[place]]
            assert buffer is not None
            flags.append((buffer.ptr,))
            if not isinstance(problem, Exception):
                plan.set("always_check", 1)

        def check() -> None:
            for place, problem in replay._flags:
                failed = found(problem, scratch.flags[place])
                if failed is not None:
                    raise failed

        self._keep(check)
        plan.set("check", id(check))
        plan.table("flags", flags)


def _is_dict(mapping: Mapping[Any, Any]) -> bool:
    """Whether looking into a mapping is what it is for a dictionary."""
    cls = type(mapping)
    return isinstance(mapping, dict) and cls.get is dict.get and cls.__len__ is dict.__len__
