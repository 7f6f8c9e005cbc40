"""Kernels for running results along an axis: one chain for each line of elements, lines side by side in the lanes."""

from __future__ import annotations

import math

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.types import DType, bf16, boolean, f16, f32, f64, i64

_COMBINE = {"scan_sum": "add", "scan_prod": "mul", "scan_max": "maximum", "scan_min": "minimum"}


CHAINS = 4  # an addition takes about as many cycles
WIDE_CHAINS = 8  # vectors side by side: they are in the same cache lines, and in the same pages


def running_dtype(dtype: DType) -> DType:
    """The dtype in which running values of `dtype` are kept: floats in a wider one."""
    return f32 if dtype in (f16, bf16) else f64 if dtype is f32 else dtype


def lower_scan(node: Node, name: str, target: Target) -> Lowered:
    """The kernel of one scan: for each index of its parallel range some chains side by side, which do not wait for one
    another. They lie in neighbouring vectors of the dimensions after the axis, or where those fill one vector only, in
    neighbouring places before it. The last chains are moved back so that they end with the tensor.
    """
    axis, reverse = node.integer("axis"), bool(node.attr("reverse"))
    before, n, after = math.prod(node.shape[:axis]), node.shape[axis], math.prod(node.shape[axis + 1 :])
    dtype = running_dtype(node.dtype)
    lanes = min(target.lanes(max(4, dtype.itemsize)), 1 << (after - 1).bit_length())
    blocks = -(-after // lanes)
    among, unit, apart, most = (before, 1, n * after, CHAINS) if blocks == 1 else (after, lanes, lanes, WIDE_CHAINS)
    chains = max(1, min(most, among // unit, before * blocks // target.cores))
    groups = -(-among // (chains * unit))
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    group = grid if blocks == 1 else e.op("mod", grid, groups)
    first = e.op("mul", group, chains * unit)
    if among % (chains * unit):
        first = e.op("select", e.op("lt", first, among - chains * unit), first, among - chains * unit)
    terms = ((first, n * after),) if blocks == 1 else ((e.op("floordiv", grid, groups), n * after), (first, 1))
    mask = e.op("lt", e.lanes(i64, lanes), after) if after < lanes else None
    params = {
        x: Param(f"p{i}", x.dtype, x.type.size, "in") for i, x in enumerate(dict.fromkeys(map(base_of, node.inputs)))
    }
    out = Param(f"p{len(params)}", node.dtype, node.type.size, "out")
    stride = int(lanes > 1)

    def place(chain: int, k: Value | None) -> Affine:
        """Where element `k` of a chain lies; its first one for None."""
        step = -after if reverse else after
        start = (n - 1) * after if reverse else 0
        return Affine(start + chain * apart, (*terms, *(((k, step),) if k is not None else ())))

    def load(operand: Node, chain: int, k: Value | None) -> Value:
        raw = e.load(VType(operand.dtype, lanes), params[base_of(operand)], place(chain, k), stride, None, mask)
        return expand_cast(e, raw, dtype)

    def store(value: Value, chain: int, k: Value | None) -> None:
        e.store(out, place(chain, k), expand_cast(e, value, node.dtype), stride, None, mask)

    starts: list[Value] = []
    for chain in range(chains):
        start = load(node.inputs[-1], chain, None)
        starts.append(e.op("add", start, 0.0 if dtype.is_float else 0) if node.op == "scan_sum" else start)
        store(starts[chain], chain, None)
    with e.loop("k", 1, n, 1, tuple(starts)) as k:
        totals: list[Value] = []
        for chain, before_it in enumerate(k.phis):
            value = load(node.inputs[-1], chain, k.var)
            if node.op == "recurrence":
                total = e.op("add", e.op("mul", load(node.inputs[0], chain, k.var), before_it), value)
            else:
                total = e.op(combination(node), before_it, value)
            store(total, chain, k.var)
            totals.append(total)
        k.yields = tuple(totals)
    size = node.type.size
    moved = (len(node.inputs) + 1) * size * node.dtype.itemsize
    count = groups if blocks == 1 else before * groups
    kernel = Kernel(name, (*params.values(), out), count, grid, tuple(e.body), size * len(node.inputs), moved)
    return Lowered(kernel, (*params, node))


def combination(node: Node) -> str:
    """The operation that combines what a scan has so far with the next element."""
    if node.dtype is boolean:
        return "or" if node.op == "scan_max" else "and"
    return _COMBINE[node.op]
