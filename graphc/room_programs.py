"""Compiled graphs with room (`graphc.rooms`), run for the sizes of a call."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import graphc
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, allocate_all, driven, from_host, moved_all, values_of
from graphc_runtime.buffer import Buffer
from graphc_runtime.errors import OutOfMemory

MOST_HELD = 1 << 20  # bytes of a result with room whose memory is kept between runs,
WASTED = 1 << 20  # and bytes that a result may have behind its end
WAITED = 1.0  # seconds for another thread
MOST_SIZES = 256  # that lie on a device, so that they need not be brought again

Form = tuple[tuple[int, ...], ...]  # for each dimension of each operand the number of its size, or -1
Sums = Sequence[tuple[Sequence[int], int]]  # of sizes that are the sum of others, and a number: the numbers of those


class Program:
    """A compiled graph with room, and memory with that room for the operands whose sizes change: `rooms`, zero behind
    the sizes of the `last` run. `sizes` is what the program reads of them, `form` has what changes of the operands and
    of the `outputs`: a size, or one that is the sum of others and a number, as `sums` says.
    """

    def __init__(self, graph: Graph, form: Form, sums: Sums) -> None:
        self.executable = graphc.compiled.compile_graph(graph)
        self.form = form
        self.sums = sums
        self.outputs = [node.type for node in graph.outputs]
        count = len(form) - len(self.outputs)
        self.rooms = [
            np.zeros(node.shape, node.dtype.numpy) if changes(dims) else None
            for node, dims in zip(graph.inputs[:count], form[:count], strict=True)
        ]
        self._buffers = [None if room is None else Buffer.from_array(room) for room in self.rooms]
        self._results = [
            Buffer.allocate(type.nbytes, type) if changes(dims) and type.nbytes <= MOST_HELD else None
            for type, dims in zip(self.outputs, form[count:], strict=True)
        ]
        self._are_rows = [_are_rows(dims) for dims in form]
        self.sizes = np.zeros(len(graph.inputs) - count, np.int32)
        self._size_buffers = [Buffer.from_array(self.sizes[i : i + 1]) for i in range(len(self.sizes))]
        self.last = np.zeros(len(self.sizes), np.int64)
        self._read, self._last = self.sizes.data, self.last.data  # single numbers, in less time
        self._lock = threading.RLock()
        self._is_at_work = False

    def run(
        self, sizes: Sequence[int], types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]
    ) -> list[tuple[AnyBuffer, TensorType]] | None:
        """The results and their types; None where the program is not to be had: its room is in use."""
        if not self._lock.acquire(timeout=WAITED):
            return None  # another thread takes long, or is none of this process, which was forked
        try:  # a signal's handler may want it meanwhile
            return None if self._is_at_work else self._run(sizes, types, buffers)
        finally:
            self._lock.release()

    def _run(
        self, sizes: Sequence[int], types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]
    ) -> list[tuple[AnyBuffer, TensorType]]:
        self._is_at_work = True
        try:
            held = zip(self._results, self.outputs, strict=True)
            made = [Buffer.allocate(type.nbytes, type) if kept is None else kept for kept, type in held]
            self.executable.launch([*self._given(sizes, types, buffers), *self._size_buffers], made)
            count, every = len(self.rooms), self.all_sizes(sizes)
            forms = zip(made, self.outputs, self.form[count:], self._are_rows[count:], strict=True)
            return [_cut(*each, every) for each in forms]
        finally:
            self._is_at_work = False

    def all_sizes(self, sizes: Sequence[int]) -> list[int]:
        """The sizes that `form` has the numbers of, for those of the operands."""
        return _all_sizes(sizes, self.sums)

    def _given(
        self, sizes: Sequence[int], types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]
    ) -> list[AnyBuffer]:
        """Operands, those with room copied to where that is."""
        given: list[AnyBuffer] = []
        last, shrinks = self._last, False
        for i, n in enumerate(sizes):  # what follows may be interrupted
            if n < last[i]:
                shrinks = True
            else:
                last[i] = n
        rooms = zip(self.rooms, self._buffers, self._are_rows[: len(self.rooms)], strict=True)
        for (room, held, are_rows), type, buffer in zip(rooms, types, buffers, strict=True):
            is_array = isinstance(buffer, np.ndarray)
            if room is None or held is None:
                given.append(from_host(np.ascontiguousarray(buffer), "cpu") if is_array else buffer)
                continue
            if shrinks:
                room.fill(0)
            if are_rows and not is_array:
                ctypes.memmove(held.ptr, buffer.ptr, type.nbytes)
            else:
                room[tuple([slice(n) for n in type.shape])] = array_of(buffer, type)
            given.append(held)
        for i, n in enumerate(sizes):
            last[i] = self._read[i] = n
        return given


class PackedProgram:
    """A compiled graph with room on `device`, which the host drives: operands and results are packed, so that operands
    are read where they lie. See `Program`.
    """

    def __init__(self, graph: Graph, form: Form, sums: Sums, device: str) -> None:
        self.executable = graphc.compiled.compile_graph(graph, (), device)
        self._device = device
        self._outputs = [node.type for node in graph.outputs]
        self._form = form[len(form) - len(self._outputs) :]
        self._sums = sums
        # Where sizes lie on the device, for each stream that they were brought on.
        self._sizes: dict[tuple[object, ...], list[AnyBuffer]] = {}

    def run(
        self, sizes: Sequence[int], types: Sequence[TensorType], buffers: Sequence[AnyBuffer]
    ) -> list[tuple[AnyBuffer, TensorType]] | None:
        """The results and their types; None where there is no memory for as much room."""
        try:
            made = allocate_all(self._device, self._outputs)
            self.executable.launch([*buffers, *self._brought(sizes)], made)
        except OutOfMemory:
            return None
        every = _all_sizes(sizes, self._sums)
        return [self._cut(*each, every) for each in zip(made, self._outputs, self._form, strict=True)]

    def _brought(self, sizes: Sequence[int]) -> list[AnyBuffer]:
        """The sizes on the device."""
        key = driven(self._device).current_stream, *sizes
        held = self._sizes.get(key)
        if held is None:
            if len(self._sizes) >= MOST_SIZES:
                self._sizes = {}
            arrays = [Buffer.from_array(np.array([n], np.int32)) for n in sizes]
            held = self._sizes[key] = moved_all(arrays, self._device, ["a size"] * len(arrays))
        return held

    def _cut(
        self, buffer: AnyBuffer, type: TensorType, dims: tuple[int, ...], sizes: Sequence[int]
    ) -> tuple[AnyBuffer, TensorType]:
        """What of a result is not room, and its type."""
        cut = cut_type(type, dims, sizes)
        wasted = buffer.nbytes - cut.nbytes
        if wasted:
            buffer.shrink(cut.nbytes)
        return buffer.copy() if wasted > WASTED else buffer, cut


@dataclass(frozen=True, slots=True)
class Run:
    """A `program` for some `sizes`, and operands of these `types`."""

    program: Program | PackedProgram
    sizes: Sequence[int]
    types: Sequence[TensorType]

    def __call__(self, buffers: Sequence[AnyBuffer]) -> Sequence[AnyBuffer] | None:
        """The results; None where the program is not to be had."""
        made = self.program.run(self.sizes, self.types, buffers)
        return None if made is None else [buffer for buffer, _ in made]


def _cut(
    buffer: AnyBuffer, type: TensorType, dims: tuple[int, ...], are_rows: bool, sizes: Sequence[int]
) -> tuple[AnyBuffer, TensorType]:
    """What of a result is not room, and its type."""
    if not changes(dims):
        return buffer, type
    cut = cut_type(type, dims, sizes)
    made = Buffer.allocate(cut.nbytes, cut)
    if are_rows:
        ctypes.memmove(made.ptr, buffer.ptr, cut.nbytes)
    else:
        values_of(made, cut)[...] = values_of(buffer, type)[tuple([slice(n) for n in cut.shape])]
    return made, cut


def cut_type(type: TensorType, dims: tuple[int, ...], sizes: Sequence[int]) -> TensorType:
    """The type of what is not room."""
    if not changes(dims):
        return type
    return type.with_shape(tuple([sizes[i] if i >= 0 else n for n, i in zip(type.shape, dims, strict=True)]))


def _all_sizes(sizes: Sequence[int], sums: Sums) -> list[int]:
    return [*sizes, *(sum(sizes[i] for i in which) + n for which, n in sums)]


def _are_rows(dims: Sequence[int]) -> bool:
    """Whether nothing but the first dimension changes: what is not room lies in one piece."""
    return changes(dims[:1]) and not changes(dims[1:])


def changes(dims: Sequence[int]) -> bool:
    """Whether a dimension is one of the sizes."""
    return max(dims, default=-1) >= 0


def array_of(value: AnyBuffer | np.ndarray, type: TensorType) -> np.ndarray:
    """The elements of an operand, of the CPU."""
    return value if isinstance(value, np.ndarray) else values_of(value, type)
