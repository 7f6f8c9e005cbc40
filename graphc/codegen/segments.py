"""Kernels of `segment_reduce`: the elements of a row one after the other, or each of a block's threads some of them."""

from __future__ import annotations

import math

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.values import accumulator_dtype
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.types import DType, i64, identity

TOGETHER = 8  # elements that are loaded at once, so that none waits for the loads of another
NARROW = 32  # elements side by side from which on threads go along them
SHORT = 8  # elements that a row has on average, up to which a thread takes them all,
LONG = 1 << 10  # and from which on a row has a block of several warps
WARP, BLOCK = 32, 256  # threads
_COMBINE = {"add": "add", "prod": "mul", "max": "maximum", "min": "minimum"}
_REDUCE = {"add": "reduce_add", "prod": "reduce_mul", "max": "reduce_maximum", "min": "reduce_minimum"}


def lower_segments(node: Node, name: str) -> Lowered:
    """The kernel in which each element of the result is made by itself, its segment one after the other."""
    return _Segments(node, name).in_order()


def lower_gpu_segments(node: Node, name: str) -> Lowered:
    """The kernel for a GPU: where segments are long and there are few elements side by side, threads share one."""
    segments = _Segments(node, name)
    average = segments.count // max(segments.rows, 1)
    if segments.after >= NARROW or average < SHORT:
        return segments.in_order()
    return segments.shared(BLOCK if average >= LONG else WARP)


class _Segments:
    """One such node: elements (before, row, after) of the result, of `count` of the source in their order."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name
        x, order, starts, source = node.inputs
        axis = node.integer("axis")
        self.rows, self.count = x.shape[axis], order.type.size
        self.before, self.after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        self.mode = node.text("mode")
        self.dtype: DType = accumulator_dtype(node.dtype)
        read = dict.fromkeys(map(base_of, (order, starts, source)))
        self.params = {value: Param(f"p{i}", value.dtype, value.type.size, "in") for i, value in enumerate(read)}
        self.order, self.starts, self.source = (self.params[base_of(value)] for value in (order, starts, source))
        self.out = Param(f"p{len(read)}", node.dtype, node.type.size, "inout")
        self.e = e = ScopedEmitter()
        self.grid = e.bind(Value(INDEX, "g"))
        rest, self.column = self._split(self.grid, self.after)
        self.line, self.row = self._split(rest, self.rows)
        self.first, end = self._start(0), self._start(1)
        self.end = e.op("maximum", end, self.first)
        self.place = Affine(0, ((self.line, self.rows * self.after), (self.row, self.after), (self.column, 1)))

    def _split(self, value: Value, extent: int) -> tuple[Value, Value]:
        if extent == 1:
            return value, self.e.const(0, INDEX)
        return self.e.op("floordiv", value, extent), self.e.op("mod", value, extent)

    def _within(self, raw: Value, last: int) -> Value:
        """A place as an index, 0 to `last`."""
        e = self.e
        return e.op("minimum", e.op("maximum", expand_cast(e, raw, i64), 0), last)

    def _start(self, number: int) -> Value:
        """Where the segment of the row starts, or with 1 the next one."""
        where = Affine(number, ((self.row, 1),))
        return self._within(self.e.load(VType(self.starts.dtype), self.starts, where, 0, None, None), self.count)

    def _combined(self, left: Value, right: Value) -> Value:
        return self.e.op(_COMBINE[self.mode], left, right)

    def _old(self, wanted: Value) -> Value:
        return expand_cast(
            self.e, self.e.load(VType(self.node.dtype), self.out, self.place, 0, None, wanted), self.dtype
        )

    def _elements(self, at: Value, number: int) -> list[Value]:
        """Elements of the source, `number` from place `at` of the order on."""
        e, line = self.e, (self.line, self.count * self.after)
        places = [
            e.load(VType(self.order.dtype), self.order, Affine(k, ((at, 1),)), 0, None, None) for k in range(number)
        ]
        found: list[Value] = []
        for place in places:
            where = Affine(0, (line, (self._within(place, max(self.count - 1, 0)), self.after), (self.column, 1)))
            raw = e.load(VType(self.source.dtype), self.source, where, 0, None, None)
            found.append(expand_cast(e, raw, self.dtype))
        return found

    def in_order(self) -> Lowered:
        """Each element by itself."""
        e = self.e
        wanted = e.op("gt", self.end, self.first)
        total = self._old(wanted)
        whole = e.op("sub", self.end, e.op("mod", e.op("sub", self.end, self.first), TOGETHER))
        for lo, hi, step in ((self.first, whole, TOGETHER), (whole, self.end, 1)):
            with e.loop("i", lo, hi, step, (total,)) as i:
                (so_far,) = i.phis
                for element in self._elements(i.var, step):
                    so_far = self._combined(so_far, element)
                i.yields = (so_far,)
            (total,) = i.results
        return self._end(total, wanted)

    def shared(self, threads: int) -> Lowered:
        """A block of threads for each element."""
        e = self.e
        kind = "sum" if self.mode == "add" else self.mode
        none = -0.0 if kind == "sum" and self.dtype.is_float else identity(kind, self.dtype)
        start = e.const(none, VType(self.dtype, threads))
        lanes = e.lanes(i64, threads)
        with e.loop("i", self.first, self.end, threads, (start,)) as i:
            here = e.op("lt", e.op("add", lanes, i.var), self.end)
            order = VType(self.order.dtype, threads)
            raw = e.load(order, self.order, Affine(0, ((i.var, 1),)), 1, None, here)
            offsets = e.op("mul", self._within(raw, max(self.count - 1, 0)), self.after)
            where = Affine(0, ((self.line, self.count * self.after), (self.column, 1)))
            loaded = e.load(VType(self.source.dtype, threads), self.source, where, 0, offsets, here)
            element = e.op("select", here, expand_cast(e, loaded, self.dtype), start)
            i.yields = (self._combined(i.phis[0], element),)
        wanted = e.op("gt", self.end, self.first)
        total = self._combined(self._old(wanted), e.op(_REDUCE[self.mode], i.results[0]))
        return self._end(total, wanted, threads)

    def _end(self, total: Value, wanted: Value, threads: int = 1) -> Lowered:
        e, size = self.e, self.node.type.size
        e.store(self.out, self.place, expand_cast(e, total, self.node.dtype), 0, None, wanted)
        source = self.before * self.count * self.after
        moved = sum(value.type.nbytes for value in self.params) + 2 * self.node.type.nbytes
        params = (*self.params.values(), self.out)
        kernel = Kernel(self.name, params, size, self.grid, tuple(e.body), source, moved, threads=threads)
        return Lowered(kernel, (*self.params, self.node))
