"""Radix sort of rows, the last digit first, and of the elements that may belong to a part of the order."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.kernel import INDEX, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_keys import Digits, key_bits, signed_key
from graphc.codegen.sort_rows import Rows, Terms
from graphc.codegen.sort_zeros import keep_order
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.types import i64

_COARSE = 11  # bits of the digit by which elements are chosen


class Radix(Rows):
    """Radix sort of whole rows, one after the other in each piece."""

    def __init__(self, node: Node, target: Target, expected: int | None = None) -> None:
        """`expected` is the number of elements of a row that will be sorted, all if it is not given."""
        super().__init__(node, target)
        self.digits = Digits(self.x.dtype, self.n, expected or self.n, self.alone)
        self.pieces, self.each = self.cut()
        self.work = self.scratch("work", self.digits.packed, self.pieces * 2 * self.n)
        counters = self.pieces * self.digits.passes * self.digits.radix
        self.counts = self.scratch("counts", self.digits.counter, counters)

    def kernel(self, name: str) -> Lowered:
        e, digits = self.e, self.digits
        with e.loop("row", *self.part(self.grid, self.each, self.rows), 1) as row:
            self._sort(row.var, e.const(self.n, INDEX), e.const(0, INDEX), chosen=False)
        steps = digits.words * (digits.passes + 1)
        return self.end(name, self.pieces, 2 * steps, self.x, self.out, self.work, self.counts)

    def _sort(self, row: Value, some: Value, before: Value, chosen: bool) -> None:
        """Sort `some` elements of a row, those in the memory if `chosen`; `before` others come before them."""
        e, digits = self.e, self.digits
        first, half, zeros = self.first(row, self.n), e.const(0, INDEX), None
        for word in range(digits.words):
            last = word == digits.words - 1
            if word or chosen:
                self._pack_again(first, word, half, some)
            else:
                zeros = self._pack(first, half)
            half = self._passes(half, digits.passes - last, some)
        self._finish(self.first(row, self.kept), half, some, before)
        if zeros is not None:
            keep_order(self, first, zeros)

    def _item(self, half: Value, i: Value) -> Terms:
        """Where element `i` of the half of the row's memory that begins at `half` stands."""
        return ((self.grid, 2 * self.n), (half, 1), (i, 1))

    def _counters(self, number: Value | int) -> Terms:
        """Where the counters of a digit stand."""
        digits = self.digits
        number = number if isinstance(number, Value) else self.e.const(number, INDEX)
        return ((self.grid, digits.passes * digits.radix), (number, digits.radix))

    def _pack(self, first: Terms, half: Value) -> Value | None:
        """Pack the first words of all keys with their elements' indices and count all digits; gives the number of
        negative zeros, as `pack_row` does.
        """
        self._clear()
        mine: Terms = ((self.grid, 2 * self.n), (half, 1))
        return self.pack_row(self.digits, first, 0, self.e.const(self.n, INDEX), self.work, mine, self._count)

    def _pack_again(self, first: Terms, word: int, half: Value, some: Value) -> None:
        """Pack word number `word` of the keys of elements in the memory, in their order there, and count likewise."""
        e, digits = self.e, self.digits
        self._clear()
        with e.loop("i", 0, some, 1) as i:
            at = digits.index(e, self.read(self.work, *self._item(half, i.var)))
            value = self.packed(digits, self.read(self.x, *first, (at, self.after)), at, word)
            self.write(self.work, value, *self._item(half, i.var))
            self._count(value)

    def _clear(self) -> None:
        size = self.digits.passes * self.digits.radix
        zero = self.e.const(0, VType(self.digits.counter))
        with self.e.loop("c", 0, size, 1) as c:
            self.write(self.counts, zero, (self.grid, size), (c.var, 1))

    def _count(self, value: Value) -> None:
        """Count all digits of a packed value."""
        for number in range(self.digits.passes):
            counter = (*self._counters(number), (self.digits.digit(self.e, value, number), 1))
            self.write(self.counts, self.e.op("add", self.read(self.counts, *counter), 1), *counter)

    def _starts(self, number: Value | int) -> None:
        """Turn the counts of a digit into the places at which its values begin."""
        with self.e.loop("d", 0, self.digits.radix, 1, (self.e.const(0, VType(self.digits.counter)),)) as d:
            counter = (*self._counters(number), (d.var, 1))
            count = self.read(self.counts, *counter)
            self.write(self.counts, d.phis[0], *counter)
            d.yields = (self.e.op("add", d.phis[0], count),)

    def _ranked(self, values: Sequence[Value], number: Value | int) -> list[Value]:
        """The places (i64) of packed values in the order of a digit."""
        return self.ranked(self.digits, values, number, self.counts, self._counters(number))

    def _passes(self, half: Value, count: int, some: Value) -> Value:
        """Sort by the last `count` digits, from one half of the memory to the other; gives the half where all is now.

        A digit that all elements share moves nothing.
        """
        e, digits = self.e, self.digits
        if not count:
            return half
        none = e.const(0, INDEX)
        with e.loop("q", 0, count, 1, (half,)) as q:
            value = self.read(self.work, *self._item(q.phis[0], none))
            counter = (*self._counters(q.var), (digits.digit(e, value, q.var), 1))
            alike = e.op("eq", self.read(self.counts, *counter), self._as_counter(some))
            # A loop of one round or none: an `If` has no results.
            with e.loop("once", 0, e.op("select", alike, none, 1), 1, (q.phis[0],)) as once:
                source = once.phis[0]
                other = e.op("sub", self.n, source)
                self._starts(q.var)

                def move(places: list[Value]) -> None:
                    values = [self.read(self.work, *self._item(source, i)) for i in places]
                    for value, place in zip(values, self._ranked(values, q.var), strict=True):
                        self.write(self.work, value, *self._item(other, place))

                self.in_pairs(0, some, move)
                once.yields = (other,)
            q.yields = (once.results[0],)
        return q.results[0]

    def _finish(self, to: Terms, half: Value, some: Value, before: Value) -> None:
        """Sort by the first digit, into the result."""
        e, number = self.e, self.digits.passes - 1
        self._starts(number)

        def move(places: list[Value]) -> None:
            values = [self.read(self.work, *self._item(half, i)) for i in places]
            for value, rank in zip(values, self._ranked(values, number), strict=True):
                place, kept = self.kept_place(e.op("add", rank, before))
                self.write(self.out, self.result(self.digits, value), *to, (place, self.after), mask=kept)

        self.in_pairs(0, some, move)

    def _as_counter(self, value: Value) -> Value:
        dtype = self.digits.counter
        return value if dtype is i64 else self.e.op("cast", value, to=dtype)


