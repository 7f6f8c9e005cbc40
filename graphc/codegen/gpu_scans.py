"""Scans on a GPU: running results along an axis, by a thread for each line, or by blocks of threads that go along a
line (or a part of one) together.

In a block each thread runs over a few neighbours; what the threads before it have comes from a scan over their totals
in shared memory (W. Hillis and G. Steele, Data Parallel Algorithms, 1986). Parts of a long line are reduced first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from graphc.codegen.kernel import INDEX, Affine, Kernel, Op, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scans import combination, lower_scan, running_dtype
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import TensorType, i32

LINES = 1 << 14  # lines from which on each is a thread, if neighbours lie side by side
SIDE = 32  # that many side by side
SHORT = 32  # elements of lines that a thread goes along anyway
EACH = 4  # neighbours of a thread
THREADS = 256  # of a block
PART = 8 * EACH * THREADS  # elements of a part of a long line
FEW = 256  # lines from which on none is cut

Terms = tuple[tuple[Value, int], ...]
_Read = Callable[[Value, int, Value | None], Value]
_Write = Callable[[Value, Value, int, Value | None], None]


def lower_gpu_scan(node: Node, name: str, target: Target) -> tuple[Lowered, ...]:
    """The kernels of one scan, in the order in which they run."""
    scan = _Scan(node, name)
    lines = scan.before * scan.after
    if node.op == "recurrence" or scan.n <= SHORT or (lines >= LINES and scan.after >= SIDE):
        return (lower_scan(node, frozenset({node}), name, replace(target, vector_bytes=1, cores=max(lines, 1))),)
    if lines >= FEW or scan.n <= 2 * PART:
        return (scan.lines(),)
    return scan.totals(), scan.sums(), scan.parts()


class _Scan:
    """One scan: lines (before, after) of `n` elements."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name
        axis = node.integer("axis")
        self.reverse = bool(node.attr("reverse"))
        self.before, self.n = math.prod(node.shape[:axis]), node.shape[axis]
        self.after = math.prod(node.shape[axis + 1 :])
        self.step = -self.after if self.reverse else self.after  # to the next element of a line
        self.dtype = running_dtype(node.dtype)
        self.op = combination(node) if node.op != "recurrence" else ""
        self.source = base_of(node.inputs[-1])
        self.count = -(-self.n // PART)
        self.threads = min(THREADS, max(32, 1 << (-(-self.n // EACH) - 1).bit_length()))
        type = TensorType(self.dtype, (self.before * self.after * self.count,), node.type.device)
        self.part_totals = Scratch(node, "totals", type)
        self.part_sums = Scratch(node, "sums", type)
        self._begin()

    def _begin(self) -> None:
        self.e = ScopedEmitter()
        self.e.pinned = True  # shared memory is written again and again
        self.grid = self.e.bind(Value(INDEX, "g"))
        self.own = tuple(Param(f"own{i}", self.dtype, self.threads, "own") for i in (0, 1))
        self.turn = 0

    def _kernel(self, params: dict[Node | Scratch, Param], count: int, uses_own: bool = True) -> Lowered:
        size = self.node.type.size
        moved = sum(value.type.nbytes for value in params)
        own = self.own if uses_own else ()
        body = tuple(self.e.body)
        kernel = Kernel(self.name, tuple(params.values()), count, self.grid, body, 2 * size, moved, own, self.threads)
        return Lowered(kernel, tuple(params))

    def _identity(self, lanes: int) -> Value:
        """What changes nothing when it is combined."""
        dtype = self.dtype
        if self.op in ("or", "and"):
            value: float | int | bool = self.op == "and"
        elif self.op in ("add", "mul"):
            value = (0.0 if dtype.is_float else 0) if self.op == "add" else (1.0 if dtype.is_float else 1)
        elif dtype.is_float:
            value = float("-inf") if self.op == "maximum" else float("inf")
        else:
            low = 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))
            value = low if self.op == "maximum" else low + (1 << dtype.bits) - 1
        return self.e.const(value, VType(dtype, lanes))

    def _line(self, line: Value) -> Terms:
        """Where a line begins, without its constant part."""
        if self.after == 1:
            return ((line, self.n),)
        e = self.e
        return (e.op("floordiv", line, self.after), self.n * self.after), (e.op("mod", line, self.after), 1)

    def _affine(self, line: Terms, k: Value, more: int) -> Affine:
        """Element `k + more` of a line of the node."""
        start = (self.n - 1) * self.after if self.reverse else 0
        return Affine(start + more * self.step, (*line, (k, self.step)))

    def _before(self, total: Value) -> tuple[Value, Value]:
        """For each thread what those before it have together, and what all have."""
        e, threads = self.e, self.threads
        lanes = e.lanes(i32, threads)

        def from_before(value: Value, distance: int) -> Value:
            buffer = self.own[self.turn]
            self.turn = 1 - self.turn
            e.store(buffer, Affine(), value, 1, None, None)
            e.epoch += 1
            has = e.op("ge", lanes, distance)
            other = e.load(VType(self.dtype, threads), buffer, Affine(-distance), 1, None, has)
            return e.op("select", has, other, self._identity(threads))

        distance = 1
        while distance < threads:
            total = e.op(self.op, from_before(total, distance), total)
            distance *= 2
        everything = Value(VType(self.dtype))
        before = from_before(total, 1)
        e.body.append(Op(everything, "extract", (total,), threads - 1))
        return before, e.bind(everything)

    def _along(self, length: int | Value, carry: Value, read: _Read, write: _Write) -> None:
        """Go along `length` elements, `carry` being what comes before them.

        `read(k, number, mask)` gives neighbour `number` of each thread from `k` on, `write(value, ...)` takes it.
        """
        e, threads = self.e, self.threads
        step = EACH * threads
        is_even = isinstance(length, int) and length % step == 0
        first = e.op("mul", e.lanes(i32, threads), EACH)
        with e.loop("k", 0, length, step, (carry,)) as k:
            left = None
            if not is_even:
                end = length if isinstance(length, Value) else e.const(length, INDEX)
                left = e.op("cast", e.op("minimum", e.op("sub", end, k.var), step), to=i32)
            masks: list[Value | None] = []
            running: list[Value] = []
            for number in range(EACH):
                mask = None if left is None else e.op("lt", e.op("add", first, number), left)
                value = read(k.var, number, mask)
                if mask is not None:
                    value = e.op("select", mask, value, self._identity(threads))
                masks.append(mask)
                running.append(e.op(self.op, running[-1], value) if running else value)
            before, everything = self._before(running[-1])
            start = e.op(self.op, k.phis[0], before)
            for number, mask in enumerate(masks):
                write(e.op(self.op, start, running[number]), k.var, number, mask)
            k.yields = (e.op(self.op, k.phis[0], everything),)

    def _reader(self, source: Param, line: Terms, first: Value | None) -> _Read:
        """Reads elements of the node's operand, from number `first` of a line on."""
        e = self.e

        def read(k: Value, number: int, mask: Value | None) -> Value:
            at = self._affine(line, k if first is None else e.op("add", first, k), number)
            raw = e.load(VType(source.dtype, self.threads), source, at, EACH * self.step, None, mask)
            return expand_cast(e, raw, self.dtype)

        return read

    def _writer(self, out: Param, line: Terms, first: Value | None) -> _Write:
        e = self.e

        def write(value: Value, k: Value, number: int, mask: Value | None) -> None:
            at = self._affine(line, k if first is None else e.op("add", first, k), number)
            e.store(out, at, expand_cast(e, value, self.node.dtype), EACH * self.step, None, mask)

        return write

    def lines(self) -> Lowered:
        """A block for each line."""
        self._begin()
        params = self._params(self.source, self.node)
        source, out = params.values()
        line = self._line(self.grid)
        self._along(self.n, self._identity(1), self._reader(source, line, None), self._writer(out, line, None))
        return self._kernel(params, self.before * self.after)

    def _part(self) -> tuple[Terms, Value, Value, Value]:
        """Of a block for each part of each line: the line, the part, its first element and how many it has."""
        e = self.e
        part = e.op("mod", self.grid, self.count)
        first = e.op("mul", part, PART)
        length = e.op("minimum", e.op("sub", e.const(self.n, INDEX), first), PART)
        return self._line(e.op("floordiv", self.grid, self.count)), part, first, length

    def totals(self) -> Lowered:
        """What each part has together."""
        self._begin()
        e, threads = self.e, self.threads
        params = self._params(self.source, self.part_totals)
        source, out = params.values()
        line, _, first, length = self._part()
        lanes = e.lanes(i32, threads)
        with e.loop("k", 0, length, threads, (self._identity(threads),)) as k:
            left = e.op("cast", e.op("minimum", e.op("sub", length, k.var), threads), to=i32)
            mask = e.op("lt", lanes, left)
            at = self._affine(line, e.op("add", first, k.var), 0)
            raw = e.load(VType(source.dtype, threads), source, at, self.step, None, mask)
            value = e.op("select", mask, expand_cast(e, raw, self.dtype), self._identity(threads))
            k.yields = (e.op(self.op, k.phis[0], value),)
        total = e.op(f"reduce_{self.op}", k.results[0])
        e.store(out, Affine(0, ((self.grid, 1),)), total, 0, None, None)
        return self._kernel(params, self.before * self.after * self.count, uses_own=False)

    def sums(self) -> Lowered:
        """A scan over the parts of each line."""
        self._begin()
        e, threads = self.e, self.threads
        params = self._params(self.part_totals, self.part_sums)
        source, out = params.values()
        type = VType(self.dtype, threads)

        def place(k: Value, number: int) -> Affine:
            return Affine(number, ((self.grid, self.count), (k, 1)))

        def read(k: Value, number: int, mask: Value | None) -> Value:
            return e.load(type, source, place(k, number), EACH, None, mask)

        def write(value: Value, k: Value, number: int, mask: Value | None) -> None:
            e.store(out, place(k, number), value, EACH, None, mask)

        self._along(self.count, self._identity(1), read, write)
        return self._kernel(params, self.before * self.after)

    def parts(self) -> Lowered:
        """A block for each part, which begins with what the parts before it have."""
        self._begin()
        e = self.e
        params = self._params(self.source, self.part_sums, self.node)
        source, sums, out = params.values()
        line, part, first, length = self._part()
        has = e.op("gt", part, 0)
        carry = e.load(VType(self.dtype), sums, Affine(-1, ((self.grid, 1),)), 0, None, has)
        carry = e.op("select", has, carry, self._identity(1))
        self._along(length, carry, self._reader(source, line, first), self._writer(out, line, first))
        return self._kernel(params, self.before * self.after * self.count)

    def _params(self, *values: Node | Scratch) -> dict[Node | Scratch, Param]:
        """A parameter for each value; the last one is written."""
        modes = ["in"] * (len(values) - 1) + ["out"]
        found = enumerate(zip(values, modes, strict=True))
        return {value: Param(f"p{i}", value.type.dtype, value.type.size, mode) for i, (value, mode) in found}
