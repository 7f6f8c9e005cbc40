"""Kernels for running results along an axis: one chain for each line of elements, lines side by side in the lanes."""

from __future__ import annotations

import math

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lower import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.types import DType, bf16, boolean, f16, f32, f64, i64

_COMBINE = {"scan_sum": "add", "scan_prod": "mul", "scan_max": "maximum", "scan_min": "minimum"}


def running_dtype(dtype: DType) -> DType:
    """The dtype in which running values of `dtype` are kept: floats in a wider one."""
    return f32 if dtype in (f16, bf16) else f64 if dtype is f32 else dtype


def lower_scan(node: Node, name: str, target: Target) -> Lowered:
    """The kernel of one scan. Its parallel range covers the dimensions before the axis and blocks of those after it."""
    axis, reverse = node.integer("axis"), bool(node.attr("reverse"))
    before, n, after = math.prod(node.shape[:axis]), node.shape[axis], math.prod(node.shape[axis + 1 :])
    dtype = running_dtype(node.dtype)
    lanes = min(target.lanes(max(4, dtype.itemsize)), 1 << (after - 1).bit_length())
    blocks = -(-after // lanes)
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    row, first = grid, Affine()
    mask: Value | None = None
    if blocks > 1:
        row = e.op("floordiv", grid, blocks)
        first = Affine(0, ((e.op("mod", grid, blocks), lanes),))
    if after % lanes:
        left: Value | int = after
        for block, size in first.terms:
            left = e.op("sub", after, e.op("mul", block, size))
        mask = e.op("lt", e.lanes(i64, lanes), left)
    params = {
        x: Param(f"p{i}", x.dtype, x.type.size, "in") for i, x in enumerate(dict.fromkeys(map(base_of, node.inputs)))
    }
    out = Param(f"p{len(params)}", node.dtype, node.type.size, "out")
    stride = int(lanes > 1)

    def place(k: Value | None) -> Affine:
        """Where element `k` of the chain lies; its first one for None."""
        step = -after if reverse else after
        start = (n - 1) * after if reverse else 0
        return Affine(start, ((row, n * after), *first.terms, *(((k, step),) if k is not None else ())))

    def load(operand: Node, k: Value | None) -> Value:
        raw = e.load(VType(operand.dtype, lanes), params[base_of(operand)], place(k), stride, None, mask)
        return expand_cast(e, raw, dtype)

    def store(value: Value, k: Value | None) -> None:
        e.store(out, place(k), expand_cast(e, value, node.dtype), stride, None, mask)

    start = load(node.inputs[-1], None)
    if node.op == "scan_sum":
        start = e.op("add", start, 0.0 if dtype.is_float else 0)
    store(start, None)
    with e.loop("k", 1, n, 1, (start,)) as k:
        value = load(node.inputs[-1], k.var)
        if node.op == "recurrence":
            total = e.op("add", e.op("mul", load(node.inputs[0], k.var), k.phis[0]), value)
        else:
            total = e.op(_combination(node), k.phis[0], value)
        store(total, k.var)
        k.yields = (total,)
    size = node.type.size
    moved = (len(node.inputs) + 1) * size * node.dtype.itemsize
    kernel = Kernel(name, (*params.values(), out), before * blocks, grid, tuple(e.body), size * len(node.inputs), moved)
    return Lowered(kernel, (*params, node))


def _combination(node: Node) -> str:
    if node.dtype is boolean:
        return "or" if node.op == "scan_max" else "and"
    return _COMBINE[node.op]
