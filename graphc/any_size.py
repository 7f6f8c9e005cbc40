"""Functions of tensors, compiled once for operands of many sizes.

What a function does for operands of two sizes tells what it does for others (`graphc.rooms`): it is compiled with room
for larger ones, to which operands are copied. Each time that there is not enough room, it is looked at again.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc
from graphc.alike import Pattern
from graphc.extents import Sizes
from graphc.interpreting import COMPILED_STEP, LONG, PROGRAM
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.ops.source import DRAWS
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, from_host, values_of
from graphc.options import code_key
from graphc.room_work import least_room, work
from graphc.rooms import sizes_of, with_room
from graphc_runtime.buffer import Buffer

LEAST = 2  # of one element something else may be made
COPIED = 2e-4  # microseconds for a byte that is copied to where there is room, or back
BETWEEN = 16  # for long programs there are rooms between the powers of two from this one on;
WASTE = 4  # how many times its work one may do that has several sizes, for which there is room for all that came
MOST_HELD = 1 << 20  # bytes of a result with room whose memory is kept between runs
WAITED = 1.0  # seconds for another thread
MOST_FAILURES = 2  # to tell what is done for all sizes, and for each program that there is
MOST_FORMS = 4  # ways in which sizes change, after which a function is given up,
MOST_ODD = 16  # and graphs of which sizes or values happen to be the same as others

Key = tuple[object, tuple[int, ...]]  # the code key and the rooms
Form = tuple[tuple[int, ...], ...]  # for each dimension of each operand the number of its size, or -1


class Joined:
    """Operands one after the other along `axis`, as in `example`."""

    is_given_up = False
    changes = 0

    def __init__(self, graph: Graph) -> None:
        (node,) = graph.outputs
        self.axis = node.integer("axis")
        self.example = node.type

    def learn(self, graph: Graph, cost: float, runs: int = 1) -> None:
        """There is nothing else to know."""

    def run(self, types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]) -> Any:
        """The result and its type, in a list; None where it is not known what the function gives."""
        axis, example = self.axis, self.example
        before, after = example.shape[:axis], example.shape[axis + 1 :]
        total = 0
        for type in types:
            shape = type.shape
            if type.dtype is not example.dtype or shape[:axis] != before or shape[axis + 1 :] != after:
                return None
            total += shape[axis]
        made = example.with_shape((*before, total, *after))
        buffer = Buffer.allocate(made.nbytes, made)
        arrays = [_array(each, type) for each, type in zip(buffers, types, strict=True)]
        np.concatenate(arrays, axis, values_of(buffer, made))
        return [(buffer, made)]


class Sized:
    """A function that `example` shows, for operands of any sizes. `is_given_up` if it cannot be.

    `types` are those of the operands of the example, and of what it draws; `form` tells which of their extents change.
    `programs` has those for the code key and the rooms of a call, of which `least` are the smallest. `changes` counts
    what is done to these.
    """

    def __init__(self, example: Graph) -> None:
        self.is_given_up = False
        self.changes = 0
        self._forms = self._failures = self._odd = 0
        self._begin(example)

    def _begin(self, example: Graph) -> None:
        self._example = example
        self._is_long = len(example.nodes) >= LONG
        self.types = _types(example.inputs, example.nodes)
        self.form: Form | None = None
        self.programs: dict[Key, Program] = {}
        self.patterns: dict[Key, Pattern] = {}
        self._costs: dict[object, float] = {}
        self.least: list[int] = []
        self._works: dict[Key, int] = {}  # of programs that are long and have several sizes,
        self._grown: tuple[int, ...] = ()  # and the largest rooms that they had
        self.changes += 1

    def learn(self, graph: Graph, cost: float, runs: int = 1) -> None:
        """The function did what `graph` shows, which took some microseconds, and will for as many `runs`."""
        if self._is_long and len(graph.nodes) != len(self._example.nodes):
            self._learn_longer(graph)
            return
        types = _types(graph.inputs, graph.nodes)
        pairs = list(zip(self.types, types, strict=False))
        if len(types) != len(self.types) or any(a.dtype is not b.dtype or a.rank != b.rank for a, b in pairs):
            self._begin_again(graph)
            return
        found = sizes_of(self.types, types)
        if not found or min(n for _, n in found) < LEAST:
            return
        if min(n for n, _ in found) < LEAST:
            self._begin(graph)
            return
        number = {pair: i for i, pair in enumerate(found)}
        form = _form(number, self.types, types)
        if self.form is None:
            self.form, self.least = form, [least_room(self._example, graph, LEAST)] * len(found)
        elif self.form != form:
            if self._sizes(types) is None:  # else some sizes happen to be as in the example, or one another's
                self._form_again(graph, form, len(found))
            return
        sizes = [n for _, n in found]
        key = self._key(sizes, graph.nodes)
        spent = self._costs[key] = self._costs.get(key, 0) + cost * runs
        if key in self.programs or 2 * spent < PROGRAM + COMPILED_STEP * len(graph.nodes):
            return
        if self._is_wide:
            key = self._wider(found, graph)
            if key in self.programs:  # which does too much for these sizes
                return
        before, outputs = ([node.type for node in each.outputs] for each in (self._example, graph))
        if COPIED * _copied([*self.types, *before], [*types, *outputs]) > cost:
            self.is_given_up = True
            return
        roomy = with_room(self._example, graph, dict(zip(found, key[1], strict=True)))
        if roomy is None:  # an extent may happen to be another one, too
            self._failures += 1
            self.is_given_up = self._failures > MOST_FAILURES * (1 + len(self.programs))
            return
        self.patterns[key] = pattern = Pattern(self._example, graph, found)
        whole = *form[: len(graph.inputs)], *_form(pattern.numbers(), before, outputs)
        self.programs[key] = Program(roomy, whole, pattern.sums)
        self.changes += 1
        if self._is_wide:
            self._works[key] = work(self._example.nodes, graph.nodes, dict(zip(found, key[1], strict=True)))

    def _begin_again(self, example: Graph) -> None:
        self._forms += 1
        self.is_given_up = self._forms > MOST_FORMS
        self._begin(example)

    def _learn_longer(self, graph: Graph) -> None:
        """The example may be shorter than most, as it is where sizes happen to be the same."""
        self._odd += 1
        self.is_given_up = self._odd > MOST_ODD and not self.programs
        if len(graph.nodes) > len(self._example.nodes) and not self.programs:
            self._begin(graph)

    def _form_again(self, graph: Graph, form: Form, count: int) -> None:
        """Sizes change that did not before: these happened to be as in the example, if there are more of them."""
        if not self._is_long:
            self._begin_again(graph)
            return
        self._odd += 1
        self.is_given_up = self._odd > MOST_ODD and not self.programs
        if count > len(self.least):
            self._begin(self._example)
            self.form, self.least = form, [least_room(self._example, graph, LEAST)] * count
        elif not self.programs and self._odd % MOST_FORMS == 0:
            self._begin(graph)

    @property
    def _is_wide(self) -> bool:
        """Whether there are too many combinations of rooms to have a program for each."""
        return self._is_long and len(self.least) > 1

    def _key(self, sizes: Sequence[int], order: Sequence[Node] = ()) -> Key:
        """The key of the program for some sizes; without rooms where there is none for as much as `order` does."""
        code = code_key()
        if not self._is_wide or not order:
            return code, tuple([self._room(n, least) for n, least in zip(sizes, self.least, strict=True)])
        most = WASTE * work(order, order, {})
        fit = [
            (amount, key)
            for key, amount in self._works.items()
            if key[0] is code and amount <= most and all(n <= room for n, room in zip(sizes, key[1], strict=True))
        ]
        return min(fit, key=lambda each: each[0])[1] if fit else (code, ())

    def _wider(self, found: Sequence[Sizes], graph: Graph) -> Key:
        """The key of a program to be: powers of two, and room for what came before, where that is no waste."""
        rooms = tuple([max(least, 1 << (n - 1).bit_length()) for (_, n), least in zip(found, self.least, strict=True)])
        grown = tuple(map(max, rooms, self._grown or rooms))
        nodes = graph.nodes
        if work(self._example.nodes, nodes, dict(zip(found, grown, strict=True))) <= WASTE * work(nodes, nodes, {}):
            self._grown = rooms = grown
        return code_key(), rooms

    def _room(self, size: int, least: int) -> int:
        """The room for a size: a power of two, or, as long programs compute much in vain, three quarters of one."""
        if size <= least:
            return least
        room = 1 << (size - 1).bit_length()
        return self._smaller(room) if size <= self._smaller(room) and self._smaller(room) > least else room

    def _smaller(self, room: int) -> int:
        """The room below one, where that is not the smallest."""
        if room & (room - 1):
            return 2 * room // 3
        return 3 * room // 4 if self._is_long and room > BETWEEN else room // 2

    def above(self, room: int, least: int) -> int:
        """Above which sizes there is this room."""
        return LEAST - 1 if room == least else max(least, self._smaller(room))

    def run(self, types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]) -> Any:
        """The results and their types; None where it is not known what the function gives, or not compiled."""
        sizes = self._sizes(types) if self.programs else None
        program = None if sizes is None else self.programs.get(self._key(sizes))
        return None if program is None or sizes is None else program.run(sizes, types, buffers)

    def runner(self, inputs: Sequence[Node], order: Sequence[Node], outputs: Sequence[Node]) -> Run | None:
        """What does what the nodes `order` do, which were recorded by no function for which this was made, but are
        known to be like some. None if they are not, or nothing is compiled for them; its result is None where the
        program is not to be had.
        """
        types = _types(inputs, order)
        sizes = self._sizes(types, 1) if len(types) == len(self.types) and self.programs else None
        key = None if sizes is None else self._key(sizes, order)
        if sizes is None or key not in self.programs or not self.patterns[key].fits(inputs, order, outputs, sizes):
            return None
        return Run(self.programs[key], sizes, types[: len(inputs)])

    def _sizes(self, types: Sequence[TensorType], least: int = LEAST) -> list[int] | None:
        """The sizes of operands, `least` or more; None where they are of another form."""
        form = self.form
        if form is None:
            return None
        sizes = [0] * len(self.least)
        for type, wanted, dims in zip(types, self.types, form, strict=True):
            if type.dtype is not wanted.dtype or type.rank != wanted.rank:
                return None
            for n, m, number in zip(type.shape, wanted.shape, dims, strict=True):
                if number < 0:
                    if n != m:
                        return None
                elif sizes[number] != n:
                    if sizes[number] or n < least:
                        return None
                    sizes[number] = n
        return sizes


class Program:
    """A compiled graph with room, and memory with that room for the operands whose sizes change: `rooms`, zero behind
    the sizes of the `last` run. `sizes` is what the program reads of them, `form` has what changes of the operands and
    of the `outputs`: a size, or one that is the sum of others and a number, as `sums` says.
    """

    def __init__(self, graph: Graph, form: Form, sums: Sequence[tuple[Sequence[int], int]]) -> None:
        self.executable = graphc.compiled.compile_graph(graph)
        self.form = form
        self.sums = sums
        self.outputs = [node.type for node in graph.outputs]
        count = len(form) - len(self.outputs)
        self.rooms = [
            np.zeros(node.shape, node.dtype.numpy) if _changes(dims) else None
            for node, dims in zip(graph.inputs[:count], form[:count], strict=True)
        ]
        self._buffers = [None if room is None else Buffer.from_array(room) for room in self.rooms]
        self._results = [
            Buffer.allocate(type.nbytes, type) if _changes(dims) and type.nbytes <= MOST_HELD else None
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
        return [*sizes, *(sum(sizes[i] for i in which) + n for which, n in self.sums)]

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
                room[tuple([slice(n) for n in type.shape])] = _array(buffer, type)
            given.append(held)
        for i, n in enumerate(sizes):
            last[i] = self._read[i] = n
        return given


@dataclass(frozen=True, slots=True)
class Run:
    """A `program` for some `sizes`, and operands of these `types`."""

    program: Program
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
    if not _changes(dims):
        return buffer, type
    cut = type.with_shape(tuple([sizes[i] if i >= 0 else n for n, i in zip(type.shape, dims, strict=True)]))
    made = Buffer.allocate(cut.nbytes, cut)
    if are_rows:
        ctypes.memmove(made.ptr, buffer.ptr, cut.nbytes)
    else:
        values_of(made, cut)[...] = values_of(buffer, type)[tuple([slice(n) for n in cut.shape])]
    return made, cut


def _types(inputs: Sequence[Node], order: Sequence[Node]) -> list[TensorType]:
    """The types that tell the sizes of a program: of its operands, and of what it draws."""
    return [node.type for node in inputs] + [node.type for node in order if node.op in DRAWS]


def _are_rows(dims: Sequence[int]) -> bool:
    """Whether nothing but the first dimension changes: what is not room lies in one piece."""
    return _changes(dims[:1]) and not _changes(dims[1:])


def _changes(dims: Sequence[int]) -> bool:
    return max(dims, default=-1) >= 0


def _array(value: AnyBuffer | np.ndarray, type: TensorType) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else values_of(value, type)


def _form(number: Mapping[Sizes, int], first: Sequence[TensorType], second: Sequence[TensorType]) -> Form:
    shapes = [zip(a.shape, b.shape, strict=True) for a, b in zip(first, second, strict=True)]
    return tuple(tuple(number.get(pair, -1) for pair in pairs) for pairs in shapes)


def _copied(first: Sequence[TensorType], types: Sequence[TensorType]) -> int:
    """How many bytes those have whose sizes change."""
    return sum(type.nbytes for before, type in zip(first, types, strict=True) if before.shape != type.shape)


def shown(graph: Graph) -> Joined | Sized:
    """What may run the function that `graph` shows."""
    node = graph.outputs[0]
    is_joined = len(graph.outputs) == 1 and node.op == "concat" and node.inputs == graph.inputs
    return Joined(graph) if is_joined else Sized(graph)
