"""Plans of native replays, made from `Replay` objects: all that one does for a call, as records for the native code.

What a plan cannot say - several programs in a row, results that share memory, results of unusual types - is left to
`Replay.run`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.guard_checks import MISSING, field_holds
from graphc.ir.types import TensorType
from graphc.late_checks import found
from graphc.native.layout import UnknownLayout, field_of
from graphc.native.library import NativeLibrary
from graphc.native.tables import (
    ARGUMENT,
    BUILT,
    GIVEN,
    GRADIENT,
    LIST,
    MADE,
    MADE_TENSOR,
    MADE_WORDS,
    OBJECT,
    ONE,
    STORAGE,
    TABLES,
    TUPLE,
    VIEW,
    WORD,
    Plan,
)
from graphc.random import key_buffer
from graphc.recording import current
from graphc.replay import Replay, is_plain
from graphc.signatures import Plain, make_result, view_of
from graphc.storage import Lineage, Storage
from graphc.tensors.core import new
from graphc.tensors.views import contiguous_strides
from graphc_runtime.buffer import Buffer
from graphc_runtime.executor import SMALL_ARENA, Executable
from graphc_runtime.options import CODE, KEY

_MOST_ARGUMENTS = 16
# Arithmetic and bytes of a program above which other threads may run Python meanwhile: some ten microseconds.
_LONG = 1 << 17


class Unsuitable(Exception):
    """There is no plan for this replay."""


def require(condition: bool) -> None:
    """Unsuitable unless a condition holds."""
    if not condition:
        raise Unsuitable


def _leaders(plain: Plain) -> list[int]:
    """For each tensor among the arguments, where the record of the first that is the same begins, or -1."""
    size = TABLES["arguments"]
    return [
        -1 if first == place else first * size for place, first in enumerate(plain.shared or range(len(plain.types)))
    ]


def is_long(executable: Executable) -> bool:
    """Whether other threads may run Python while a program runs."""
    return sum(x.flops + x.bytes for x in executable.artifact.launches) > _LONG


class PlanMaker:
    """A plan in the making, of a replay whose program runs on the CPU."""

    again = SMALL_ARENA  # bytes of results whose memory later results may have

    def __init__(self, native: NativeLibrary, replay: Replay, plain: Plain) -> None:
        self._native = native
        self._replay = replay
        self._plain = plain
        self._plan = Plan()
        self._recorder = current()
        require(not (replay._places or replay._constants) and self._suits(replay))
        self._executable: Executable
        self._executable, self._input_slots = replay._segments[-1]
        executable, self._first = self._executable, replay._main_output
        self._count = len(replay._outputs)
        self._scratch = replay._new_scratch()
        self._keep(self._scratch, executable, replay)
        # Addresses of inputs, outputs, arena; the buffers of outputs, of the arena, and of copies.
        self._addresses = self._plan.own([0] * (len(self._input_slots) + self._count + 1))
        self._buffers = self._plan.own([0] * (self._count + 1 + len(replay._new_gradients)))
        # Memory of gradients that written storages get for their next values, while a call settles.
        self._cells = self._plan.own([0] * len(replay._exchanged))
        self._results: set[int] = set()  # outputs whose memory is not taken beforehand

    @staticmethod
    def _suits(replay: Replay) -> bool:
        """Whether a plan can say what the replay runs."""
        if len(replay._segments) != 1 or replay._checks:
            return False
        executable, _ = replay._segments[0]
        return isinstance(executable, Executable) and executable.native is not None

    def made(self) -> Plan:
        """The finished plan."""
        self._guards()
        self._inputs()
        self._result()
        self._memory()
        self._written()
        self._checks()
        plan = self._plan
        for name, value in {
            "shared": self._native.shared.address,
            "count": self._plain.count,
            "enabled": id(self._plain.enabled),
            "inference": self._plain.inference,
            "names": id(self._plain.names) if self._plain.names else 0,
            "addresses": self._addresses.address,
            "launches": len(self._executable.artifact.launches),
            "owned": plan.own([0] * (len(self._input_slots) + 3 * self._count + 16 + len(self._replay._draws))).address,
            **self._way(),
        }.items():
            plan.set(name, value)
        return plan

    def _way(self) -> dict[str, int]:
        """The words that say how the program is run."""
        executable = self._executable
        assert executable.native is not None
        entry, table, _ = executable.native
        return {"release": int(is_long(executable)), "entry": entry, "runtime": table}

    def _keep(self, *objects: object) -> None:
        self._plan.keep.extend(objects)

    # what must hold

    def _guards(self) -> None:
        replay, guards, plain, plan = self._replay, self._replay._guards, self._plain, self._plan
        require(len(plain.types) <= _MOST_ARGUMENTS)
        shared = replay._shared if replay._captured else [None] * len(plain.types)
        # Whether another tensor over captured memory is captured itself, only Python looks.
        require(all(storage is None or place in replay.is_fixed for place, storage in enumerate(shared)))
        plan.table(
            "arguments",
            [
                (place, id(cls), id(kind), requires, 0 if storage is None else id(storage), 0, strides, leader, frozen)
                for (place, cls, kind, requires, _, frozen), storage, strides, leader in zip(
                    plain.types, shared, map(self._strides, plain.types), _leaders(plain), strict=True
                )
            ],
        )
        plan.table("constants", [(place, id(value)) for place, _, value in plain.constants])
        plan.table("fixed", [(plain.types[place][0], id(tensor)) for place, tensor in replay._fixed])
        plan.table("captured", [(id(storage),) for storage in replay._captured.values()])
        plan.table("gradients", [(id(t), 0 if kind is None else id(kind)) for t, kind in replay._grads])
        fields, calls = self._fields()
        plan.table("fields", fields)
        plan.table("calls", [(id(compute), id(expected)) for compute, expected in self._guarding(calls)])
        if guards._writes is not None:
            plan.set("writes", id(guards._writes))
        proxies = [e for e in guards._in_dicts if type(e[0]) is MappingProxyType]
        others = [e for e in guards._in_dicts if type(e[0]) is not MappingProxyType]
        others.append((CODE, KEY, replay.code, False, "options"))  # scopes are another guard
        require(all(_is_dict(mapping) for mapping, *_ in others))
        walked = self._walks({id(holder) for holder, *_ in guards._sizes}, others)
        for name, entries in (("proxies", proxies), ("dicts", [e for e in others if id(e[0]) not in walked])):
            plan.table(name, [(id(mapping), id(key), id(value)) for mapping, key, value, *_ in entries])
        plan.table("cells", [(id(cell), id(value)) for cell, value, *_ in guards._cells])
        sizes: dict[str, list[tuple[int, int]]] = {"dict_sizes": [], "list_sizes": []}
        for holder, size, _ in guards._sizes:
            require(_is_dict(holder) or type(holder) is list)
            sizes["list_sizes" if type(holder) is list else "dict_sizes"].append((id(holder), size))
        for name, records in sizes.items():
            plan.table(name, records)
        require(all(type(holder) is list for holder, *_ in guards._in_sequences))
        plan.table("items", [(id(h), i, id(v)) for h, items, _ in guards._in_sequences for i, v in enumerate(items)])
        plan.table(
            "tensors",
            [(id(t), id(storage), id(chain), int(needs)) for t, storage, chain, needs, _ in guards._tensors],
        )

    def _guarding(self, calls: Sequence[tuple[Callable[[], Any], Any]]) -> list[tuple[Callable[[], Any], Any]]:
        """All Python functions that guard, and what they must give."""
        return [*self._replay._guards._calls, *calls]

    def _fields(self) -> tuple[list[tuple[int, int]], list[tuple[Callable[[], bool], bool]]]:
        """The words of objects that must stay, and guards in Python of those whose place is unknown."""
        words: list[tuple[int, int]] = []
        calls: list[tuple[Callable[[], bool], bool]] = []
        for holder, name, expected, by_value, _ in self._replay._guards._fields:
            try:
                address = field_of(holder, name)
            except UnknownLayout:
                calls.append((partial(field_holds, holder, name, expected, by_value), True))
                continue
            is_empty = ctypes.c_uint64.from_address(address).value == 0  # it is None to Python where it may be empty
            words.append((address, 0 if expected is MISSING or (is_empty and expected is None) else id(expected)))
        self._keep(*calls)
        return words, calls

    def _strides(self, kind: tuple[int, type, TensorType, bool, tuple[int, ...] | None, bool]) -> int:
        """The strides that a view must have; 0 for what is none."""
        strides = kind[4]
        if strides is None:
            return 0
        require(strides == contiguous_strides(kind[2].shape))
        self._keep(strides)
        return id(strides)

    def _walks(self, sized: set[int], entries: Sequence[Any]) -> set[int]:
        """Dictionaries of which most entries are guarded are gone through in order; gives their identities."""
        guarded: dict[int, dict[Any, Any]] = {}
        mappings: dict[int, dict[Any, Any]] = {}
        for mapping, key, value, *_ in entries:
            guarded.setdefault(id(mapping), {})[key] = value
            mappings[id(mapping)] = mapping
        records: list[tuple[int, int, int]] = []
        for identity, mapping in mappings.items():
            expected = guarded[identity]
            if identity not in sized or 2 * len(expected) < len(mapping) or not expected.keys() <= mapping.keys():
                continue
            keys = list(mapping)
            self._keep(keys)
            pairs = self._plan.own([w for k in keys for w in (id(k), id(expected[k]) if k in expected else 0)])
            records.append((identity, pairs.address, len(keys)))
        self._plan.table("walks", records)
        return {identity for identity, *_ in records}

    # inputs

    def _inputs(self) -> None:
        replay, plan = self._replay, self._plan
        require(all(kind == np.float64 for kind in replay._number_types))
        sources = [
            *((STORAGE, id(storage)) for storage in replay._storages),
            *(self._argument(*self._plain.types[place][:5]) for place in replay._arguments),
            *((GRADIENT, id(tensor)) for tensor in replay._gradients),
        ]
        lent = {alias: self._buffers.at(j) for j, alias in replay._aliases}
        place_of = {slot: place for place, slot in enumerate(self._input_slots)}
        records: list[tuple[int, int, int, int]] = []
        for place, slot in enumerate(self._input_slots):
            if slot < len(sources):
                records.append((*sources[slot], self._addresses.at(place), lent.pop(place, 0)))
        require(not lent)  # something else than a storage is given away
        plan.table("inputs", records)
        self._numbers(len(sources), place_of)

    def _numbers(self, slot: int, place_of: Mapping[int, int]) -> None:
        """What is computed and drawn for a call; slots from `slot` on."""
        replay, plan = self._replay, self._plan
        computes: list[tuple[int, int]] = []
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

    @staticmethod
    def _argument(
        place: int, cls: type, kind: TensorType, requires: bool, strides: tuple[int, ...] | None
    ) -> tuple[int, int]:
        return (ARGUMENT if strides is None else VIEW - 1 + kind.dtype.itemsize), place

    # memory

    def _record_of(self, tensor: Any, j: int, take: int = 0, place: int = -1) -> tuple[int, ...]:
        """A record of `made` for a tensor like this one over output `j`."""
        hist = tensor._lineage.hist
        value = 0 if hist is None else self._plan.prototype(hist)
        prototypes = self._plan.prototype(tensor._storage), self._plan.prototype(tensor._lineage), value
        return (*prototypes, self._plan.prototype(tensor), self._buffers.at(j), take, place, 0, 0, 0)

    def _storage(self, type: TensorType) -> Storage:
        return Storage(self._recorder, type, None, None)

    def _memory(self) -> None:
        replay, plan = self._replay, self._plan
        takes = [
            (self._buffers.at(j), self._take(size, what))
            for j, size, what in zip(replay._allocated, replay._sizes, replay._what, strict=True)
            if j not in self._results
        ]
        places = {id(storage): place for place, (storage, *_) in enumerate(replay._exchanged)}
        input_of = dict(replay._aliases)
        kept: list[tuple[int, ...]] = []
        for group, is_taken in ((replay._taken_over, False), (replay._kept_outputs, True)):
            for owner, kind, j in group:
                made = plan.own(self._record_of(new(self._storage(kind), kind, Lineage()), j))
                take = self._take(kind.nbytes, replay._purposes[j]) if is_taken else 0
                cell = 0
                if not is_taken and (slot := self._input_slots[input_of[j]]) < len(replay._storages):
                    place = places.get(id(replay._storages[slot]))
                    cell = 0 if place is None else self._cells.at(place)
                kept.append((id(owner), id(kind), self._buffers.at(j), made.address, take, cell, 0))
        kept += self._copied_gradients()
        plan.table("kept", kept)
        spares: list[Any] = [None] * len(replay._exchanged)
        plan.set("spares", id(spares))
        self._keep(spares)
        plan.table(
            "spare",
            [
                (place, self._buffers.at(j), self._take(kind.nbytes, replay._purposes[j]))
                for place, (_, j, kind) in enumerate(replay._exchanged)
            ],
        )
        first = len(self._input_slots)
        for j in replay._scratched:
            buffer = self._scratch.outputs[j]
            assert buffer is not None
            self._buffers.values[j] = id(buffer)
        outputs = [(self._buffers.at(j), self._addresses.at(first + j)) for j in range(self._count)]
        self._arena(takes, outputs)
        plan.table("takes", takes)
        plan.table("outputs", outputs)

    def _take(self, nbytes: int, what: object) -> int:
        """The record of memory for `what`."""
        return self._plan.take(nbytes, what)

    def _arena(self, takes: list[tuple[int, int]], outputs: list[tuple[int, int]]) -> None:
        """Add where the arena comes from, and where its address goes."""
        executable, first = self._executable, len(self._input_slots)
        arena = executable.arena_bytes
        if 0 < arena <= SMALL_ARENA:
            held = Buffer.allocate(arena, executable.arena_name)
            self._keep(held)
            self._addresses.values[first + self._count] = held.ptr
        elif arena:
            takes.append((self._buffers.at(self._count), self._take(arena, executable.arena_name)))
            outputs.append((self._buffers.at(self._count), self._addresses.at(first + self._count)))

    def _copied_gradients(self) -> list[tuple[int, ...]]:
        """Gradients that are set to None, and those whose memory is another's, which are copied."""
        replay, plan = self._replay, self._plan
        slots = {place: slot for place, _, slot, copied in replay._fresh if copied}
        cleared: list[tuple[int]] = []
        copies: list[tuple[int, int, int]] = []
        kept: list[tuple[int, ...]] = []
        for owner, recipe in replay._new_gradients:
            if recipe is None or (recipe[0] == "value" and recipe[2] is None):
                cleared.append((id(owner),))
                continue
            require(recipe[0] == "made" and is_plain(recipe[2]) and recipe[2].storage in slots)
            kind, source = recipe[2].type, slots.pop(recipe[2].storage) - self._first
            require(source >= 0)
            cell = self._count + 1 + len(copies)
            copies.append((self._buffers.at(source), self._buffers.at(cell), kind.nbytes))
            made = plan.own(self._record_of(new(self._storage(kind), kind, Lineage()), cell))
            take = self._take(kind.nbytes, replay._purposes[source])
            kept.append((id(owner), id(kind), self._buffers.at(cell), made.address, take, 0, 0))
        require(not slots)  # a result that is a copy
        plan.table("cleared", cleared)
        plan.table("copies", copies)
        return kept

    # results

    def _written(self) -> None:
        replay, plan, first = self._replay, self._plan, self._first
        records = [
            (STORAGE, id(storage), self._buffers.at(j), place, self._cells.at(place), 0)
            for place, (storage, j, _) in enumerate(replay._exchanged)
        ]
        held = [(STORAGE, id(what), slot, copied) for what, slot, copied in replay._written]
        held += [(GRADIENT, id(what), slot, copied) for what, slot, copied in replay._written_gradients]
        types = self._plain.types
        held += [(ARGUMENT, types[what][0], slot, copied) for what, slot, copied in replay._written_arguments]
        for kind, what, slot, copied in held:
            require(not copied)
            records.append((kind, what, self._buffers.at(slot - first), -1, 0, 0))
        plan.table("written", records)

    def _result(self) -> None:
        replay, plan = self._replay, self._plan
        recipe = replay._result
        require(recipe is not None)
        fresh = {place: (kind, slot) for place, kind, slot, copied in replay._fresh if not copied}
        if replay._whole is not None:
            fresh[recipe[2].storage] = replay._whole[0], replay._whole[2]
        recipes: list[Any] = []
        build = _builder(recipe, recipes)
        made: list[tuple[int, ...]] = []
        leaves: list[tuple[int, int]] = []
        for tag, _, what in recipes:
            if tag == "made":
                # Each output becomes one storage: two tensors over one are left to Python.
                place: Any = what.storage
                require(place in fresh)
                type_of, slot = fresh.pop(place)
                storages: dict[int, Storage] = {place: self._storage(type_of)}
                tensor = make_result(what, storages)
                leaves.append((MADE, len(made)))
                made.append(self._result_record(tensor, slot - self._first, 2 * len(made)))
            elif tag in ("value", "object"):
                self._keep(what)
                leaves.append((OBJECT, id(what)))
            else:
                require(tag == "arg")
                leaves.append((GIVEN, self._plain.types[what][0]))
        table = plan.table("made", made)
        tensor_of = table.address + MADE_TENSOR
        leaves = [(kind, tensor_of + WORD * MADE_WORDS * what if kind == MADE else what) for kind, what in leaves]
        results: list[Any] = [None] * (2 * len(made))
        self._keep(results)
        plan.set("results", id(results))
        plan.table("leaves", leaves)
        plan.set("leaves_count", len(leaves))
        flat = recipe[0] == "seq" and recipe[2] == recipes
        kinds = {tuple: TUPLE, list: LIST}
        plan.set("result_kind", ONE if recipes == [recipe] else kinds[recipe[1]] if flat else BUILT)
        self._keep(build)
        plan.set("build", id(build))

    def _result_record(self, tensor: Any, j: int, place: int) -> tuple[int, ...]:
        replay, kind = self._replay, tensor._storage.type
        if j not in replay._allocated:
            return self._record_of(tensor, j)  # in memory that was given away
        self._results.add(j)
        take = self._take(kind.nbytes, replay._purposes[j])
        return self._record_of(tensor, j, take, place if kind.nbytes <= self.again else -1)

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


def _builder(recipe: Any, leaves: list[Any]) -> Callable[[list[Any]], Any]:
    """What makes a result of the objects of its leaves, which are added to `leaves`."""
    tag, kind, what = recipe
    if tag == "of":
        base = _builder(("arg", None, what[0]), leaves)
        return lambda made: view_of(base(made), what[1])
    if tag not in ("seq", "named", "dict"):
        place = len(leaves)
        leaves.append(recipe)
        return lambda made: made[place]
    names = [name for name, _ in what] if tag == "dict" else ()
    parts = [_builder(part, leaves) for part in ([part for _, part in what] if tag == "dict" else what)]
    if tag == "dict":
        return lambda made: {name: part(made) for name, part in zip(names, parts, strict=True)}
    if tag == "named":
        return lambda made: kind(*[part(made) for part in parts])
    return lambda made: kind([part(made) for part in parts])


def _is_dict(mapping: Mapping[Any, Any]) -> bool:
    """Whether looking into a mapping is what it is for a dictionary."""
    cls = type(mapping)
    return isinstance(mapping, dict) and cls.get is dict.get and cls.__len__ is dict.__len__
