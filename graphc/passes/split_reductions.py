"""Long reductions become reductions of parts: so that memory is read in order, and several cores have work."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, is_plain, parse_spec
from graphc.ir.demand import COMPUTED, HEAVY, UNROLLED_REDUCTION, base_of
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.row_sums import LONG, WIDE_ROW, choose_parts, is_row_sum, sums_rows
from graphc.ir.types import bf16, f16, f32
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.shown import MOVEMENT, SOURCES, movement_base

COMBINE = {"reduce_sum": "add", "reduce_prod": "mul", "reduce_max": "maximum", "reduce_min": "minimum"}
ROWS = 8  # rows read at once: each is a stream of its own, and rows of 4 KB share the places of the first cache
FEW_RESULTS = 128  # fewer elements than that are too few pieces for several cores
PARTS = 64  # pieces of a reduction with few results
MAX_WORK = 32  # operations for one element of what is reduced: it is computed in line for several rows at once

# On a GPU:
LONG_ON_GPU = 1 << 18  # bytes
THREADS = 1 << 17  # wanted for columns, a thread each
COLUMNS = 1 << 21  # bytes from which on columns are cut: of fewer, a block of threads takes one
THREAD_ROWS = 32  # what a thread adds up of a column, at least
BLOCKS = 1 << 12  # wanted for rows, a block of threads each
ROW = 1 << 17  # elements of a row from which on it is cut
BLOCK_ROW = 1 << 13  # elements of a row for a block, at least


@record(slots=False)
class SplitReductions(Pass):
    """Reduce a long axis in two steps.

    A reduction over rows (the columns run across lanes) takes a few rows at a time, each read from end to end. One with
    few results first gives a result for each of up to 64 parts of its first axis. Parts depend on shapes alone, so
    that sums are the same with any number of threads. With `on_gpu` there are enough parts for all of its threads.
    """

    name: ClassVar[str] = "split_reductions"
    doc: ClassVar[str] = "reduce long axes in parts, which read memory in order and can run at the same time"
    requires = (PRIMITIVE,)

    on_gpu: bool = False

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, partial(_split, on_gpu=self.on_gpu))


def _split(b: Builder, node: Node, on_gpu: bool) -> Node | None:
    """What gives the same as `node` in steps; None for what stays as it is."""
    if node.op == "contract":
        if not on_gpu and (few := _few_products(b, node)) is not None:
            return few
        total = _sum_of_products(b, node)
        return None if total is None else _split(b, total, on_gpu)
    long = LONG_ON_GPU if on_gpu else LONG
    if on_gpu and node.op in COMBINE and node.dtype in (f16, bf16):  # parts of a sum keep its accuracy
        wide = _split(b, _reduce(b, node, b.cast(node.inputs[0], f32), node.ints("axes")), on_gpu)
        return None if wide is None else b.cast(wide, node.dtype)
    if not _is_long(node, long):
        return None
    if not on_gpu:
        if is_row_sum(node):
            return None
        parts = _row_sum(b, node)
        if parts is not None:
            rest = _reduce(b, node, parts, (node.ints("axes")[0],))
            return _split(b, rest, on_gpu) or _stored(b, rest)
    node = _over_one_axis(b, node, node.type.size + 1 if on_gpu else FEW_RESULTS)
    cut = _choose_on_gpu(node) if on_gpu else _choose(node)
    if cut is None:
        return None
    axis, parts = cut
    x, axes = node.inputs[0], node.ints("axes")
    n = x.shape[axis]
    if n % parts:
        middle = n // parts * parts
        head, tail = (_reduce(b, node, _slice(b, x, axis, *ends), axes) for ends in ((0, middle), (middle, n)))
        return b.apply(COMBINE[node.op], (_split(b, head, on_gpu) or head, tail))
    pieces = b.reshape(x, (*x.shape[:axis], parts, n // parts, *x.shape[axis + 1 :]))
    inner = tuple(a + (a >= axis) for a in axes)
    some = _stored(b, _reduce(b, node, pieces, inner))
    rest = _reduce(b, node, some, (axis - sum(a < axis for a in axes),))
    if on_gpu or not _is_long(rest, long):
        return _stored(b, rest)
    return _split(b, rest, on_gpu) or rest


def _row_sum(b: Builder, node: Node) -> Node | None:
    """Sums over parts of the rows that `node` sums, along one more dimension before theirs; None where it sums none."""
    (x,), axes = node.inputs, node.ints("axes")
    first, end = axes[0], axes[-1] + 1
    if not sums_rows(node):
        return None
    before, rows, after = x.shape[:first], math.prod(x.shape[first:end]), x.shape[end:]
    wanted = min(max(PARTS // 2, rows // PARTS) // math.prod(before), rows // (UNROLLED_REDUCTION + 1))
    base = base_of(x)
    leading = (base.shape[:d] for d in range(base.type.rank + 1))  # parts begin where those of other kernels can
    shape = next((s for s in leading if not first and math.prod(s) == rows), x.shape[first:end])
    parts = choose_parts(shape, wanted)
    if 4 * parts < wanted:
        return None
    sums = _reduce(b, node, b.reshape(x, (*before, parts, rows // parts, *after)), (first + 1,))
    return sums if is_row_sum(sums) else None


def _over_one_axis(b: Builder, node: Node, few: int) -> Node:
    """A reduction of the last axes of a value in memory as one of a single axis, which is read from end to end, when it
    has fewer than `few` results.
    """
    x, axes = node.inputs[0], node.ints("axes")
    base, first = base_of(x), min(axes)
    if base.op in MOVEMENT | COMPUTED or OPS[base.op].kind == "elementwise" or node.type.size >= few:
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


def _few_products(b: Builder, node: Node) -> Node | None:
    """A short vector times rows of a matrix, no element of which is used twice, as the sum that it is; None for other
    contractions.
    """
    (x, y), spec = node.inputs, parse_spec(node.text("spec"))
    if len(spec.x) < len(spec.y):
        return _few_products(b, b.contract(y, x, format_spec(spec.y, spec.x, spec.out)))
    kept = len(spec.x) - len(spec.y)
    if not kept or not spec.y or not all(map(is_plain, spec.x)) or spec.x[kept:] != spec.y or y.type.size < 2:
        return None
    if spec.out != tuple(dim[0][0] for dim in spec.x[:kept]) or y.type.size > UNROLLED_REDUCTION:
        return None
    if node.dtype.itemsize < 4 or node.type.size < FEW_RESULTS:
        return None
    axes = tuple(range(kept, len(spec.x)))
    return b.reduce_sum(b.mul(x, b.expand_dims(y, tuple(range(kept)), x.shape)), axes)


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


def _choose_on_gpu(node: Node) -> tuple[int, int] | None:
    """The axis to cut, and into how many parts, so that there are threads for all of a GPU.

    Rows (the last axis is reduced) are read by blocks of threads, columns by a thread each.
    """
    x = node.inputs[0]
    wide = [a for a, n in enumerate(x.shape) if n > 1]
    long = [a for a in node.ints("axes") if x.shape[a] > 1]
    if not long:
        return None
    length = math.prod(x.shape[a] for a in long)
    by_rows = long[-1] == wide[-1]
    if length < ROW if by_rows else x.type.nbytes < COLUMNS:
        return None
    wanted, least = (BLOCKS, BLOCK_ROW) if by_rows else (THREADS, THREAD_ROWS)
    parts = min(wanted // node.type.size, length // least)
    outer = long[:-1] or long if by_rows else long  # a block reads the last axis from end to end, if there are others
    axis = next((a for a in outer if x.shape[a] >= parts), max(outer, key=x.shape.__getitem__))
    parts = min(parts, x.shape[axis])
    if parts < 2:
        return None
    even = _divisor(x.shape[axis], parts)
    return axis, even if 4 * even >= parts else parts


def _is_long(node: Node, nbytes: int) -> bool:
    return node.op in COMBINE and node.dtype.itemsize >= 4 and node.inputs[0].type.nbytes >= nbytes


def _chain(x: Node) -> tuple[int, int]:
    """What computing an element of `x` in line takes: operations, and values of about its size read from memory."""
    work, streams = 0, 0
    stack, seen = [movement_base(x)], {movement_base(x)}
    while stack:
        node = stack.pop()
        if node.op in SOURCES or OPS[node.op].kind != "elementwise":
            streams += node.op not in COMPUTED and 2 * node.type.size > x.type.size
            continue
        work += HEAVY if OPS[node.op].is_heavy else 1
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
