"""Radix sort of few long rows. Each pass is three kernels: count the digits of each chunk, turn counts into
places, move each chunk. None of their stores meet.
"""

from __future__ import annotations

from graphc.codegen.kernel import INDEX, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_keys import Digits
from graphc.codegen.sort_rows import Rows
from graphc.codegen.sort_zeros import keep_order
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.types import i64

SHORTEST = 1 << 13  # the least length of a chunk
_PER_CORE = 4


class Chunks(Rows):
    """Radix sort of few long rows, each in chunks that are counted and moved in parallel."""

    def __init__(self, node: Node, target: Target) -> None:
        super().__init__(node, target)
        self.digits = Digits(self.x.dtype, self.n, self.n, self.alone)
        wanted = min(target.cores * _PER_CORE, self.n // SHORTEST)
        self.size = -(-self.n // wanted)
        self.chunks = -(-self.n // self.size)
        packed, length = self.digits.packed, self.rows * self.n
        self.halves = tuple(self.scratch(f"half{i}", packed, length) for i in (0, 1))
        counters = self.rows * self.chunks * self.digits.radix
        self.counts = self.scratch("counts", self.digits.counter, counters)
        if self.counts_zeros:
            self.zeros = self.scratch("zeros", i64, self.rows * self.chunks)

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
        if self.counts_zeros:
            made.append(self._keep_order(name))
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

        def count(value: Value) -> None:
            counter = ((self.grid, digits.radix), (digits.digit(e, value, number), 1))
            self.write(self.counts, e.op("add", self.read(self.counts, *counter), 1), *counter)

        own = (source, self.counts)
        if number or word:
            with e.loop("i", lo, hi, 1) as i:
                item = ((row, self.n), (i.var, 1))
                value = self.read(source, *item)
                if not number:
                    raw = self.read(self.x, *self.first(row, self.n), (digits.index(e, value), self.after))
                    value = self.packed(digits, raw, digits.index(e, value), word)
                    self.write(source, value, *item)
                count(value)
            own = own if number else (self.x, *own)
        else:
            zeros = self.pack_row(digits, self.first(row, self.n), lo, hi, source, ((row, self.n),), count)
            own = (self.x, *own)
            if zeros is not None:
                self.write(self.zeros, zeros, (self.grid, 1))
                own = (*own, self.zeros)
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
        """Move each chunk to the places of its digits; the last time indices (or elements) into the result."""
        self.begin()
        digits = self.digits
        row, lo, hi = self._chunk()

        def move(places: list[Value]) -> None:
            values = [self.read(source, (row, self.n), (i, 1)) for i in places]
            moved = self.ranked(digits, values, number, self.counts, ((self.grid, digits.radix),))
            for value, place in zip(values, moved, strict=True):
                if to is self.out:
                    self.write(to, self.result(digits, value), *self.first(row, self.n), (place, self.after))
                else:
                    self.write(to, value, (row, self.n), (place, 1))

        self.in_pairs(lo, hi, move)
        return self.end(name, self.rows * self.chunks, 3, source, to, self.counts)

    def _keep_order(self, name: str) -> Lowered:
        """Write the zeros of each row again if some chunk has negative ones."""
        self.begin()
        e = self.e
        with e.loop("c", 0, self.chunks, 1, (e.const(0, INDEX),)) as c:
            c.yields = (e.op("add", c.phis[0], self.read(self.zeros, (self.grid, self.chunks), (c.var, 1))),)
        keep_order(self, self.first(self.grid, self.n), c.results[0])
        return self.end(name, self.rows, 0, self.x, self.out, self.zeros)
