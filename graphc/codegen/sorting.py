"""Kernels that give the order of the elements of each row, equal ones in their order.

Short rows: the place of an element is the number of elements before it, counted lane by lane. Long rows: radix sort,
the last digit first. A single long row is cut into chunks; each pass is then three kernels (count the digits of each
chunk, turn counts into places, move each chunk), and none of its stores meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lower import GRID_PER_CORE, Lowered
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sort_keys import Digits, signed_key
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, TensorType, i32, i64

_COUNTED = 20  # vectors of i32: rows of up to so many are sorted by counting
LONG = 1 << 16  # rows from this length on are cut into chunks when there are fewer rows than cores
_CHUNK = 1 << 13  # the least length of a chunk
_CHUNKS_PER_CORE = 4
_LARGE = 1 << 14  # elements of a row from which on few rows are sorted at once, for the sake of memory

Terms = tuple[tuple[Value, int], ...]


def lower_sort(node: Node, name: str, target: Target) -> tuple[Lowered, ...]:
    """The kernels of one `argsort`, in the order in which they run."""
    n = node.shape[node.integer("axis")]
    rows = node.type.size // n
    if n <= _COUNTED * target.lanes(4):
        return (_Counting(node, target).kernel(name),)
    if rows < target.cores and n >= LONG:
        return _Chunks(node, target).kernels(name)
    return (_Radix(node, target).kernel(name),)


class _Rows:
    """The rows of an `argsort`, and what its kernels have in common."""

    def __init__(self, node: Node, target: Target) -> None:
        self.node, self.target = node, target
        axis = node.integer("axis")
        self.n, self.after = node.shape[axis], math.prod(node.shape[axis + 1 :])
        self.rows = node.type.size // self.n
        self.descending = bool(node.attr("descending"))
        source = base_of(node.inputs[0])
        self.x = Param("x", source.dtype, source.type.size, "in")
        self.out = Param("out", i64, node.type.size, "out")
        self.owners: dict[Param, Node | Scratch] = {self.x: source, self.out: node}
        self.begin()

    def begin(self) -> None:
        """Begin a kernel."""
        self.e = ScopedEmitter()
        self.e.pinned = True  # what is read may just have been written
        self.grid = self.e.bind(Value(INDEX, "g"))

    def end(self, name: str, count: int, work: int, *params: Param) -> Lowered:
        """The kernel that was written, over a parallel range of `count`, with `work` steps for each element."""
        size = self.node.type.size
        kernel = Kernel(name, params, count, self.grid, tuple(self.e.body), size * work, size * work * 8)
        return Lowered(kernel, tuple(self.owners[p] for p in params))

    def scratch(self, name: str, dtype: DType, size: int) -> Param:
        """A buffer to work in."""
        param = Param(name, dtype, size, "inout")
        self.owners[param] = Scratch(self.node, name, TensorType(dtype, (size,), self.node.type.device))
        return param

    def read(self, buffer: Param, *terms: tuple[Value, int], const: int = 0) -> Value:
        return self.e.load(VType(buffer.dtype), buffer, Affine(const, terms), 0, None, None)

    def write(self, buffer: Param, value: Value, *terms: tuple[Value, int], const: int = 0) -> None:
        self.e.store(buffer, Affine(const, terms), value, 0, None, None)
        self.e.epoch += 1

    def part(self, number: Value, size: int, total: int) -> tuple[Value, Value]:
        """The bounds of part `number` of `total` things in parts of `size`."""
        lo = self.e.op("mul", number, size)
        hi = self.e.op("add", lo, size)
        return lo, self.e.op("minimum", hi, total) if total % size else hi

    def first(self, row: Value) -> Terms:
        """Where the first element of a row stands."""
        if self.after == 1:
            return ((row, self.n),)
        return (
            (self.e.op("floordiv", row, self.after), self.n * self.after),
            (self.e.op("mod", row, self.after), 1),
        )

    def pieces(self) -> tuple[int, int]:
        """Into how many pieces the rows are cut, and how many rows each has."""
        wanted = self.target.cores * (GRID_PER_CORE if self.n < _LARGE else 2)
        each = -(-self.rows // wanted)
        return -(-self.rows // each), each


class _Counting(_Rows):
    """Sorting by counting: the place of an element is the number of those that stand before it in the end."""

    def kernel(self, name: str) -> Lowered:
        e, n = self.e, self.n
        pieces, each = self.pieces()
        dtype = i64 if self.x.dtype.bits == 64 else i32
        lanes = min(self.target.lanes(dtype.itemsize), 1 << (n - 1).bit_length())
        length = -(-n // lanes) * lanes
        keys = self.scratch("keys", dtype, pieces * length)
        mine = (self.grid, length)
        with e.loop("row", *self.part(self.grid, each, self.rows), 1) as row:
            first = self.first(row.var)
            self._vectors(lanes, lambda i, mask: self._make_keys(keys, lanes, first, i, mask, mine))
            self._vectors(lanes, lambda i, mask: self._place(keys, lanes, first, i, mask, mine))
        return self.end(name, pieces, n // lanes + 1, self.x, self.out, keys)

    def _vectors(self, lanes: int, body: Callable[[Value, Value | None], None]) -> None:
        """Run `body` for the first index of each vector of a row; the last one may have a mask."""
        e, n = self.e, self.n
        whole = n // lanes * lanes
        if whole:
            with e.loop("i", 0, whole, lanes) as i:
                body(i.var, None)
        if whole < n:
            mask = e.op("lt", e.lanes(i64, lanes), n - whole) if lanes > 1 else None
            body(e.const(whole, INDEX), mask)

    def _make_keys(
        self, keys: Param, lanes: int, first: Terms, i: Value, mask: Value | None, mine: tuple[Value, int]
    ) -> None:
        e = self.e
        stride = self.after if lanes > 1 else 0
        raw = e.load(VType(self.x.dtype, lanes), self.x, Affine(0, (*first, (i, self.after))), stride, None, mask)
        key = signed_key(e, raw, self.descending)
        e.store(keys, Affine(0, (mine, (i, 1))), key, int(lanes > 1), None, None)
        e.epoch += 1

    def _place(
        self, keys: Param, lanes: int, first: Terms, i: Value, mask: Value | None, mine: tuple[Value, int]
    ) -> None:
        """Count what stands before each element of the vector at `i`, and store the indices there."""
        e, n = self.e, self.n
        own = e.load(VType(keys.dtype, lanes), keys, Affine(0, (mine, (i, 1))), int(lanes > 1), None, None)
        numbers = e.lanes(keys.dtype, lanes)
        end = e.op("minimum", e.op("add", i, lanes), n)

        def counted(
            lo: int | Value, hi: int | Value, before: Value, is_before: Callable[[Value, Value], Value]
        ) -> Value:
            with e.loop("j", lo, hi, 1, (before,)) as j:
                key = e.splat(self.read(keys, mine, (j.var, 1)), lanes)
                j.yields = (e.op("add", j.phis[0], e.op("cast", is_before(key, j.var), to=keys.dtype)),)
            return j.results[0]

        def inside(key: Value, j: Value) -> Value:
            place = e.op("cast", e.op("sub", j, i), to=keys.dtype)
            earlier = e.op("gt", numbers, place)
            return e.op("or", e.op("lt", key, own), e.op("and", e.op("eq", key, own), earlier))

        count = counted(0, i, e.const(0, own.type), lambda key, _: e.op("le", key, own))
        count = counted(i, end, count, inside)
        count = counted(end, n, count, lambda key, _: e.op("lt", key, own))
        index = e.op("add", e.lanes(i64, lanes), i)
        to = e.op("mul", count if keys.dtype is i64 else e.op("cast", count, to=i64), self.after)
        e.store(self.out, Affine(0, first), index, 0, to, mask)
        e.epoch += 1


class _Radix(_Rows):
    """Radix sort of whole rows, one after the other in each piece."""

    def __init__(self, node: Node, target: Target) -> None:
        super().__init__(node, target)
        self.digits = Digits(self.x.dtype, self.n)
        self.count, self.each = self.pieces()
        self.work = self.scratch("work", self.digits.packed, self.count * 2 * self.n)
        counters = self.count * self.digits.passes * self.digits.radix
        self.counts = self.scratch("counts", self.digits.counter, counters)

    def kernel(self, name: str) -> Lowered:
        e, digits = self.e, self.digits
        with e.loop("row", *self.part(self.grid, self.each, self.rows), 1) as row:
            first = self.first(row.var)
            half = e.const(0, INDEX)
            for word in range(digits.words):
                last = word == digits.words - 1
                self._pack(first, word, half)
                half = self._passes(half, digits.passes - last)
            self._finish(first, half)
        steps = digits.words * (digits.passes + 1)
        return self.end(name, self.count, 2 * steps, self.x, self.out, self.work, self.counts)

    def _item(self, half: Value, i: Value) -> Terms:
        """Where element `i` of the half of the row's memory that begins at `half` stands."""
        return ((self.grid, 2 * self.n), (half, 1), (i, 1))

    def _counter(self, digit: Value, number: Value | int) -> tuple[Terms, int]:
        radix = self.digits.radix
        terms: Terms = ((self.grid, self.digits.passes * radix), (digit, 1))
        if isinstance(number, Value):
            return (*terms, (number, radix)), 0
        return terms, number * radix

    def _pack(self, first: Terms, word: int, half: Value) -> None:
        """Pack word number `word` of each key with the element's index, in the order so far, and count all digits."""
        e, digits = self.e, self.digits
        size = digits.passes * digits.radix
        zero = e.const(0, VType(digits.counter))
        with e.loop("c", 0, size, 1) as c:
            self.write(self.counts, zero, (self.grid, size), (c.var, 1))
        with e.loop("i", 0, self.n, 1) as i:
            at = digits.index(e, self.read(self.work, *self._item(half, i.var))) if word else i.var
            key = signed_key(e, self.read(self.x, *first, (at, self.after)), self.descending)
            value = digits.pack(e, key, at, word)
            self.write(self.work, value, *self._item(half, i.var))
            for number in range(digits.passes):
                terms, const = self._counter(digits.digit(e, value, number), number)
                self.write(
                    self.counts, e.op("add", self.read(self.counts, *terms, const=const), 1), *terms, const=const
                )

    def _starts(self, number: Value | int) -> None:
        """Turn the counts of a digit into the places at which its values begin."""
        with self.e.loop("d", 0, self.digits.radix, 1, (self.e.const(0, VType(self.digits.counter)),)) as d:
            terms, const = self._counter(d.var, number)
            count = self.read(self.counts, *terms, const=const)
            self.write(self.counts, d.phis[0], *terms, const=const)
            d.yields = (self.e.op("add", d.phis[0], count),)

    def _next_place(self, value: Value, number: Value | int) -> Value:
        """The place (i64) for a packed value in the order of a digit; the next of its kind goes after it."""
        terms, const = self._counter(self.digits.digit(self.e, value, number), number)
        place = self.read(self.counts, *terms, const=const)
        self.write(self.counts, self.e.op("add", place, 1), *terms, const=const)
        return place if place.type == INDEX else self.e.op("cast", place, to=i64)

    def _passes(self, half: Value, count: int) -> Value:
        """Sort by the last `count` digits, from one half of the memory to the other; gives the half where all is now.

        A digit that all elements share moves nothing.
        """
        e, digits = self.e, self.digits
        if not count:
            return half
        none = e.const(0, INDEX)
        with e.loop("q", 0, count, 1, (half,)) as q:
            some = self.read(self.work, *self._item(q.phis[0], none))
            terms, const = self._counter(digits.digit(e, some, q.var), q.var)
            alike = e.op("eq", self.read(self.counts, *terms, const=const), self.n)
            # A loop of one round or none: an `If` has no results.
            with e.loop("once", 0, e.op("select", alike, none, 1), 1, (q.phis[0],)) as once:
                source = once.phis[0]
                other = e.op("sub", self.n, source)
                self._starts(q.var)
                with e.loop("i", 0, self.n, 1) as i:
                    value = self.read(self.work, *self._item(source, i.var))
                    place = self._next_place(value, q.var)
                    self.write(self.work, value, *self._item(other, place))
                once.yields = (other,)
            q.yields = (once.results[0],)
        return q.results[0]

    def _finish(self, first: Terms, half: Value) -> None:
        """Sort by the first digit, into the result."""
        e, number = self.e, self.digits.passes - 1
        self._starts(number)
        with e.loop("i", 0, self.n, 1) as i:
            value = self.read(self.work, *self._item(half, i.var))
            place = self._next_place(value, number)
            self.write(self.out, self.digits.index(e, value), *first, (place, self.after))


