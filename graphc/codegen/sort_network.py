"""Sorting many rows at once, one in each lane, by a network of comparisons.

Batcher's merge exchange (D. Knuth, The Art of Computer Programming, volume 3, section 5.2.2, algorithm M): which
places are compared depends on the length alone, so that all rows take the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.codegen.dealing import transposed
from graphc.codegen.kernel import INDEX, Affine, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_keys import Digits, distinct_key, element, is_negative_zero
from graphc.codegen.sort_rows import Rows, Terms
from graphc.codegen.sort_zeros import rewrite_zeros
from graphc.codegen.target import Target
from graphc.ir.node import Node
from graphc.ir.types import i32, i64

_STEPS, _WIDE_STEPS = 6, 24  # of one comparison, measured: two loads, two stores, and no minimum of 64 bits
_PASS_STEPS = 16  # of one pass of a radix sort, for each element
TOGETHER = 4  # comparisons in one round of the innermost loops


def phases(n: int) -> Iterator[tuple[int, int, int]]:
    """(size, start, distance) of each phase of the network for `n` elements: places i with `i & size == start` are
    compared with `i + distance`.
    """
    top = 1 << max((n - 1).bit_length() - 1, 0)
    size = top
    while size:
        step, start, distance = top, 0, size
        while True:
            yield size, start, distance
            if step == size:
                break
            distance, start = step - size, size
            step //= 2
        size //= 2


def compared(n: int) -> int:
    """Comparisons of the network for `n` elements."""
    total = 0
    for size, start, distance in phases(n):
        last = n - distance  # places below it are compared
        whole, rest = divmod(max(last - start, 0), 2 * size)
        total += whole * size + min(rest, size)
    return total


class Network(Rows):
    """Sorts the elements of as many rows as a vector has lanes at a time."""

    def __init__(self, node: Node, target: Target) -> None:
        super().__init__(node, target)
        self.key = i64 if self.x.dtype.bits == 64 else i32
        self.lanes = target.lanes(self.key.itemsize)
        self.groups = -(-self.rows // self.lanes)

    @property
    def fits(self) -> bool:
        """Whether there are rows for all lanes, and rows (or neighbours of many rows) can be read in whole vectors."""
        if self.lanes == 1 or self.rows < self.lanes:
            return False
        return self.n >= self.lanes if self.after == 1 else self.after % self.lanes == 0

    @property
    def pays(self) -> bool:
        """Whether the network has fewer steps than a radix sort, and the keys of a group stay in the cache."""
        if self.n * self.lanes * self.key.itemsize * 2 > self.target.l2_bytes:
            return False
        steps = compared(self.n) * (_WIDE_STEPS if self.key is i64 else _STEPS) / self.lanes
        return steps <= self.n * Digits(self.x.dtype, self.n, self.n, alone=True).passes * _PASS_STEPS

    def kernel(self, name: str) -> Lowered:
        e = self.e
        wanted = self.target.cores * 8
        each = -(-self.groups // wanted)
        pieces = -(-self.groups // each)
        keys = self.scratch("keys", self.key, pieces * self.n * self.lanes)
        mine = (self.grid, self.n * self.lanes)
        with e.loop("group", *self.part(self.grid, each, self.groups), 1) as group:
            firsts = self._firsts(group.var)
            zeros = self._load(keys, mine, firsts)
            for size, start, distance in phases(self.n):
                self._phase(keys, mine, size, start, distance)
            self._store(keys, mine, firsts)
            if zeros is not None:
                with e.loop("once", 0, e.op("minimum", zeros, 1), 1):
                    for first in firsts if self.after == 1 else [((f, 1),) for f in self._neighbours(firsts[0])]:
                        rewrite_zeros(self, first)
        work = max(compared(self.n) * 2 // self.n // self.lanes, 1)
        return self.end(name, pieces, work, self.x, self.out, keys)

    def _firsts(self, group: Value) -> list[Terms]:
        """Where the rows of a group begin (those past the last row are the last row again); one place for all where
        they are neighbours.
        """
        e = self.e
        row = e.op("mul", group, self.lanes)
        if self.after > 1:
            return [self.first(row, self.n)]
        rows = [e.op("minimum", e.op("add", row, k), self.rows - 1) for k in range(self.lanes)]
        return [self.first(row, self.n) for row in rows]

    def _neighbours(self, first: Terms) -> list[Value]:
        """The first elements of rows that begin side by side."""
        e = self.e
        base = e.const(0, INDEX)
        for value, factor in first:
            base = e.op("add", base, e.op("mul", value, factor))
        return [e.op("add", base, k) for k in range(self.lanes)]

    def _load(self, keys: Param, mine: tuple[Value, int], firsts: list[Terms]) -> Value | None:
        """Make the keys of a group, element after element; gives the number of negative zeros (i64) among floats."""
        e, lanes = self.e, self.lanes
        none = (e.const(0, VType(self.key, lanes)),) if self.x.dtype.is_float else ()
        type = VType(self.x.dtype, lanes)

        def counted(found: tuple[Value, ...], raw: Value) -> tuple[Value, ...]:
            return tuple(e.op("add", f, e.op("cast", is_negative_zero(e, raw), to=self.key)) for f in found)

        if self.after > 1:
            with e.loop("i", 0, self.n, 1, none) as i:
                raw = e.load(type, self.x, Affine(0, (*firsts[0], (i.var, self.after))), 1, None, None)
                self._write_keys(keys, distinct_key(e, raw, self.descending), mine, (i.var, lanes))
                i.yields = counted(i.phis, raw)
        else:
            with e.loop("b", 0, -(-self.n // lanes), 1, none) as i:
                at = self._block(i.var)
                rows = [e.load(type, self.x, Affine(0, (*first, (at, 1))), 1, None, None) for first in firsts]
                found = i.phis
                for raw in rows:
                    found = counted(found, raw)
                i.yields = found
                columns = transposed(e, [distinct_key(e, raw, self.descending) for raw in rows])
                for k, column in enumerate(columns):
                    self._write_keys(keys, column, mine, (at, lanes), const=k * lanes)
        if not none:
            return None
        total = e.op("reduce_add", i.results[0])
        return total if self.key is i64 else e.op("cast", total, to=i64)

    def _block(self, number: Value) -> Value:
        """The first element of a block of as many elements as there are lanes; the last one ends with the row."""
        at = self.e.op("mul", number, self.lanes)
        return self.e.op("minimum", at, self.n - self.lanes) if self.n % self.lanes else at

    def _phase(self, keys: Param, mine: tuple[Value, int], size: int, start: int, distance: int) -> None:
        """Compare all places of one phase: runs of `size` places, each `2 * size` after the one before."""
        e, lanes = self.e, self.lanes
        count = self.n - distance - start  # places from `start` on, gaps included
        if count <= 0:
            return
        whole, rest = divmod(count, 2 * size)
        if rest >= size:
            whole, rest = whole + 1, 0
        together = min(size, TOGETHER)
        if size >= TOGETHER:
            with (
                e.loop("run", 0, whole, 1) as run,
                e.loop("i", 0, size, together) as i,
            ):
                self._exchange(
                    keys, (mine, (run.var, 2 * size * lanes), (i.var, lanes)), range(together), start, distance
                )
        else:
            runs = TOGETHER // size
            places = [run * 2 * size + k for run in range(runs) for k in range(size)]
            with e.loop("run", 0, whole // runs, 1) as run:
                self._exchange(keys, (mine, (run.var, 2 * size * runs * lanes)), places, start, distance)
            with e.loop("run", whole // runs * runs, whole, 1) as run:
                self._exchange(keys, (mine, (run.var, 2 * size * lanes)), range(size), start, distance)
        with e.loop("i", 0, rest, 1) as i:
            self._exchange(keys, (mine, (i.var, lanes)), [0], start + whole * 2 * size, distance)

    def _exchange(self, keys: Param, terms: Terms, places: range | list[int], start: int, distance: int) -> None:
        """Bring the elements at `places` after `terms` and `start`, and those `distance` further on, in order."""
        e, lanes = self.e, self.lanes
        type = VType(self.key, lanes)

        def at(place: int) -> Affine:
            return Affine((start + place) * lanes, terms)

        pairs = [
            (
                e.load(type, keys, at(place), 1, None, None),
                e.load(type, keys, at(place + distance), 1, None, None),
            )
            for place in places
        ]
        for place, (low, high) in zip(places, pairs, strict=True):
            if self.key is i64:  # one comparison serves both: most machines have no minimum of 64 bits
                ordered = e.op("lt", low, high)
                less, more = e.op("select", ordered, low, high), e.op("select", ordered, high, low)
            else:
                less, more = e.op("minimum", low, high), e.op("maximum", low, high)
            e.store(keys, at(place), less, 1, None, None)
            e.store(keys, at(place + distance), more, 1, None, None)
        e.epoch += 1

    def _store(self, keys: Param, mine: tuple[Value, int], firsts: list[Terms]) -> None:
        """Write the elements of a group in their order."""
        e, lanes = self.e, self.lanes
        type = VType(self.key, lanes)
        if self.after > 1:
            with e.loop("i", 0, self.n, 1) as i:
                key = e.load(type, keys, Affine(0, (mine, (i.var, lanes))), 1, None, None)
                self._write(element(e, key, self.x.dtype, self.descending), firsts[0], (i.var, self.after))
            return
        with e.loop("b", 0, -(-self.n // lanes), 1) as i:
            at = self._block(i.var)
            columns = [e.load(type, keys, Affine(k * lanes, (mine, (at, lanes))), 1, None, None) for k in range(lanes)]
            for first, row in zip(firsts, transposed(e, columns), strict=True):
                self._write(element(e, row, self.x.dtype, self.descending), first, (at, 1))

    def _write(self, value: Value, first: Terms, place: tuple[Value, int]) -> None:
        self.e.store(self.out, Affine(0, (*first, place)), value, 1, None, None)
        self.e.epoch += 1

    def _write_keys(
        self, keys: Param, value: Value, mine: tuple[Value, int], place: tuple[Value, int], const: int = 0
    ) -> None:
        self.e.store(keys, Affine(const, (mine, place)), value, 1, None, None)
        self.e.epoch += 1