class Selection(Radix):
    """A part of each row's order: only elements whose coarse digit is among those of the part are sorted.

    Coarse digits are equal parts of the range between the row's first and last key.
    """

    def __init__(self, node: Node, target: Target) -> None:
        axis = node.integer("axis")
        super().__init__(node, target, node.shape[axis] + node.inputs[0].shape[axis] // 8)
        self.bits = min(_COARSE, max(self.n.bit_length() - 2, 1))
        self.coarse = self.scratch("coarse", self.digits.counter, self.pieces << self.bits)

    def kernel(self, name: str) -> Lowered:
        e, digits = self.e, self.digits
        with e.loop("row", *self.part(self.grid, self.each, self.rows), 1) as row:
            first = self.first(row.var, self.n)
            zero = e.const(0, VType(digits.counter))
            with e.loop("c", 0, 1 << self.bits, 1) as c:
                self.write(self.coarse, zero, *self._coarse(c.var))
            lowest, shift = self._range(first)

            def digit(i: Value) -> Value:
                return e.op("lshr", e.op("sub", self._key(first, i), lowest), shift)

            with e.loop("i", 0, self.n, 1) as i:
                counter = self._coarse(digit(i.var))
                self.write(self.coarse, e.op("add", self.read(self.coarse, *counter), 1), *counter)
            low, high, before = self._digits_wanted()
            with e.loop("i", 0, self.n, 1, (e.const(0, INDEX),)) as i:
                own = digit(i.var)
                wanted = e.op("and", e.op("ge", own, low), e.op("le", own, high))
                index = i.var if digits.packed is i64 else e.op("cast", i.var, to=digits.packed)
                self.write(self.work, index, *self._item(e.const(0, INDEX), i.phis[0]))
                i.yields = (e.op("add", i.phis[0], e.op("cast", wanted, to=i64)),)
            self._sort(row.var, i.results[0], before, chosen=True)
        buffers = (self.x, self.out, self.work, self.counts, self.coarse)
        return self.end(name, self.pieces, 8, *buffers)

    def _coarse(self, digit: Value) -> Terms:
        return ((self.grid, 1 << self.bits), (digit, 1))

    def _key(self, first: Terms, i: Value) -> Value:
        """The signed key (i64) of element `i`."""
        key = signed_key(self.e, self.read(self.x, *first, (i, self.after)), self.descending)
        return key if key.type == INDEX else self.e.op("cast", key, to=i64)

    def _range(self, first: Terms) -> tuple[Value, Value]:
        """The lowest key of a row, and by how many bits the distance of a key from it is shifted to be a digit."""
        e = self.e
        start = self._key(first, e.const(0, INDEX))
        with e.loop("i", 1, self.n, 1, (start, start)) as i:
            key = self._key(first, i.var)
            i.yields = (e.op("minimum", i.phis[0], key), e.op("maximum", i.phis[1], key))
        lowest, highest = i.results
        rest = e.op("lshr", e.op("sub", highest, lowest), self.bits)  # unsigned: it may wrap around
        with e.loop("b", 0, max(key_bits(self.x.dtype) - self.bits, 0), 1, (e.const(0, INDEX),)) as b:
            more = e.op("ne", e.op("lshr", rest, b.var), 0)
            b.yields = (e.op("add", b.phis[0], e.op("cast", more, to=i64)),)
        return lowest, b.results[0]

    def _digits_wanted(self) -> tuple[Value, Value, Value]:
        """The first digits of the part's first and last element, and how many elements have smaller ones (i64)."""
        e = self.e
        none = e.const(0, INDEX)
        with e.loop("d", 0, 1 << self.bits, 1, (none, none, none, none)) as d:
            total, low, high, before = d.phis
            count = self.read(self.coarse, *self._coarse(d.var))
            following = e.op("add", total, count if count.type == INDEX else e.op("cast", count, to=i64))

            def holds(rank: int) -> Value:
                return e.op("and", e.op("le", total, rank), e.op("gt", following, rank))

            begins, ends = holds(self.start), holds(self.start + self.kept - 1)
            d.yields = (
                following,
                e.op("select", begins, d.var, low),
                e.op("select", ends, d.var, high),
                e.op("select", begins, total, before),
            )
        _, low, high, before = d.results
        return low, high, before
