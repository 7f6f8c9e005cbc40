"""Kernels that write at indices read from memory (`index_add`, `scatter_set`, ...), in a fixed order, so never two
at once.
"""

from __future__ import annotations

import math

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.codegen.values import accumulator_dtype
from graphc.ir.demand import base_of
from graphc.ir.index import row_major_strides
from graphc.ir.node import Node
from graphc.ir.types import i64


def lower_accumulate(node: Node, name: str, target: Target) -> Lowered:
    """The kernel that writes the last operand of `node` into the result, which already holds a copy of the first.

    The parallel range covers the dimensions before the axis: there no two writes meet.
    """
    _, index, source = node.inputs
    axis = node.integer("axis")
    by_row = node.op.startswith("index")
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    inputs = dict.fromkeys([base_of(index), base_of(source)])
    params = {n: Param(f"p{i}", n.dtype, n.type.size, "in") for i, n in enumerate(inputs)}
    out = Param(f"p{len(params)}", node.dtype, node.type.size, "inout")
    before = math.prod(source.shape[:axis])
    if by_row:
        middle, after = index.type.size, math.prod(node.shape[axis + 1 :])
    else:
        middle, after = source.shape[axis], math.prod(source.shape[axis + 1 :])
    lanes = target.lanes(max(4, node.dtype.itemsize)) if by_row else 1
    with e.loop("k", 0, middle, 1) as k:

        def write(position: Value | int, width: int, mask: Value | None) -> None:
            """Write `width` neighbouring elements that start at `position` of the dimensions after the axis."""
            inner = ((position, 1),) if isinstance(position, Value) else ()
            fixed = 0 if isinstance(position, Value) else position
            from_index = Affine(0, ((k.var, 1),)) if by_row else None
            place = Affine(fixed, ((grid, middle * after), (k.var, after), *inner))
            raw = e.load(VType(index.dtype), params[base_of(index)], from_index or place, 0, None, None)
            wide = expand_cast(e, raw, i64)
            low = e.op("select", e.op("lt", wide, 0), 0, wide)
            last = max(node.shape[axis] - 1, 0)
            row = e.op("select", e.op("gt", low, last), last, low)
            value = e.load(VType(source.dtype, width), params[base_of(source)], place, int(width > 1), None, mask)
            if by_row:
                to = Affine(fixed, ((grid, node.shape[axis] * after), (row, after), *inner))
            else:
                to = scatter_place(e, node, source, axis, grid, row, position, after)
            total = value
            if not node.op.endswith("_set"):
                total = combined(e, node, e.load(VType(node.dtype, width), out, to, int(width > 1), None, mask), value)
            e.store(out, to, total, int(width > 1), None, mask)

        e.pinned = True  # what is read may just have been written
        whole = after // lanes * lanes
        if whole:
            with e.loop("j", 0, whole, lanes) as j:
                write(j.var, lanes, None)
        if after - whole:
            write(whole, lanes, e.op("lt", e.lanes(i64, lanes), after - whole))
    size = source.type.size
    kernel = Kernel(name, (*params.values(), out), before, grid, tuple(e.body), size, size * 3 * node.dtype.itemsize)
    return Lowered(kernel, (*params, node))


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
