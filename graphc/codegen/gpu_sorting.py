"""Sorting on a GPU: blocks of threads sort rows, or tiles of them, in registers; then sorted runs are merged, each
element finding its place in the other run by binary search.

A tile is sorted by a bitonic network (K. Batcher, Sorting networks and their applications, 1968): thread i holds the
elements i, i + T, i + 2T, ...; threads exchange them through shared memory. Elements are keys with their indices, so
that no two are equal, and equal keys keep their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sort_keys import signed_key
from graphc.codegen.target import MAX_BLOCK
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, TensorType, i32, i64

TILE = 1 << 12  # elements that a block sorts
Terms = tuple[tuple[Value, int], ...]
Item = tuple[Value, ...]
"""An element: its key above its index in one i64, or for keys of 64 bits both by themselves."""


def lower_gpu_sort(node: Node, name: str) -> tuple[Lowered, ...]:
    """The kernels of one `argsort`, `sort` or `argselect`, in the order in which they run."""
    sorting = _Sorting(node, name)
    if sorting.tiles == 1:
        return (sorting.tile(None),)
    made = [sorting.tile(sorting.halves[0])]
    length, (source, other) = TILE, sorting.halves
    while length < sorting.padded:
        is_last = 2 * length >= sorting.padded
        made.append(sorting.merge(source, None if is_last else other, length))
        source, other, length = other, source, 2 * length
    return tuple(made)


class _Sorting:
    """One such node: rows of `n` elements, of which `kept` places of the order, from `start` on, are wanted."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name
        axis, x = node.integer("axis"), node.inputs[0].type
        self.n, self.after = x.shape[axis], math.prod(x.shape[axis + 1 :])
        self.rows = x.size // self.n
        self.start = node.integer("start") if node.op == "argselect" else 0
        self.kept = node.shape[axis]
        self.descending = bool(node.attr("descending"))
        self.source = base_of(node.inputs[0])
        self.is_wide = self.source.dtype.bits == 64
        size = min(TILE, max(32, 1 << (self.n - 1).bit_length()))
        self.threads = min(MAX_BLOCK, size)
        self.each = size // self.threads
        self.tiles = -(-self.n // size)
        self.padded = self.tiles * size
        self.dtypes: tuple[DType, ...] = (i64, i32) if self.is_wide else (i64,)
        self.halves = tuple(
            tuple(self._scratch(f"half{half}{word}", dtype) for word, dtype in enumerate(self.dtypes))
            for half in (0, 1)
        )
        self._begin()

    def _scratch(self, name: str, dtype: DType) -> Scratch:
        return Scratch(self.node, name, TensorType(dtype, (self.rows * self.padded,), self.node.type.device))

    def _begin(self) -> None:
        self.e = ScopedEmitter()
        self.e.pinned = True  # what is read may just have been written
        self.grid = self.e.bind(Value(INDEX, "g"))
        self.params: dict[Node | Scratch, Param] = {}
        self.own = tuple(
            Param(f"own{i}", dtype, self.threads * self.each, "own") for i, dtype in enumerate(self.dtypes)
        )

    def _param(self, value: Node | Scratch, mode: str) -> Param:
        if value not in self.params:
            self.params[value] = Param(f"p{len(self.params)}", value.type.dtype, value.type.size, mode)
        return self.params[value]

    def _end(self, count: int, work: int, own: tuple[Param, ...] = (), threads: int = 1) -> Lowered:
        moved = sum(value.type.nbytes for value in self.params)
        params, body = tuple(self.params.values()), tuple(self.e.body)
        kernel = Kernel(self.name, params, count, self.grid, body, work * self.rows * self.n, moved, own, threads)
        return Lowered(kernel, tuple(self.params))

    # elements

    def _item(self, raw: Value, index: Value) -> Item:
        """The element `raw` at `index` (i32)."""
        e = self.e
        key = signed_key(e, raw, self.descending)
        if self.is_wide:
            return key, index
        return (e.op("or", e.op("shl", e.op("cast", key, to=i64), 32), e.op("cast", index, to=i64)),)

    def _pad(self, item: Item, is_real: Value, index: Value) -> Item:
        """`item`, or where there is none what comes after all elements."""
        e, most = self.e, (1 << 63) - 1
        if self.is_wide:
            return e.op("select", is_real, item[0], most), index
        past = e.op("or", e.op("cast", index, to=i64), most - ((1 << 32) - 1))
        return (e.op("select", is_real, item[0], past),)

    def _less(self, first: Item, second: Item) -> Value:
        e = self.e
        if not self.is_wide:
            return e.op("lt", first[0], second[0])
        by_index = e.op("and", e.op("eq", first[0], second[0]), e.op("lt", first[1], second[1]))
        return e.op("or", e.op("lt", first[0], second[0]), by_index)

    def _index(self, item: Item) -> Value:
        """The index of an element, i64."""
        e = self.e
        return e.op("cast", item[1], to=i64) if self.is_wide else e.op("and", item[0], (1 << 32) - 1)

    def _first(self, row: Value, length: int) -> Terms:
        """Where the first element of a row of `length` stands."""
        if self.after == 1:
            return ((row, length),)
        e = self.e
        return (e.op("floordiv", row, self.after), length * self.after), (e.op("mod", row, self.after), 1)

    def _store_result(self, row: Value, rank: Value, item: Item, is_real: Value | None) -> None:
        """Store the element that has the place `rank` in the order of its row, if that is wanted."""
        e, lanes = self.e, rank.type.lanes
        place = e.op("sub", rank, self.start) if self.start else rank
        wanted = is_real
        if self.kept < self.n:
            inside = e.op("and", e.op("ge", place, 0), e.op("lt", place, self.kept))
            wanted = inside if wanted is None else e.op("and", wanted, inside)
        index = self._index(item)
        if self.node.op == "sort":
            x, first = self._param(self.source, "in"), self._first(row, self.n)
            value = self._load(VType(x.dtype, lanes), x, first, e.op("mul", index, self.after), wanted)
        else:
            value = index
        out, first = self._param(self.node, "out"), self._first(row, self.kept)
        offsets = e.op("mul", place, self.after)
        if lanes > 1:
            e.store(out, Affine(0, first), value, 0, offsets, wanted)
        else:
            e.store(out, Affine(0, (*first, (offsets, 1))), value, 0, None, wanted)

    def _load(self, type: VType, buffer: Param, first: Terms, offset: Value, mask: Value | None) -> Value:
        if type.lanes > 1:
            return self.e.load(type, buffer, Affine(0, first), 0, offset, mask)
        return self.e.load(type, buffer, Affine(0, (*first, (offset, 1))), 0, None, mask)

    # kernels

    def tile(self, to: Sequence[Scratch] | None) -> Lowered:
        """A block for each tile: it is sorted into `to`; None: it is a whole row, and the result."""
        self._begin()
        e, threads, each = self.e, self.threads, self.each
        row = e.op("floordiv", self.grid, self.tiles) if self.tiles > 1 else self.grid
        start = e.op("mul", e.op("mod", self.grid, self.tiles), threads * each) if self.tiles > 1 else e.const(0, INDEX)
        first = self._first(row, self.n)
        x = self._param(self.source, "in")
        lanes = e.lanes(i32, threads)
        items: list[Item] = []
        for number in range(each):
            index = e.op("add", e.op("add", lanes, number * threads), e.op("cast", start, to=i32))
            is_real = e.op("lt", index, self.n) if self.padded > self.n else None
            at = Affine(number * threads * self.after, (*first, (start, self.after)))
            item = self._item(e.load(VType(x.dtype, threads), x, at, self.after, None, is_real), index)
            items.append(item if is_real is None else self._pad(item, is_real, index))
        items = self._network(items)
        for number, item in enumerate(items):
            if to is None:
                rank = e.op("add", e.lanes(i64, threads), number * threads)
                self._store_result(row, rank, item, e.op("lt", rank, self.n) if self.padded > self.n else None)
                continue
            for word, memory in zip(item, to, strict=True):
                at = Affine(number * threads, ((self.grid, threads * each),))
                e.store(self._param(memory, "out"), at, word, 1, None, None)
        steps = (threads * each).bit_length()
        return self._end(self.rows * self.tiles, steps * steps, self.own, threads)

    def _network(self, items: list[Item]) -> list[Item]:
        """The elements of a tile in their order."""
        e, threads = self.e, self.threads
        lanes = e.lanes(i64, threads)
        size = 2
        while size <= threads * self.each:
            distance = size // 2
            while distance >= threads:  # both are the same thread's
                for low in range(len(items)):
                    high = low ^ distance // threads
                    if low < high:
                        pair = (low, high) if not low * threads & size else (high, low)
                        items[pair[0]], items[pair[1]] = self._ordered(items[low], items[high])
                distance //= 2
            items = self._exchanged(items, lanes, size, distance)
            size *= 2
        return items

    def _ordered(self, first: Item, second: Item) -> tuple[Item, Item]:
        """The smaller and the larger one."""
        e, is_less = self.e, self._less(first, second)
        small = tuple(e.op("select", is_less, a, b) for a, b in zip(first, second, strict=True))
        large = tuple(e.op("select", is_less, b, a) for a, b in zip(first, second, strict=True))
        return small, large

    def _exchanged(self, items: list[Item], lanes: Value, size: int, distance: int) -> list[Item]:
        """The comparisons of all distances from `distance` down, with elements of other threads."""
        e, threads = self.e, self.threads
        flat = tuple(word for item in items for word in item)
        width = len(self.dtypes)
        with e.loop("step", 0, distance.bit_length(), 1, (e.const(distance, INDEX), *flat)) as step:
            far, *words = step.phis
            mine = [tuple(words[i : i + width]) for i in range(0, len(words), width)]
            for number, item in enumerate(mine):
                for buffer, word in zip(self.own, item, strict=True):
                    e.store(buffer, Affine(number * threads), word, 1, None, None)
            e.epoch += 1
            is_low = e.op("eq", e.op("and", lanes, far), 0)
            partner = e.op("xor", lanes, far)
            after: list[Value] = []
            for number, item in enumerate(mine):
                other = tuple(
                    e.load(VType(b.dtype, threads), b, Affine(number * threads), 0, partner, None) for b in self.own
                )
                ascending = is_low
                if size < threads:
                    up = e.op("eq", e.op("and", lanes, size), 0)
                    ascending = e.op("eq", is_low, up)
                elif number * threads & size:
                    ascending = e.op("not", is_low)
                keeps = e.op("eq", self._less(item, other), ascending)
                after += [e.op("select", keeps, a, b) for a, b in zip(item, other, strict=True)]
            e.epoch += 1
            step.yields = (e.op("lshr", far, 1), *after)
        flat = step.results[1:]
        return [tuple(flat[i : i + width]) for i in range(0, len(flat), width)]

    def merge(self, source: Sequence[Scratch], to: Sequence[Scratch] | None, length: int) -> Lowered:
        """A thread for each element: it goes to its place in the runs of `length`, two by two, as one. None: the last
        time that is the result.
        """
        self._begin()
        e = self.e
        row, at = e.op("floordiv", self.grid, self.padded), e.op("mod", self.grid, self.padded)
        base = ((row, self.padded),)

        def read(place: Value) -> Item:
            where = Affine(0, (*base, (place, 1)))
            return tuple(e.load(VType(s.type.dtype), self._param(s, "in"), where, 0, None, None) for s in source)

        mine = read(at)
        run = e.op("floordiv", at, length)
        is_first = e.op("eq", e.op("mod", run, 2), 0)
        both = e.op("mul", e.op("floordiv", run, 2), 2 * length)
        own = e.op("mul", run, length)
        other = e.op("select", is_first, e.op("add", both, length), both)
        low = e.op("minimum", other, self.padded)
        high = e.op("minimum", e.op("add", other, length), self.padded)
        start = low
        for _ in range(length.bit_length()):
            middle = e.op("lshr", e.op("add", low, high), 1)
            active = e.op("lt", low, high)
            before = self._less(read(e.op("minimum", middle, self.padded - 1)), mine)
            up = e.op("and", active, before)
            low = e.op("select", up, e.op("add", middle, 1), low)
            high = e.op("select", e.op("and", active, e.op("not", before)), middle, high)
        rank = e.op("add", e.op("add", both, e.op("sub", at, own)), e.op("sub", low, start))
        if to is None:
            self._store_result(row, rank, mine, e.op("lt", rank, self.n) if self.padded > self.n else None)
        else:
            for word, memory in zip(mine, to, strict=True):
                e.store(self._param(memory, "out"), Affine(0, (*base, (rank, 1))), word, 0, None, None)
        return self._end(self.rows * self.padded, length.bit_length())
