"""Kernels of a GPU that write at indices read from memory (`index_add`, `scatter_set`, ...).

What is written to one place is written in the order of the elements, as everywhere. Where there are many lines of
elements that never meet, a thread goes along each. Else the elements of a line are matched first: for each the number
of those that go to its place (0 but for the first of them), and which comes next. The first one then adds up all.
"""

from __future__ import annotations

import math

from graphc.codegen.accumulate import combined, scatter_place
from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import TensorType, i32, i64

LINES = 1 << 13  # lines from which on a thread goes along each
SHORT = 32  # elements of lines that a thread goes along anyway
CHUNK = 1 << 13  # elements of a line that are matched with each other
THREADS = 256  # that match one element with the others


def lower_gpu_accumulate(node: Node, name: str) -> tuple[Lowered, ...]:
    """The kernels that write the last operand of `node` into the result, which already holds a copy of the first."""
    writing = _Writing(node, name)
    if writing.middle <= SHORT or writing.before * writing.after >= LINES:
        return (writing.by_lines(),)
    chunks = range(0, writing.middle, CHUNK)
    made: list[Lowered] = []
    for first in chunks:
        count = min(CHUNK, writing.middle - first)
        made += [writing.match(first, count), writing.write(first, count)]
    return tuple(made)


class _Writing:
    """One such node: elements (before, k, after) of the source, and where they go."""

    def __init__(self, node: Node, name: str) -> None:
        _, index, source = node.inputs
        self.node, self.name = node, name
        self.index, self.source = base_of(index), base_of(source)
        self.shaped = source
        self.axis = node.integer("axis")
        self.by_row = node.op.startswith("index")
        self.sets = node.op.endswith("_set")
        self.before = math.prod(source.shape[: self.axis])
        if self.by_row:
            self.middle, self.after = index.type.size, math.prod(node.shape[self.axis + 1 :])
        else:
            self.middle, self.after = source.shape[self.axis], math.prod(source.shape[self.axis + 1 :])
        self.lines = 1 if self.by_row else self.before * self.after  # of indices
        size = self.lines * min(self.middle, CHUNK)
        device = node.type.device
        self.counts = Scratch(node, "counts", TensorType(i32, (size,), device))
        self.following = Scratch(node, "following", TensorType(i32, (size,), device))
        self._begin()

    def _begin(self) -> None:
        self.e = ScopedEmitter()
        self.e.pinned = True  # what is read may just have been written
        self.grid = self.e.bind(Value(INDEX, "g"))
        self.params: dict[Node | Scratch, Param] = {}

    def _param(self, value: Node | Scratch, mode: str) -> Param:
        if value not in self.params:
            number = len(self.params)
            self.params[value] = Param(f"p{number}", value.type.dtype, value.type.size, mode)
        return self.params[value]

    def _end(self, count: int, work: int, threads: int = 1) -> Lowered:
        moved = sum(value.type.nbytes for value in self.params)
        body, params = tuple(self.e.body), tuple(self.params.values())
        kernel = Kernel(self.name, params, count, self.grid, body, work, moved, threads=threads)
        return Lowered(kernel, tuple(self.params))

    def _split(self, value: Value, extent: int) -> tuple[Value, Value]:
        """Quotient and remainder of `value` by `extent`."""
        if extent == 1:
            return value, self.e.const(0, INDEX)
        return self.e.op("floordiv", value, extent), self.e.op("mod", value, extent)

    def _place(self, before: Value, k: tuple[tuple[Value, int], ...], after: Value, first: int = 0) -> Affine:
        """Where element (before, first + k, after) of the source lies."""
        steps = tuple((value, coefficient * self.after) for value, coefficient in k)
        return Affine(first * self.after, ((before, self.middle * self.after), *steps, (after, 1)))

    def _row(self, raw: Value) -> Value:
        """The index `raw` (or each lane), clamped to the axis."""
        e = self.e
        wide = expand_cast(e, raw, i64)
        low = e.op("select", e.op("lt", wide, 0), 0, wide)
        last = max(self.node.shape[self.axis] - 1, 0)
        return e.op("select", e.op("gt", low, last), last, low)

    def _row_at(self, before: Value, k: Value, after: Value, first: int = 0) -> Value:
        """The row that element (before, first + k, after) goes to."""
        where = Affine(first, ((k, 1),)) if self.by_row else self._place(before, ((k, 1),), after, first)
        return self._row(self.e.load(VType(self.index.dtype), self._param(self.index, "in"), where, 0, None, None))

    def _target(self, before: Value, row: Value, after: Value) -> Affine:
        if self.by_row:
            return Affine(0, ((before, self.node.shape[self.axis] * self.after), (row, self.after), (after, 1)))
        position = after if self.after > 1 else 0
        return scatter_place(self.e, self.node, self.shaped, self.axis, before, row, position, self.after)

    def _value(self, place: Affine) -> Value:
        return self.e.load(VType(self.source.dtype), self._param(self.source, "in"), place, 0, None, None)

    def by_lines(self) -> Lowered:
        """A thread for each line: it writes its elements one after the other."""
        e = self.e
        before, after = self._split(self.grid, self.after)
        with e.loop("k", 0, self.middle, 1) as k:
            row = self._row_at(before, k.var, after)
            total = self._value(self._place(before, ((k.var, 1),), after))
            out, to = self._param(self.node, "inout"), self._target(before, row, after)
            if not self.sets:
                total = combined(e, self.node, e.load(VType(self.node.dtype), out, to, 0, None, None), total)
            e.store(out, to, total, 0, None, None)
        return self._end(self.before * self.after, self.shaped.type.size)

    def match(self, first: int, count: int) -> Lowered:
        """A block for each of `count` elements from `first` on of each line: how many go where it goes, from it on, or
        0 if it is not the first of them, and the next one. Of what is set only the last one counts.
        """
        self._begin()
        e = self.e
        threads = min(THREADS, max(32, 1 << (count - 1).bit_length()))
        line, k = self._split(self.grid, count)
        before, after = self._split(line, self.after) if not self.by_row else (e.const(0, INDEX),) * 2
        mine = self._row_at(before, k, after, first)
        number = e.op("cast", k, to=i32)
        numbers = VType(i32, threads)
        none, end = e.const(0, numbers), e.const(count, numbers)
        with e.loop("j", 0, count, threads, (end, none, none)) as j:
            others = e.op("add", e.lanes(i32, threads), e.op("cast", j.var, to=i32))
            mask = e.op("lt", others, count) if count % threads else None
            if self.by_row:
                where = Affine(first, ((j.var, 1),))
            else:
                where = self._place(before, ((j.var, 1),), after, first)
            stride = 1 if self.by_row else self.after
            vector = VType(self.index.dtype, threads)
            raw = e.load(vector, self._param(self.index, "in"), where, stride, None, mask)
            same = e.op("eq", self._row(raw), mine)
            if mask is not None:
                same = e.op("and", same, mask)
            later = e.op("and", same, e.op("gt", others, number))
            earlier = e.op("and", same, e.op("lt", others, number))
            following, more, fewer = j.phis
            j.yields = (
                e.op("minimum", following, e.op("select", later, others, end)),
                e.op("add", more, e.op("cast", later, to=i32)),
                e.op("add", fewer, e.op("cast", earlier, to=i32)),
            )
        following, more, fewer = j.results
        later = e.op("reduce_add", more)
        here = Affine(0, ((self.grid, 1),))
        if self.sets:
            counted = e.op("select", e.op("eq", later, 0), 1, e.const(0, VType(i32)))
        else:
            is_first = e.op("eq", e.op("reduce_add", fewer), 0)
            counted = e.op("select", is_first, e.op("add", later, 1), 0)
            e.store(self._param(self.following, "out"), here, e.op("reduce_minimum", following), 0, None, None)
        e.store(self._param(self.counts, "out"), here, counted, 0, None, None)
        return self._end(self.lines * count, self.lines * count * count, threads)

    def write(self, first: int, count: int) -> Lowered:
        """A thread for each element: if it is the first one for its place, it writes all that go there, in order."""
        self._begin()
        e = self.e
        rest, after = self._split(self.grid, self.after)
        before, k = self._split(rest, count)
        line: tuple[tuple[Value, int], ...] = ()
        if not self.by_row:
            line = ((before, self.after * count), (after, count))
        number = self._number(self.counts, line, k)
        wanted = e.op("gt", number, 0)
        to = self._target(before, self._row_at(before, k, after, first), after)
        out = self._param(self.node, "inout")
        if self.sets:
            total = self._value(self._place(before, ((k, 1),), after, first))
        else:
            old = e.load(VType(self.node.dtype), out, to, 0, None, wanted)
            with e.loop("i", 0, number, 1, (k, old)) as i:
                at, so_far = i.phis
                value = self._value(self._place(before, ((at, 1),), after, first))
                i.yields = self._number(self.following, line, at), combined(e, self.node, so_far, value)
            total = i.results[1]
        e.store(out, to, total, 0, None, wanted)
        size = self.before * count * self.after
        return self._end(size, size)

    def _number(self, of: Scratch, line: tuple[tuple[Value, int], ...], k: Value) -> Value:
        """What `match` found for element `k` of a line, as an index."""
        raw = self.e.load(VType(i32), self._param(of, "in"), Affine(0, (*line, (k, 1))), 0, None, None)
        return self.e.op("cast", raw, to=i64)
