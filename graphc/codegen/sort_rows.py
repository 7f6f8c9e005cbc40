"""What the kernels that sort rows have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphc.codegen.domain import GRID_PER_CORE
from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sort_keys import Digits, distinct_key, is_negative_zero, signed_key
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, TensorType, i64

_LARGE = 1 << 14  # elements of a row from which on few rows are sorted at once, for the sake of memory

Terms = tuple[tuple[Value, int], ...]


class Rows:
    """The rows that are sorted, and what all kernels have in common. `kept` places of each order, from `start` on, are
    wanted. `alone`: the elements in their order are wanted, not their indices.
    """

    def __init__(self, node: Node, target: Target) -> None:
        self.node, self.target = node, target
        axis = node.integer("axis")
        x = node.inputs[0].type
        self.n, self.after = x.shape[axis], math.prod(x.shape[axis + 1 :])
        self.rows = x.size // self.n
        self.start = node.integer("start") if node.op == "argselect" else 0
        self.kept = node.shape[axis]
        self.alone = node.op == "sort"
        self.descending = bool(node.attr("descending"))
        source = base_of(node.inputs[0])
        self.x = Param("x", source.dtype, source.type.size, "in")
        self.out = Param("out", node.dtype, node.type.size, "out")
        self.owners: dict[Param, Node | Scratch] = {self.x: source, self.out: node}
        self.begin()

    def begin(self) -> None:
        """Begin a kernel."""
        self.e = ScopedEmitter()
        self.e.pinned = True  # what is read may just have been written
        self.grid = self.e.bind(Value(INDEX, "g"))

    def end(self, name: str, count: int, work: int, *params: Param) -> Lowered:
        """The kernel that was written, over a parallel range of `count`, with `work` steps for each element."""
        size = self.rows * self.n
        kernel = Kernel(name, params, count, self.grid, tuple(self.e.body), size * work, size * work * 8)
        return Lowered(kernel, tuple(self.owners[p] for p in params))

    def scratch(self, name: str, dtype: DType, size: int) -> Param:
        """A buffer to work in."""
        param = Param(name, dtype, size, "inout")
        self.owners[param] = Scratch(self.node, name, TensorType(dtype, (size,), self.node.type.device))
        return param

    def read(self, buffer: Param, *terms: tuple[Value, int], const: int = 0) -> Value:
        return self.e.load(VType(buffer.dtype), buffer, Affine(const, terms), 0, None, None)

    def write(
        self, buffer: Param, value: Value, *terms: tuple[Value, int], const: int = 0, mask: Value | None = None
    ) -> None:
        self.e.store(buffer, Affine(const, terms), value, 0, None, mask)
        self.e.epoch += 1

    def packed(self, digits: Digits, raw: Value, index: Value, word: int) -> Value:
        """Word number `word` of the key of the element `raw`, packed with its index unless it is wanted alone."""
        key = distinct_key if self.alone else signed_key
        return digits.pack(self.e, key(self.e, raw, self.descending), index, word)

    def result(self, digits: Digits, value: Value) -> Value:
        """What a packed value stands for in the result: an index, or an element."""
        if self.alone:
            return digits.alone_element(self.e, value, self.descending)
        return digits.index(self.e, value)

    @property
    def counts_zeros(self) -> bool:
        """Whether keys tell zeros apart that are equal and must keep their order."""
        return self.alone and self.x.dtype.is_float

    def pack_row(
        self,
        digits: Digits,
        first: Terms,
        lo: Value | int,
        hi: Value,
        to: Param,
        mine: Terms,
        use: Callable[[Value], None],
    ) -> Value | None:
        """Pack the keys of elements `lo` to `hi` with their indices into `to`, and `use` each; gives the number
        of negative zeros (i64) where `counts_zeros`.
        """
        e = self.e
        lanes = self.target.lanes(digits.packed.itemsize) if self.after == 1 else 1
        whole = e.op("sub", hi, e.op("and", e.op("sub", hi, lo), lanes - 1))
        none = (e.const(0, VType(digits.packed, lanes)),) if self.counts_zeros else ()

        def step(i: Value, width: int, found: tuple[Value, ...]) -> tuple[Value, ...]:
            wide = int(width > 1)
            raw = e.load(VType(self.x.dtype, width), self.x, Affine(0, (*first, (i, self.after))), wide, None, None)
            index = e.op("add", e.lanes(i64, width), i) if wide and not self.alone else i
            e.store(to, Affine(0, (*mine, (i, 1))), self.packed(digits, raw, index, 0), wide, None, None)
            e.epoch += 1
            for k in range(width):
                use(self.read(to, *mine, (i, 1), const=k))
            return tuple(e.op("add", f, e.op("cast", is_negative_zero(e, raw), to=digits.packed)) for f in found)

        with e.loop("i", lo, whole, lanes, none) as i:
            i.yields = step(i.var, lanes, i.phis)
        across = tuple(e.op("reduce_add", total) if lanes > 1 else total for total in i.results)
        with e.loop("i", whole, hi, 1, across) as i:
            i.yields = step(i.var, 1, i.phis)
        if not none:
            return None
        return i.results[0] if digits.packed is i64 else e.op("cast", i.results[0], to=i64)

    def ranked(
        self, digits: Digits, values: Sequence[Value], number: Value | int, counts: Param, own: Terms
    ) -> list[Value]:
        """The places (i64) of packed values that follow each other, in the order of a digit: what `counts` has for it
        from `own` on, which then goes on behind them.

        All counters are read before one is written. Where few digits occur, the machine expects each counter to be the
        one just written, and would wait for it at each value.
        """
        e = self.e
        found = [digits.digit(e, value, number) for value in values]
        places = [self.read(counts, *own, (digit, 1)) for digit in found]
        for later in range(1, len(found)):
            for earlier in range(later):
                same = e.op("cast", e.op("eq", found[earlier], found[later]), to=digits.counter)
                places[later] = e.op("add", places[later], same)
        for digit, place in zip(found, places, strict=True):
            self.write(counts, e.op("add", place, 1), *own, (digit, 1))
        return [place if place.type == INDEX else e.op("cast", place, to=i64) for place in places]

    def in_pairs(self, lo: Value | int, hi: Value, body: Callable[[list[Value]], None]) -> None:
        """Run `body` for the indices from `lo` to `hi`, two at a time."""
        e = self.e
        end = e.op("sub", hi, e.op("and", e.op("sub", hi, lo), 1))
        with e.loop("i", lo, end, 2) as i:
            body([i.var, e.op("add", i.var, 1)])
        with e.loop("i", end, hi, 1) as i:
            body([i.var])

    def part(self, number: Value, size: int, total: int) -> tuple[Value, Value]:
        """The bounds of part `number` of `total` things in parts of `size`."""
        lo = self.e.op("mul", number, size)
        hi = self.e.op("add", lo, size)
        return lo, self.e.op("minimum", hi, total) if total % size else hi

    def first(self, row: Value, length: int) -> Terms:
        """Where the first element of a row of `length` stands."""
        if self.after == 1:
            return ((row, length),)
        return (
            (self.e.op("floordiv", row, self.after), length * self.after),
            (self.e.op("mod", row, self.after), 1),
        )

    def kept_place(self, rank: Value) -> tuple[Value, Value | None]:
        """Where in its row of the result the element of this rank goes, and whether it is kept."""
        if self.kept == self.n:
            return rank, None
        place = self.e.op("sub", rank, self.start)
        return place, self.e.op("and", self.e.op("ge", place, 0), self.e.op("lt", place, self.kept))

    def cut(self) -> tuple[int, int]:
        """Into how many pieces the rows are cut, and how many rows each has."""
        wanted = self.target.cores * (GRID_PER_CORE if self.n < _LARGE else 2)
        each = -(-self.rows // wanted)
        return -(-self.rows // each), each
