"""What native code needs to serve calls over operands of any sizes (`graphc.native.serving`), made of what does it in
Python.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from graphc.any_size import LEAST, Joined, Sized
from graphc.ir.types import DType, TensorType
from graphc.native.library import NativeLibrary
from graphc.native.plans import is_long
from graphc.native.serving import BOUNDS, FORM, FOUND, MOST_RANK, PROGRAM, ROOM, SERVICE
from graphc.native.tables import MADE_WORDS, WORD, Plan
from graphc.options import code_key
from graphc.recording import current
from graphc.room_programs import Program
from graphc.storage import Lineage, Storage
from graphc.tensors.core import TensorBase, new
from graphc_runtime.buffer import Buffer
from graphc_runtime.executor import Executable
from graphc_runtime.options import CODE, KEY

TURNS = 16  # calls, after which Python makes one, which counts them
_MOST_ARENA = 1 << 20  # bytes of memory that a program works in, which is kept
_MOST_TYPES = 1024  # of results whose types are kept
_OWNED = 4  # references that a call owns, besides those of operands
_IDENTICAL = frozenset((bool, type(None), str, DType))  # of these the address is in a key
_COUNTED = frozenset((tuple, list))

Sizes = tuple[int, ...]
_Made = tuple[TensorType, dict[str, int]]  # an example of what is made, and words of a service


class Service:
    """Calls for operands of any sizes, as native code finds them at `address`. Those that a service leads to are tried
    after it; calls that any of them serves are counted by the first.
    """

    def __init__(self, words: dict[str, int], keep: Plan) -> None:
        self._words = keep.own([words.get(name, 0) for name in SERVICE])
        self._keep = keep
        self._following: Service | None = None
        self.address = self._words.address

    def taken(self) -> int:
        """How many calls native code served since the last time; from then on it may serve as many as at first."""
        place = SERVICE.index("left")
        left, self._words.values[place] = self._words.values[place], TURNS
        return TURNS - left

    def lead_to(self, following: Service | None) -> None:
        """Let native code try a following service, or none, for calls that this is not for."""
        self._following = following
        self._words.values[SERVICE.index("next")] = 0 if following is None else following.address


class _Results(dict[Sizes, tuple[TensorType, int, Plan]]):
    """The types of results by sizes, and where what takes memory for them is told."""

    def __init__(self, shape_of: Callable[[Sizes], Sizes], example: TensorType) -> None:
        super().__init__()
        self._shape_of = shape_of
        self._example = example

    def __missing__(self, sizes: Sizes) -> tuple[TensorType, int, Plan]:
        if len(self) >= _MOST_TYPES:
            self.clear()
        type, keep = self._example.with_shape(self._shape_of(sizes)), Plan()
        made = self[sizes] = type, keep.take(type.nbytes, type), keep
        return made


def service_of(native: NativeLibrary, whole: Joined | Sized, parts: Sequence[object]) -> Service | None:
    """What serves calls with such arguments; None when Python must do it."""
    key = code_key()
    words = [_word(part) for part in parts]
    tensors = [part for part in parts if isinstance(part, TensorBase)]
    if CODE.get(KEY) is not key or None in words or max([t._type.rank for t in tensors], default=0) > MOST_RANK:
        return None
    plan = Plan()
    made = _joined(plan, whole, tensors) if isinstance(whole, Joined) else _sized(plan, whole, key)
    if made is None:
        return None
    example, told = made
    pairs = [word for part, word in zip(parts, words, strict=True) for word in (word or 0, id(type(part)))]
    # What is in the key by its address, and classes; no tensor, nor what holds tensors.
    plan.keep += [key, [type(part) for part in parts], [part for part in parts if type(part) in _IDENTICAL]]
    _fill(plan, native, example, len(tensors))
    count = told["count"]
    rooms = {"found": FOUND * len(tensors), "sizes": count, "before": count, "dims": 3 * MOST_RANK}
    rooms |= dict.fromkeys(("extents", "from", "to"), MOST_RANK)
    return Service(
        {
            "plan": plan.words.address,
            "options": id(key),
            "left": TURNS,
            "parts": len(parts),
            "arguments": plan.own(pairs).address,
            "operands": len(tensors),
            "item": example.dtype.itemsize,
            "rank": example.rank,
            **{name: plan.own([0] * size).address for name, size in rooms.items()},
            **told,
        },
        plan,
    )


def _word(part: object) -> int | None:
    """What stands in a key for a part of the arguments, 0 for a tensor; None for one that native code cannot read."""
    if isinstance(part, TensorBase):
        return 0
    if isinstance(part, float):
        return struct.unpack("<q", struct.pack("<d", part))[0]
    if isinstance(part, tuple | list):
        return len(part)
    if type(part) is int:
        return part if -(1 << 63) <= part < 1 << 63 else None
    return id(part) if type(part) in _IDENTICAL else None


def _fill(plan: Plan, native: NativeLibrary, example: TensorType, operands: int) -> None:
    """Let a plan make tensors, whose types are set each time."""
    storage, lineage = Storage(current(), example, None, None), Lineage()
    storage.recorder = None  # type: ignore[assignment]  # each call sets it: the recorder is not to keep itself
    likes = [plan.prototype(held) for held in (storage, lineage)]
    record = (*likes, 0, plan.prototype(new(storage, example, lineage)), 0, 0, -1, 0, 0, 0)
    assert len(record) == MADE_WORDS
    plan.table("made", [record])
    plan.set("shared", native.shared.address)
    plan.set("owned", plan.own([0] * (_OWNED + operands)).address)


def _forms(plan: Plan, operands: Sequence[tuple[TensorType, Sequence[int]]]) -> int:
    """Where the forms of operands stand: of each its type, and the numbers of its sizes or -1."""
    words: list[int] = []
    for type, numbers in operands:
        dims = [n if number < 0 else -1 - number for n, number in zip(type.shape, numbers, strict=True)]
        words += id(type.dtype), type.dtype.itemsize, type.rank, *dims, *[0] * (MOST_RANK - type.rank)
    assert len(words) == FORM * len(operands)
    return plan.own(words).address


def _results(plan: Plan, shape_of: Callable[[Sizes], Sizes], example: TensorType) -> int:
    held = _Results(shape_of, example)
    plan.keep.append(held)
    return id(held)


def _joined(plan: Plan, whole: Joined, tensors: Sequence[TensorBase]) -> _Made:
    axis, example = whole.axis, whole.example
    before, after = example.shape[:axis], example.shape[axis + 1 :]
    numbers = [-1] * axis + [0] + [-1] * (example.rank - axis - 1)
    words = {
        "forms": _forms(plan, [(example, numbers)] * len(tensors)),
        "count": 1,
        "joins": 1,
        "axis": axis,
        "types": _results(plan, lambda sizes: (*before, *sizes, *after), example),
    }
    return example, words


def _sized(plan: Plan, whole: Sized, key: object) -> _Made | None:
    form = whole.form
    programs = {
        rooms: program
        for (options, rooms), program in whole.programs.items()
        if options is key and isinstance(program, Program)
    }
    if form is None or not programs:
        return None
    some = next(iter(programs.values()))
    example, dims = some.outputs[0], some.form[len(some.rooms)]
    made = [_program(plan, program, whole, rooms) for rooms, program in programs.items()]
    records = [record for record in made if record is not None]
    if example.rank > MOST_RANK or not records:
        return None

    def shape_of(sizes: Sizes) -> Sizes:
        every = some.all_sizes(sizes)
        return tuple([n if i < 0 else every[i] for n, i in zip(example.shape, dims, strict=True)])

    words = {
        "forms": _forms(plan, list(zip(whole.types, form, strict=True))),
        "count": len(whole.least),
        "least": LEAST,
        "types": _results(plan, shape_of, example),
        "programs": plan.own([word for record in records for word in record]).address,
        "programs_count": len(records),
    }
    return example, words


def _program(plan: Plan, program: Program, whole: Sized, rooms: Sequence[int]) -> tuple[int, ...] | None:
    """The record of a program; None where Python must run it."""
    executable, (output, *checks) = program.executable, program.outputs
    if type(executable) is not Executable or executable.native is None or executable.arena_bytes > _MOST_ARENA:
        return None
    operands, inputs = len(program.rooms), len(executable.artifact.inputs)
    addresses = plan.own([0] * (inputs + len(program.outputs) + 1))
    records: list[int] = []
    for place, room in enumerate(program.rooms):
        if room is None:
            records += 0, 0, 0, addresses.at(place)
            continue
        begin = addresses.values[place] = room.ctypes.data
        strides = plan.own([step // room.itemsize for step in room.strides])
        records += begin, room.nbytes, strides.address, 0
    for place in range(inputs - operands):
        addresses.values[operands + place] = program.sizes.ctypes.data + place * program.sizes.itemsize
    if executable.arena_bytes:
        addresses.values[inputs + len(program.outputs)] = _memory(plan, executable.arena_bytes, executable.arena_name)
    out = _memory(plan, output.nbytes, output) if max(program.form[operands], default=-1) >= 0 else 0
    if out:
        addresses.values[inputs] = out
    found = plan.own([0] * len(checks))
    for place, check in enumerate(checks):
        assert check.nbytes <= WORD
        addresses.values[inputs + 1 + place] = found.at(place)
    bounds = [word for least, room in zip(whole.least, rooms, strict=True) for word in (whole.above(room, least), room)]
    assert len(bounds) == BOUNDS * len(rooms)
    assert len(records) == ROOM * operands
    entry, table, _ = executable.native
    plan.keep.append(program)
    words = {
        "bounds": plan.own(bounds).address,
        "entry": entry,
        "runtime": table,
        "addresses": addresses.address,
        "launches": len(executable.artifact.launches),
        "release": int(is_long(executable)),
        "rooms": plan.own(records).address,
        "last": program.last.ctypes.data,
        "sizes": program.sizes.ctypes.data,
        "out": out,
        "strides": plan.own(output.strides).address,
        "result": addresses.at(inputs),
        "checks": found.address,
        "checks_count": len(checks),
    }
    return tuple([words[name] for name in PROGRAM])


def _memory(plan: Plan, nbytes: int, what: object) -> int:
    held = Buffer.allocate(nbytes, what)
    plan.keep.append(held)
    return held.ptr
