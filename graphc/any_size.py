"""Functions of tensors, compiled once for operands of many sizes.

What a function does for operands of two sizes tells what it does for others (`graphc.rooms`): it is compiled with room
for larger ones, to which operands are copied. Each time that there is not enough room, it is looked at again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc
from graphc.interpreting import COMPILED_STEP, PROGRAM
from graphc.ir.contraction import parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, from_host, values_of
from graphc.options import code_key
from graphc.rooms import Sizes, sizes_of, with_room
from graphc_runtime.buffer import Buffer

LEAST = 2  # of one element something else may be made
MOST_ROOM = 4096  # at first, and no more than makes
WORK = 1 << 15  # elements and products: to compute them in vain takes no time
COPIED = 2e-4  # microseconds for a byte that is copied to where there is room, or back
MOST_FORMS = 4  # ways in which sizes change, after which a function is given up

Form = tuple[tuple[int, ...], ...]  # for each dimension of each operand the number of its size, or -1


class Joined:
    """Operands one after the other along `axis`, as in `example`."""

    is_given_up = False
    changes = 0

    def __init__(self, graph: Graph) -> None:
        (node,) = graph.outputs
        self.axis = node.integer("axis")
        self.example = node.type

    def learn(self, graph: Graph, cost: float) -> None:
        """There is nothing else to know."""

    def run(self, types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]) -> Any:
        """The result and its type; None where it is not known what the function gives."""
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
        return buffer, made


class Sized:
    """A function that `example` shows, for operands of any sizes. `is_given_up` if it cannot be.

    `types` are those of the operands of the example, `form` tells which of their extents change; `programs` has those
    for the code key and the rooms of a call, of which `least` are the smallest. `changes` counts what is done to these.
    """

    def __init__(self, example: Graph) -> None:
        self.is_given_up = False
        self.changes = 0
        self._forms = 0
        self._begin(example)

    def _begin(self, example: Graph) -> None:
        self._example = example
        self.types = [node.type for node in example.inputs]
        self.form: Form | None = None
        self.programs: dict[tuple[object, tuple[int, ...]], Program] = {}
        self._costs: dict[tuple[object, tuple[int, ...]], float] = {}
        self.least: list[int] = []
        self.changes += 1

    def learn(self, graph: Graph, cost: float) -> None:
        """The function did what `graph` shows, which took some microseconds."""
        types = [node.type for node in graph.inputs]
        if any(a.dtype is not b.dtype or a.rank != b.rank for a, b in zip(self.types, types, strict=True)):
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
            self.form, self.least = form, [_least_room(self._example, graph)] * len(found)
        elif self.form != form:
            self._begin_again(graph)
            return
        sizes = [n for _, n in found]
        key = self._key(sizes)
        spent = self._costs[key] = self._costs.get(key, 0) + cost
        if key in self.programs or 2 * spent < PROGRAM + COMPILED_STEP * len(graph.nodes):
            return
        outputs = [node.type for node in graph.outputs]
        whole = (*form, *_form(number, [node.type for node in self._example.outputs], outputs))
        roomy = with_room(self._example, graph, dict(zip(found, key[1], strict=True)))
        if roomy is None or COPIED * _copied([*types, *outputs], whole) > cost:
            self.is_given_up = True
            return
        self.programs[key] = Program(roomy, whole)
        self.changes += 1

    def _begin_again(self, example: Graph) -> None:
        self._forms += 1
        self.is_given_up = self._forms > MOST_FORMS
        self._begin(example)

    def _key(self, sizes: Sequence[int]) -> tuple[object, tuple[int, ...]]:
        pairs = zip(sizes, self.least, strict=True)
        return code_key(), tuple([least if n <= least else 1 << (n - 1).bit_length() for n, least in pairs])

    def run(self, types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]) -> Any:
        """The result and its type; None where it is not known what the function gives, or not compiled."""
        form = self.form
        if not self.programs or form is None:
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
                    if sizes[number] or n < LEAST:
                        return None
                    sizes[number] = n
        program = self.programs.get(self._key(sizes))
        return None if program is None else program.run(sizes, types, buffers)


class Program:
    """A compiled graph with room, and memory with that room for the operands whose sizes change: `rooms`, zero behind
    the sizes of the `last` run. `sizes` is what the program reads of them, `form` has what changes of the operands and
    of the `output`.
    """

    def __init__(self, graph: Graph, form: Form) -> None:
        self.executable = graphc.compiled.compile_graph(graph)
        self.form = form
        count = len(form) - 1
        self.rooms = [
            np.zeros(node.shape, node.dtype.numpy) if max(dims, default=-1) >= 0 else None
            for node, dims in zip(graph.inputs[:count], form[:count], strict=True)
        ]
        self._buffers = [None if room is None else Buffer.from_array(room) for room in self.rooms]
        self.sizes = np.zeros(len(graph.inputs) - count, np.int32)
        self._size_buffers = [Buffer.from_array(self.sizes[i : i + 1]) for i in range(len(self.sizes))]
        self.last = np.zeros(len(self.sizes), np.int64)
        self.output = graph.outputs[0].type

    def run(self, sizes: Sequence[int], types: Sequence[TensorType], buffers: Sequence[AnyBuffer | np.ndarray]) -> Any:
        given: list[Any] = []
        shrinks = any(n < last for n, last in zip(sizes, self.last.tolist(), strict=True))
        for room, held, type, buffer in zip(self.rooms, self._buffers, types, buffers, strict=True):
            if room is None:
                given.append(
                    from_host(np.ascontiguousarray(buffer), "cpu") if isinstance(buffer, np.ndarray) else buffer
                )
                continue
            if shrinks:
                room.fill(0)
            room[tuple([slice(n) for n in type.shape])] = _array(buffer, type)
            given.append(held)
        self.sizes[:] = self.last[:] = sizes
        output, dims = self.output, self.form[-1]
        made = Buffer.allocate(output.nbytes, output)
        self.executable.launch([*given, *self._size_buffers], [made])
        if max(dims, default=-1) < 0:
            return made, output
        type = output.with_shape(tuple([sizes[i] if i >= 0 else n for n, i in zip(output.shape, dims, strict=True)]))
        cut = Buffer.allocate(type.nbytes, type)
        values_of(cut, type)[...] = values_of(made, output)[tuple([slice(n) for n in type.shape])]
        return cut, type


def _array(value: AnyBuffer | np.ndarray, type: TensorType) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else values_of(value, type)


def _form(number: Mapping[Sizes, int], first: Sequence[TensorType], second: Sequence[TensorType]) -> Form:
    shapes = [zip(a.shape, b.shape, strict=True) for a, b in zip(first, second, strict=True)]
    return tuple(tuple(number.get(pair, -1) for pair in pairs) for pairs in shapes)


def _copied(types: Sequence[TensorType], form: Form) -> int:
    """How many bytes those have whose sizes change."""
    return sum(type.nbytes for type, dims in zip(types, form, strict=True) if max(dims, default=-1) >= 0)


def _least_room(first: Graph, second: Graph) -> int:
    """The largest power of two with which all sizes still make little work."""
    room = MOST_ROOM
    while room > LEAST and sum(_work(*each, room) for each in zip(first.nodes, second.nodes, strict=False)) > WORK:
        room //= 2
    return room


def _work(node: Node, other: Node, room: int) -> int:
    """How many elements an operator makes, or products, where what changes is `room`."""
    if node.op == "contract" and other.op == "contract":
        pairs = zip(node.inputs, other.inputs, strict=True)
        extents = parse_spec(node.text("spec")).extents(*(_roomy(x.shape, y.shape, room) for x, y in pairs))
        return math.prod(extents.values())
    return math.prod(_roomy(node.shape, other.shape, room))


def _roomy(shape: tuple[int, ...], other: tuple[int, ...], room: int) -> tuple[int, ...]:
    return tuple([m if m == n else room for m, n in zip(shape, other, strict=False)])


def shown(graph: Graph) -> Joined | Sized:
    """What may run the function that `graph` shows."""
    (node,) = graph.outputs
    return Joined(graph) if node.op == "concat" and node.inputs == graph.inputs else Sized(graph)
