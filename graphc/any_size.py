"""Functions of tensors, compiled once for operands of many sizes.

What a function does for operands of two sizes tells what it does for others (`graphc.rooms`): it is compiled with room
for larger ones, to which operands are copied. Each time that there is not enough room, it is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.alike import Pattern
from graphc.extents import Sizes
from graphc.interpreting import LONG, compiling
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.ops.source import DRAWS
from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, values_of
from graphc.options import code_key
from graphc.room_programs import Form, PackedProgram, Program, Run, array_of
from graphc.room_work import least_room, work
from graphc.rooms import sizes_of, with_room
from graphc_runtime.buffer import Buffer

LEAST = 2  # of one element something else may be made
COPIED = 2e-4  # microseconds for a byte that is copied to where there is room, or back
BETWEEN = 16  # for long programs there are rooms between the powers of two from this one on;
WASTE = 4  # how many times its work one may do that has several sizes, for which there is room for all that came
MOST_FAILURES = 2  # to tell what is done for all sizes, and for each program that there is
MOST_FORMS = 4  # ways in which sizes change, after which a function is given up,
MOST_ODD = 16  # and graphs of which sizes or values happen to be the same as others

Key = tuple[object, tuple[int, ...]]  # the code key and the rooms


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
        arrays = [array_of(each, type) for each, type in zip(buffers, types, strict=True)]
        np.concatenate(arrays, axis, values_of(buffer, made))
        return [(buffer, made)]


class Sized:
    """A function that `example` shows, for operands of any sizes on `device`. `is_given_up` if it cannot be.

    `types` are those of the operands of the example, and of what it draws; `form` tells which of their extents change.
    `programs` has those for the code key and the rooms of a call, of which `least` are the smallest. `changes` counts
    what is done to these.
    """

    def __init__(self, example: Graph, device: str = "cpu") -> None:
        self.is_given_up = False
        self.changes = 0
        self._device = device
        self._forms = self._failures = self._odd = 0
        self._begin(example)

    def _begin(self, example: Graph) -> None:
        self._example = example
        self._is_long = len(example.nodes) >= LONG
        self.types = _types(example.inputs, example.nodes)
        self.form: Form | None = None
        self.programs: dict[Key, Program | PackedProgram] = {}
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
            self.form, self.least = form, self._least_rooms(graph, len(found))
        elif self.form != form:
            if self._sizes(types) is None:  # else some sizes happen to be as in the example, or one another's
                self._form_again(graph, form, len(found))
            return
        sizes = [n for _, n in found]
        key = self._key(sizes, graph.nodes)
        spent = self._costs[key] = self._costs.get(key, 0) + cost * runs
        if key in self.programs or 2 * spent < compiling(graph.nodes, self._device):
            return
        if self._is_wide:
            key = self._wider(found, graph)
            if key in self.programs:  # which does too much for these sizes
                return
        before, outputs = ([node.type for node in each.outputs] for each in (self._example, graph))
        on_cpu = self._device == "cpu"
        if on_cpu and COPIED * _copied([*self.types, *before], [*types, *outputs]) > cost:
            self.is_given_up = True
            return
        roomy = with_room(self._example, graph, dict(zip(found, key[1], strict=True)), packed=not on_cpu)
        if roomy is None:  # an extent may happen to be another one, too
            self._failures += 1
            self.is_given_up = self._failures > MOST_FAILURES * (1 + len(self.programs))
            return
        self.patterns[key] = pattern = Pattern(self._example, graph, found)
        whole = *form[: len(graph.inputs)], *_form(pattern.numbers(), before, outputs)
        if on_cpu:
            self.programs[key] = Program(roomy, whole, pattern.sums)
        else:
            self.programs[key] = PackedProgram(roomy, whole, pattern.sums, self._device)
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
            self.form, self.least = form, self._least_rooms(graph, count)
        elif not self.programs and self._odd % MOST_FORMS == 0:
            self._begin(graph)

    def _least_rooms(self, graph: Graph, count: int) -> list[int]:
        return [least_room(self._example, graph, LEAST, self._device)] * count

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


def _types(inputs: Sequence[Node], order: Sequence[Node]) -> list[TensorType]:
    """The types that tell the sizes of a program: of its operands, and of what it draws."""
    return [node.type for node in inputs] + [node.type for node in order if node.op in DRAWS]


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
