"""What native flushes need to run a program for all sizes (`graphc.native.rooming`)."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from graphc.ir.types import TensorType
from graphc.native.rooming import PART, ROOMY
from graphc.native.tables import WORD, Plan, Words
from graphc.room_programs import Program, Run
from graphc_runtime.buffer import Buffer
from graphc_runtime.executor import Executable

_MOST_ARENA = 1 << 20  # bytes of memory that a program works in, which is kept
# Arithmetic and bytes of a program: a millisecond, while no other thread runs Python. Python lets one run for five.
_MOST_WORK = 1 << 25


class _Held:
    """Memory that native runs of a program share, apart from that of runs by Python, which other threads may interrupt:
    native ones are not. None of `addresses` are those of what has no room.
    """

    def __init__(self, program: Program, executable: Executable) -> None:
        self.rooms = [None if room is None else np.zeros_like(room) for room in program.rooms]
        self.last = Words([0] * len(program.sizes))
        self.sizes = np.zeros_like(program.sizes)
        count, inputs = len(program.rooms), len(executable.artifact.inputs)
        self.results = [
            Buffer.allocate(type.nbytes, type) if max(dims, default=-1) >= 0 else None
            for type, dims in zip(program.outputs, program.form[count:], strict=True)
        ]
        self.addresses = Words([0] * (inputs + len(self.results) + 1))
        for place, room in enumerate(self.rooms):
            self.addresses.values[place] = 0 if room is None else room.ctypes.data
        for place in range(inputs - count):
            self.addresses.values[count + place] = self.sizes.ctypes.data + place * self.sizes.itemsize
        for place, result in enumerate(self.results):
            self.addresses.values[inputs + place] = 0 if result is None else result.ptr
        if executable.arena_bytes:
            self._arena = Buffer.allocate(executable.arena_bytes, executable.arena_name)
            self.addresses.values[inputs + len(self.results)] = self._arena.ptr


_held: WeakKeyDictionary[Program, _Held] = WeakKeyDictionary()


def roomy(plan: Plan, run: Run, outputs: Sequence[TensorType]) -> tuple[int, int] | None:
    """Where it stands what is run, for results of such types, and how many kernels that starts; None where Python must
    do it: a program that takes long leaves other threads no time here.
    """
    program, executable = run.program, run.program.executable
    if not isinstance(program, Program) or type(executable) is not Executable or executable.native is None:
        return None
    if executable.arena_bytes > _MOST_ARENA:
        return None
    work = sum(x.flops + x.bytes for x in executable.artifact.launches)
    if work > _MOST_WORK or max(executable.output_aliases, default=-1) >= 0:
        return None
    held = _held.get(program)
    if held is None:
        held = _held[program] = _Held(program, executable)
    plan.keep += held, program
    count, inputs = len(program.rooms), len(executable.artifact.inputs)
    operands = [
        _part(plan, room.ctypes.data, room.nbytes, type, _strides(room), type.strides, i, held.addresses.at(i))
        if room is not None
        else _as_it_is(i, held.addresses.at(i))
        for i, (room, type) in enumerate(zip(held.rooms, run.types, strict=True))
    ]
    results = [
        _part(plan, kept.ptr, kept.nbytes, type, type.strides, whole.strides, count + i, held.addresses.at(inputs + i))
        if kept is not None
        else _as_it_is(count + i, held.addresses.at(inputs + i))
        for i, (kept, type, whole) in enumerate(zip(held.results, outputs, program.outputs, strict=True))
    ]
    entry, table, _ = executable.native
    rank = max([type.rank for type in (*run.types, *outputs)], default=0)
    words = {
        "entry": entry,
        "runtime": table,
        "addresses": held.addresses.address,
        "operands": plan.own([word for part in operands for word in part]).address,
        "operands_count": len(operands),
        "results": plan.own([word for part in results for word in part]).address,
        "results_count": len(results),
        "sizes": plan.own(run.sizes).address,
        "last": held.last.address,
        "read": held.sizes.ctypes.data,
        "sizes_count": len(run.sizes),
        "dims": plan.own([0] * (3 * rank)).address,
    }
    return plan.own([words[name] for name in ROOMY]).address, len(executable.artifact.launches)


def _strides(room: np.ndarray) -> list[int]:
    return [step // room.itemsize for step in room.strides]


def _part(
    plan: Plan,
    room: int,
    nbytes: int,
    type: TensorType,
    target: Sequence[int],
    source: Sequence[int],
    place: int,
    slot: int,
) -> tuple[int, ...]:
    extents, read, written = (plan.own(words).address for words in (type.shape, source, target))
    made = (room, nbytes, type.rank, extents, read, written, type.dtype.itemsize, WORD * place, slot)
    assert len(made) == len(PART)
    return made


def _as_it_is(place: int, slot: int) -> tuple[int, ...]:
    return (*[0] * (len(PART) - 2), WORD * place, slot)