class _Chunks(_Rows):
    """Radix sort of few long rows, each in chunks that are counted and moved in parallel."""

    def __init__(self, node: Node, target: Target) -> None:
        super().__init__(node, target)
        self.digits = Digits(self.x.dtype, self.n)
        wanted = min(target.cores * _CHUNKS_PER_CORE, self.n // _CHUNK)
        self.size = -(-self.n // wanted)
        self.chunks = -(-self.n // self.size)
        packed, length = self.digits.packed, self.rows * self.n
        self.halves = tuple(self.scratch(f"half{i}", packed, length) for i in (0, 1))
        counters = self.rows * self.chunks * self.digits.radix
        self.counts = self.scratch("counts", self.digits.counter, counters)

    def kernels(self, name: str) -> tuple[Lowered, ...]:
        digits = self.digits
        made: list[Lowered] = []
        source, other = self.halves
        for word in range(digits.words):
            for number in range(digits.passes):
                last = (word, number) == (digits.words - 1, digits.passes - 1)
                made.append(self._count(name, source, number, word))
                made.append(self._starts(name))
                made.append(self._move(name, source, self.out if last else other, number))
                source, other = other, source
        return tuple(made)

    def _chunk(self) -> tuple[Value, Value, Value]:
        """The row of this place of the parallel range, and the bounds of its chunk."""
        e = self.e
        row, chunk = self.grid, self.grid
        if self.rows > 1:
            row, chunk = e.op("floordiv", self.grid, self.chunks), e.op("mod", self.grid, self.chunks)
        else:
            row = e.const(0, INDEX)
        return row, *self.part(chunk, self.size, self.n)

    def _count(self, name: str, source: Param, number: int, word: int) -> Lowered:
        """Count the digits of each chunk; before the first digit of a word its keys are packed."""
        self.begin()
        e, digits = self.e, self.digits
        row, lo, hi = self._chunk()
        zero = e.const(0, VType(digits.counter))
        with e.loop("c", 0, digits.radix, 1) as c:
            self.write(self.counts, zero, (self.grid, digits.radix), (c.var, 1))
        with e.loop("i", lo, hi, 1) as i:
            item = ((row, self.n), (i.var, 1))
            if number:
                value = self.read(source, *item)
            else:
                at = digits.index(e, self.read(source, *item)) if word else i.var
                raw = self.read(self.x, *self.first(row), (at, self.after))
                value = digits.pack(e, signed_key(e, raw, self.descending), at, word)
                self.write(source, value, *item)
            counter = ((self.grid, digits.radix), (digits.digit(e, value, number), 1))
            self.write(self.counts, e.op("add", self.read(self.counts, *counter), 1), *counter)
        own = (source, self.counts) if number else (self.x, source, self.counts)
        return self.end(name, self.rows * self.chunks, 2, *own)

    def _starts(self, name: str) -> Lowered:
        """Turn counts into places: those of a digit in all chunks, then those of the next digit."""
        self.begin()
        e, digits = self.e, self.digits
        zero = e.const(0, VType(digits.counter))
        with e.loop("d", 0, digits.radix, 1, (zero,)) as d:
            with e.loop("c", 0, self.chunks, 1, (d.phis[0],)) as c:
                counter = ((self.grid, self.chunks * digits.radix), (c.var, digits.radix), (d.var, 1))
                count = self.read(self.counts, *counter)
                self.write(self.counts, c.phis[0], *counter)
                c.yields = (e.op("add", c.phis[0], count),)
            d.yields = c.results
        return self.end(name, self.rows, 0, self.counts)

    def _move(self, name: str, source: Param, to: Param, number: int) -> Lowered:
        """Move each chunk to the places of its digits; the last time only indices, into the result."""
        self.begin()
        e, digits = self.e, self.digits
        row, lo, hi = self._chunk()
        with e.loop("i", lo, hi, 1) as i:
            value = self.read(source, (row, self.n), (i.var, 1))
            counter = ((self.grid, digits.radix), (digits.digit(e, value, number), 1))
            count = self.read(self.counts, *counter)
            self.write(self.counts, e.op("add", count, 1), *counter)
            place = count if count.type == INDEX else e.op("cast", count, to=i64)
            if to is self.out:
                self.write(to, digits.index(e, value), *self.first(row), (place, self.after))
            else:
                self.write(to, value, (row, self.n), (place, 1))
        return self.end(name, self.rows * self.chunks, 3, source, to, self.counts)
