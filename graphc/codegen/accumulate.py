"""Kernels that write at indices read from memory (`index_add`, `scatter_set`, ...), in a fixed order, so never two
at once.
"""

from __future__ import annotations

import math

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.prefetch import DISTANCE, MOST_POINTS, STREAMED
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import LINE, Target
from graphc.codegen.values import accumulator_dtype
from graphc.ir.demand import base_of
from graphc.ir.index import row_major_strides
from graphc.ir.node import Node
from graphc.ir.types import i64

SHORTEST_PART = 256  # bytes of a part of a row


def lower_accumulate(node: Node, name: str, target: Target) -> Lowered:
    """The kernel that writes the last operand of `node` into the result, which already holds a copy of the first.

    The parallel range covers the dimensions before the axis, and parts of long rows: there no two writes meet, and the
    order of writes is the same with any number of threads.
    """
    _, index, source = node.inputs
    axis = node.integer("axis")
    by_row = node.op.startswith("index")
    e = ScopedEmitter()
    point = e.bind(Value(INDEX, "g"))
    inputs = dict.fromkeys([base_of(index), base_of(source)])
    params = {n: Param(f"p{i}", n.dtype, n.type.size, "in") for i, n in enumerate(inputs)}
    out = Param(f"p{len(params)}", node.dtype, node.type.size, "inout")
    before = math.prod(source.shape[:axis])
    if by_row:
        middle, after = index.type.size, math.prod(node.shape[axis + 1 :])
    else:
        middle, after = source.shape[axis], math.prod(source.shape[axis + 1 :])
    lanes = target.lanes(max(4, node.dtype.itemsize)) if by_row else 1
    parts = _parts(node, before, after, lanes, target) if by_row else 1
    width = after // parts
    grid = e.op("floordiv", point, parts) if parts > 1 else point
    own = ((e.op("mod", point, parts), width),) if parts > 1 else ()
    early = _early(node, middle, width) if by_row else 0
    with e.loop("k", 0, middle, 1) as k:

        def picked(place: Affine) -> Value:
            """The row that the index at `place` names."""
            wide = expand_cast(e, e.load(VType(index.dtype), params[base_of(index)], place, 0, None, None), i64)
            low = e.op("select", e.op("lt", wide, 0), 0, wide)
            last = max(node.shape[axis] - 1, 0)
            return e.op("select", e.op("gt", low, last), last, low)

        def write(position: Value | int, count: int, mask: Value | None) -> None:
            """Write `count` neighbouring elements that start at `position` of the dimensions after the axis."""
            inner = ((position, 1), *own) if isinstance(position, Value) else ()
            fixed = 0 if isinstance(position, Value) else position
            from_index = Affine(0, ((k.var, 1),)) if by_row else None
            place = Affine(fixed, ((grid, middle * after), (k.var, after), *inner))
            row = picked(from_index or place)
            value = e.load(VType(source.dtype, count), params[base_of(source)], place, int(count > 1), None, mask)
            if by_row:
                to = Affine(fixed, ((grid, node.shape[axis] * after), (row, after), *inner))
            else:
                to = scatter_place(e, node, source, axis, grid, row, position, after)
            total = value
            if not node.op.endswith("_set"):
                total = combined(e, node, e.load(VType(node.dtype, count), out, to, int(count > 1), None, mask), value)
            e.store(out, to, total, int(count > 1), None, mask)

        if early:
            later = picked(Affine(0, ((e.op("minimum", e.op("add", k.var, early), middle - 1), 1),)))
            for first in range(0, width, LINE // node.dtype.itemsize):
                e.prefetch(out, Affine(first, ((grid, node.shape[axis] * after), (later, after), *own)))
        e.pinned = True  # what is read may just have been written
        whole = width // lanes * lanes
        if whole:
            with e.loop("j", 0, whole, lanes) as j:
                write(j.var, lanes, None)
        if width - whole:
            write(whole, lanes, e.op("lt", e.lanes(i64, lanes), width - whole))
    size = source.type.size
    cost = size, size * 3 * node.dtype.itemsize
    kernel = Kernel(name, (*params.values(), out), before * parts, point, tuple(e.body), *cost)
    return Lowered(kernel, (*params, node))


def _parts(node: Node, before: int, after: int, lanes: int, target: Target) -> int:
    """Into how many equal parts of whole vectors the rows are cut, so that all cores have work."""
    most = min(-(-target.cores // max(before, 1)), after * node.dtype.itemsize // SHORTEST_PART)
    return max((n for n in range(1, most + 1) if after % (n * lanes) == 0), default=1)


def _early(node: Node, middle: int, width: int) -> int:
    """How many rows early the lines of one are asked for: those that an index names are not foreseen. 0 for never."""
    row = width * node.dtype.itemsize
    if node.type.nbytes < STREAMED or not LINE <= row <= DISTANCE or middle < MOST_POINTS:
        return 0
    return min(MOST_POINTS, DISTANCE // row)


def combined(e: ScopedEmitter, node: Node, old: Value, new: Value) -> Value:
    """What stands at a place after `new` was added to, or reduced with, `old`."""
    dtype = accumulator_dtype(node.dtype)
    left, right = expand_cast(e, old, dtype), expand_cast(e, new, dtype)
    mode = node.attr("mode") if node.op == "scatter_reduce" else "add"
    name = {"add": "add", "prod": "mul", "max": "maximum", "min": "minimum"}[str(mode)]
    return expand_cast(e, e.op(name, left, right), node.dtype)


def scatter_place(
    e: ScopedEmitter, node: Node, source: Node, axis: int, grid: Value, row: Value, position: Value | int, after: int
) -> Affine:
    """Where element (grid, ., position) of `source` goes: its index tensor may be smaller than the result in every
    dimension.
    """
    strides = row_major_strides(node.shape)
    terms: list[tuple[Value, int]] = [(row, strides[axis])]
    const = 0
    rest = grid
    for d in reversed(range(axis)):
        terms.append((e.op("mod", rest, source.shape[d]), strides[d]))
        rest = e.op("floordiv", rest, source.shape[d])
    if isinstance(position, int):
        for d in reversed(range(axis + 1, node.type.rank)):
            const += position % source.shape[d] * strides[d]
            position //= source.shape[d]
    else:
        rest = position
        for d in reversed(range(axis + 1, node.type.rank)):
            terms.append((e.op("mod", rest, source.shape[d]), strides[d]))
            rest = e.op("floordiv", rest, source.shape[d])
    return Affine(const, tuple(terms))
