"""Kernels for running results along an axis: the lanes lie along a row, or else lines of elements side by side in the
lanes, one chain for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

from graphc.codegen.crossing import WORD
from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand, expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.types import DType, bf16, boolean, f16, f32, f64, i32, i64, identity
from graphc.ir.visit import topological

_COMBINE = {"scan_sum": "add", "scan_prod": "mul", "scan_max": "maximum", "scan_min": "minimum"}


CHAINS = 4  # an addition takes about as many cycles
ALONG = 8  # elements of a row from which on the lanes go along it
VECTORS = 4  # of a row that are put together before what came before them is combined with them
WIDE_CHAINS = 8  # vectors side by side: they are in the same cache lines, and in the same pages


def running_dtype(dtype: DType) -> DType:
    """The dtype in which running values of `dtype` are kept: floats in a wider one."""
    return f32 if dtype in (f16, bf16) else f64 if dtype is f32 else dtype


def block_dtype(node: Node) -> DType:
    """The dtype in which the elements of a block of a row are combined: their own, or one of 32 bits for shorter ones.
    What came before a block is kept in that dtype too, but for sums: theirs is `running_dtype`.
    """
    return f32 if node.dtype in (f16, bf16) else i32 if node.dtype.itemsize < WORD else node.dtype


class _Operands:
    """What a scan reads: values in memory, `params`, and what of `inside` is computed of their elements at a place."""

    def __init__(self, e: ScopedEmitter, node: Node, inside: frozenset[Node]) -> None:
        self.params: dict[Node, Param] = {}
        self._e = e
        self._inside = inside
        for x in map(base_of, self._order(node.inputs)):
            if x not in inside and x not in self.params and x.op != "constant":
                self.params[x] = Param(f"p{len(self.params)}", x.dtype, x.type.size, "in")

    def _order(self, nodes: Iterable[Node]) -> list[Node]:
        return topological(nodes, lambda n: base_of(n) not in self._inside)

    def load(self, operand: Node, lanes: int, place: Affine, stride: int, mask: Value | None) -> Value:
        """The elements of an operand at a place."""
        e, values = self._e, dict[Node, Value]()
        for node in self._order([operand]):
            base = base_of(node)
            if base.op == "constant":
                values[node] = e.const(base.attr("value"), VType(base.dtype))  # type: ignore[arg-type]
            elif base not in self._inside:
                param = self.params[base]
                is_number = param.size == 1 < operand.type.size
                at = (Affine(0, ()), 0, None, None) if is_number else (place, stride, None, mask)
                values[node] = e.load(VType(base.dtype, 1 if is_number else lanes), param, *at)
            elif node.op in ("reshape", "broadcast"):  # of a number
                values[node] = values[node.inputs[0]]
            elif node.op == "cast":
                values[node] = expand_cast(e, values[node.inputs[0]], node.dtype)
            elif node.op == "bitcast":
                values[node] = e.op("bitcast", values[node.inputs[0]], to=node.dtype)
            else:
                values[node] = expand(e, node.op, *(values[x] for x in node.inputs))
        return e.splat(values[operand], lanes)

    def work(self, node: Node) -> tuple[int, int]:
        """How many operations the scan takes, and how many bytes it reads and writes."""
        computed = sum(n.type.size for n in self._inside if OPS[n.op].kind == "elementwise")
        moved = sum(p.size * p.dtype.itemsize for p in self.params.values())
        return computed + node.type.size * len(node.inputs), moved + node.type.nbytes


def lower_scan(node: Node, inside: frozenset[Node], name: str, target: Target) -> Lowered:
    """The kernel of one scan: for each index of its parallel range some chains side by side, which do not wait for one
    another. They lie in neighbouring vectors of the dimensions after the axis, or where those fill one vector only, in
    neighbouring places before it. The last chains are moved back so that they end with the tensor.
    """
    axis, reverse = node.integer("axis"), bool(node.attr("reverse"))
    before, n, after = math.prod(node.shape[:axis]), node.shape[axis], math.prod(node.shape[axis + 1 :])
    dtype = running_dtype(node.dtype)
    # Products are computed one by one: in another order they leave the range of floats elsewhere, and are NaN.
    one_by_one = node.op == "recurrence" or (node.op == "scan_prod" and dtype.is_float)
    has_lanes = target.lanes(max(WORD, block_dtype(node).itemsize)) > 1
    if after == 1 and n >= ALONG and has_lanes and not one_by_one and node.dtype is not boolean:
        return _lower_along(node, inside, name, target)
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
    operands = _Operands(e, node, inside)
    params = operands.params
    out = Param(f"p{len(params)}", node.dtype, node.type.size, "out")
    stride = int(lanes > 1)

    def place(chain: int, k: Value | None) -> Affine:
        """Where element `k` of a chain lies; its first one for None."""
        step = -after if reverse else after
        start = (n - 1) * after if reverse else 0
        return Affine(start + chain * apart, (*terms, *(((k, step),) if k is not None else ())))

    def load(operand: Node, chain: int, k: Value | None) -> Value:
        return expand_cast(e, operands.load(operand, lanes, place(chain, k), stride, mask), dtype)

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
    count = groups if blocks == 1 else before * groups
    kernel = Kernel(name, (*params.values(), out), count, grid, tuple(e.body), *operands.work(node))
    return Lowered(kernel, (*params, node))


def _lower_along(node: Node, inside: frozenset[Node], name: str, target: Target) -> Lowered:
    """The kernel of a scan along the last axis, but for such of one place, row by row in the order of memory, with the
    lanes along the row.

    The lanes of a vector are combined in as many rounds as its number of lanes has bits; each combines them with those
    so many places before them: twice as many each time. The vectors of a block are put together in pairs, and what was
    there before the block is combined with all of it last.
    """
    (x,), reverse, n = node.inputs, bool(node.attr("reverse")), node.shape[node.integer("axis")]
    dtype, combine = block_dtype(node), combination(node)
    carried = running_dtype(dtype) if node.op == "scan_sum" else dtype
    lanes = target.lanes(max(WORD, dtype.itemsize))
    e = ScopedEmitter()
    grid = e.bind(Value(INDEX, "g"))
    operands = _Operands(e, node, inside)
    out = Param(f"p{len(operands.params)}", node.dtype, node.type.size, "out")
    # Of floats -0.0: for lanes moved up beside zeros LLVM chooses an instruction that takes twice as long.
    start_of = partial(identity, node.op.removeprefix("scan_"))
    nothing = -0.0 if node.op == "scan_sum" and dtype.is_float else start_of(dtype)
    neutral, end = e.const(nothing, VType(dtype, lanes)), 0 if reverse else lanes - 1

    def combined(value: Value) -> Value:
        """The running values of a vector."""
        apart = 1
        while apart < lanes:
            before = e.splice(value, neutral, apart) if reverse else e.splice(neutral, value, lanes - apart)
            value = e.op(combine, before, value)
            apart *= 2
        return value

    def block(start: int, k: Value | None, count: int, total: Value) -> Value:
        """`count` places from `start` (and `k`) on in the order of the scan; gives the running value after them."""
        terms = ((grid, n), *(((k, -1 if reverse else 1),) if k is not None else ()))
        vectors: list[tuple[Affine, Value | None, Value]] = []
        for first in range(start, start + count, lanes):
            size = min(lanes, start + count - first)
            place = Affine(n - first - size if reverse else first, terms)
            mask = e.op("lt", e.lanes(i64, lanes), size) if size < lanes else None
            value = expand_cast(e, operands.load(x, lanes, place, 1, mask), dtype)
            vectors.append((place, mask, combined(value if mask is None else e.op("select", mask, value, neutral))))
        running = [value for _, _, value in vectors]
        apart = 1
        while apart < len(running):
            for middle in range(apart, len(running), 2 * apart):
                before = e.splat(e.part(running[middle - 1], end, 1), lanes)
                for at in range(middle, min(middle + apart, len(running))):
                    running[at] = e.op(combine, before, running[at])
            apart *= 2
        before = e.splat(expand_cast(e, total, dtype), lanes)
        for (place, mask, _), value in zip(vectors, running, strict=True):
            made = expand_cast(e, e.op(combine, before, value), node.dtype)
            e.store(out, place, made, 1, None, mask)
        return e.op(combine, total, expand_cast(e, e.part(running[-1], end, 1), carried))

    size = VECTORS * lanes
    whole = n // size * size
    total = e.const(start_of(carried), VType(carried))
    if whole:
        with e.loop("k", 0, whole, size, (total,)) as k:
            k.yields = (block(0, k.var, size, k.phis[0]),)
        (total,) = k.results
    if whole < n:
        block(whole, None, n - whole, total)
    params = operands.params
    kernel = Kernel(name, (*params.values(), out), node.type.size // n, grid, tuple(e.body), *operands.work(node))
    return Lowered(kernel, (*params, node))


def combination(node: Node) -> str:
    """The operation that combines what a scan has so far with the next element."""
    if node.dtype is boolean:
        return "or" if node.op == "scan_max" else "and"
    return _COMBINE[node.op]
