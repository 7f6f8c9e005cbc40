"""Long reductions become reductions of parts: so that memory is read in order, and several cores have work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.contraction import is_plain, parse_spec
from graphc.ir.demand import COMPUTED, HEAVY_MAPS, UNROLLED_REDUCTION, base_of
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.stored import HEAVY, MOVEMENT, SOURCES, movement_base

COMBINE = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "maximum", "reduce_min": "minimum"}
ROWS = 8  # rows read at once: each is a stream of its own, and rows of 4 KB share the places of the first cache
WIDE_ROW = 512  # bytes; shorter rows are read in order anyway
FEW_RESULTS = 128  # fewer elements than that are too few pieces for several cores
PARTS = 64  # pieces of a reduction with few results
LONG = 1 << 21  # bytes that are worth another kernel
MAX_WORK = 32  # operations for one element of what is reduced: it is computed in line for several rows at once


@dataclass(frozen=True)
class SplitReductions(Pass):
    """Reduce a long axis in two steps.

    A reduction over rows (the columns run across lanes) takes a few rows at a time, each read from end to end. One with
    few results first gives a result for each of up to 64 parts of its first axis. Parts depend on shapes alone, so
    that sums are the same with any number of threads.
    """

    name: ClassVar[str] = "split_reductions"
    doc: ClassVar[str] = "reduce long axes in parts, which read memory in order and can run at the same time"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, _split)


def _split(b: Builder, node: Node) -> Node | None:
    """What gives the same as `node` in steps; None for what stays as it is."""
    if node.op == "contract":
        total = _sum_of_products(b, node)
        return None if total is None else _split(b, total)
    node = _over_one_axis(b, node) if _is_long(node) else node
    cut = _choose(node) if _is_long(node) else None
    if cut is None:
        return None
    axis, parts = cut
    x, axes = node.inputs[0], node.ints("axes")
    n = x.shape[axis]
    if n % parts:
        middle = n // parts * parts
        head, tail = (_reduce(b, node, _slice(b, x, axis, *ends), axes) for ends in ((0, middle), (middle, n)))
        return b.apply(COMBINE[node.op], (_split(b, head) or head, tail))
    pieces = b.reshape(x, (*x.shape[:axis], parts, n // parts, *x.shape[axis + 1 :]))
    inner = tuple(a + (a >= axis) for a in axes)
    partial = _stored(b, _reduce(b, node, pieces, inner))
    rest = _reduce(b, node, partial, (axis - sum(a < axis for a in axes),))
    return (_split(b, rest) or rest) if _is_long(rest) else _stored(b, rest)


def _over_one_axis(b: Builder, node: Node) -> Node:
    """A reduction of the last axes of a value in memory as one of a single axis, which is read from end to end."""
    x, axes = node.inputs[0], node.ints("axes")
    base, first = base_of(x), min(axes)
    if base.op in MOVEMENT | COMPUTED or OPS[base.op].kind == "elementwise" or node.type.size >= FEW_RESULTS:
        return node
    if len(axes) < 2 or set(axes) != set(range(first, x.type.rank)):
        return node
    return _reduce(b, node, b.reshape(x, (*x.shape[:first], math.prod(x.shape[first:]))), (first,))


def _sum_of_products(b: Builder, node: Node) -> Node | None:
    """An inner product of long operands with equal dimensions as the sum that it is; None for other contractions."""
    x, y = node.inputs
    if x.type.nbytes < LONG or node.dtype.itemsize < 4 or node.type.size >= FEW_RESULTS:
        return None
    spec = parse_spec(node.text("spec"))
    if spec.x != spec.y or not all(map(is_plain, spec.x)):
        return None
    labels = [dim[0][0] for dim in spec.x]
    if tuple(label for label in labels if label in spec.out) != tuple(spec.out):
        return None
    return b.reduce_sum(b.mul(x, y), tuple(d for d, label in enumerate(labels) if label not in spec.out))


def _stored(b: Builder, node: Node) -> Node:
    """The reduction `node` in memory: a short one would otherwise be computed in line wherever it is wanted."""
    short = math.prod(node.inputs[0].shape[a] for a in node.ints("axes")) <= UNROLLED_REDUCTION
    return b.apply("materialize", (node,)) if short else node


def _choose(node: Node) -> tuple[int, int] | None:
    """The axis to cut, and into how many parts."""
    x = node.inputs[0]
    long = [a for a in node.ints("axes") if x.shape[a] > 1]
    if node.type.size < FEW_RESULTS:
        axis = next((a for a in long if x.shape[a] >= ROWS), None)
        if axis is None:
            return None
        parts = _divisor(x.shape[axis], PARTS)
        return axis, parts if 4 * parts >= PARTS else min(PARTS, x.shape[axis])
    if len(long) != 1 or math.prod(x.shape[long[0] + 1 :]) * x.dtype.itemsize < WIDE_ROW:
        return None
    work, streams = _chain(x)
    n, rows = x.shape[long[0]], ROWS if streams == 1 else ROWS // 2
    if n < ROWS * ROWS or work > MAX_WORK:
        return None
    each = _divisor(n, rows)
    return long[0], n // (each if 2 * each >= rows else rows)


def _is_long(node: Node) -> bool:
    return node.op in COMBINE and node.dtype.itemsize >= 4 and node.inputs[0].type.nbytes >= LONG


def _chain(x: Node) -> tuple[int, int]:
    """What computing an element of `x` in line takes: operations, and values of about its size read from memory."""
    work, streams = 0, 0
    stack, seen = [movement_base(x)], {movement_base(x)}
    while stack:
        node = stack.pop()
        if node.op in SOURCES or OPS[node.op].kind != "elementwise":
            streams += node.op not in COMPUTED and 2 * node.type.size > x.type.size
            continue
        work += HEAVY if node.op in HEAVY_MAPS else 1
        operands = {movement_base(i) for i in node.inputs} - seen
        seen |= operands
        stack.extend(operands)
    return work, streams


def _divisor(n: int, most: int) -> int:
    """The largest divisor of `n` up to `most`."""
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def _reduce(b: Builder, node: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """The reduction of `node` of another value, over other axes."""
    return b.apply(node.op, (x,), {**dict(node.attrs), "axes": axes})


def _slice(b: Builder, x: Node, axis: int, lo: int, hi: int) -> Node:
    start = tuple(lo if a == axis else 0 for a in range(x.type.rank))
    size = tuple(hi - lo if a == axis else n for a, n in enumerate(x.shape))
    return b.slice(x, start, size, (1,) * x.type.rank)
