"""What the kernels that sort rows have in common."""

from __future__ import annotations

import math

from graphc.codegen.domain import GRID_PER_CORE
from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sort_keys import Digits, distinct_key, signed_key
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import DType, TensorType

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
