"""Sums over rows: reductions whose operand is gone through row by row, each row being added to one that is kept.

The rows are cut into *parts*, each with a row of its own to add to, so that what is added to what depends on shapes
alone. A second reduction adds the parts up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.ir.demand import base_of, needs_loop
from graphc.ir.node import Node
from graphc.ir.schedule import Root
from graphc.ir.types import f32, f64

LONG = 1 << 21  # bytes of an operand that no cache near a core holds
WIDE_ROW = 512  # bytes; shorter rows are read in order anyway
LEAST_PARTS = 8


def sums_rows(node: Node) -> bool:
    """Whether `node` sums rows that lie one after the other, and there is much of them."""
    if node.op != "reduce_sum" or node.dtype not in (f32, f64) or node.inputs[0].type.nbytes < LONG:
        return False
    axes, shape = node.ints("axes"), node.inputs[0].shape
    in_order = axes == tuple(range(axes[0], axes[-1] + 1))
    return in_order and math.prod(shape[axes[-1] + 1 :]) * node.dtype.itemsize >= WIDE_ROW


def is_row_sum(node: Node) -> bool:
    """Whether `node` sums many long rows, in parts that its first dimensions count."""
    if not sums_rows(node) or not needs_loop(node):
        return False
    return _parts(node) >= LEAST_PARTS


def row_sum_root(node: Node) -> Root:
    """How a kernel stores the row sum `node`: it goes over the rows of the value that is summed."""
    scatter: tuple[Node, ...] = (node,)
    value = node.inputs[0]
    base, width = base_of(value), math.prod(node.shape[node.ints("axes")[0] :])
    if base is not value and _rows(base.shape, width) is not None and _cut(base.shape, _parts(node)) is not None:
        while value is not base:
            scatter, value = (value, *scatter), value.inputs[0]
    return Root(value, tuple(range(value.type.rank)), scatter)


def cut_of(roots: Sequence[Root], domain: tuple[int, ...]) -> tuple[int, int] | None:
    """Where the rows of the sums among `roots` are cut into parts: the axis of `domain`, and how many of its pieces
    belong to different parts. None without sums; ValueError where they do not go over the same rows in the same parts.
    """
    found: set[tuple[int, int]] = set()
    for root in roots:
        if not root.adds:
            continue
        node = root.scatter[-1]
        rows = _rows(root.value.shape, math.prod(node.shape[node.ints("axes")[0] :]))
        cut = None if rows is None else _cut(root.value.shape[:rows], _parts(node))
        if rows is None or cut is None or root.dims[:rows] != tuple(range(rows)):
            raise ValueError("the rows of a sum are not the first axes of its kernel")
        if any(0 <= d < rows for d in root.dims[rows:]) or root.value.shape[:rows] != domain[:rows]:
            raise ValueError("the rows of a sum are not the first axes of its kernel")
        found.add(cut)
    if len(found) > 1:
        raise ValueError("sums in different parts share a kernel")
    return next(iter(found), None)


def row_axes(root: Root) -> int:
    """The dimensions of what a row sum adds up that count rows."""
    node = root.scatter[-1]
    rows = _rows(root.value.shape, math.prod(node.shape[node.ints("axes")[0] :]))
    assert rows is not None
    return rows


def choose_parts(shape: tuple[int, ...], most: int) -> int:
    """The largest number of parts up to `most` that rows, counted by the dimensions `shape`, can be cut into."""
    best, before = 1, 1
    for extent in shape:
        best = max(best, *(before * k for k in range(1, extent + 1) if extent % k == 0 and before * k <= most), 1)
        before *= extent
    return best


def _parts(node: Node) -> int:
    return math.prod(node.inputs[0].shape[: node.ints("axes")[0]])


def _rows(shape: tuple[int, ...], width: int) -> int | None:
    """How many of the first dimensions count rows of `width` elements."""
    places = 1
    for number in range(len(shape) - 1, -1, -1):
        places *= shape[number]
        if places == width:
            return number
    return None


def _cut(shape: tuple[int, ...], parts: int) -> tuple[int, int] | None:
    """The dimension that is cut so that the places before and the pieces of it are `parts`, and these pieces."""
    before = 1
    for number, extent in enumerate(shape):
        pieces, rest = divmod(parts, before)
        if rest:
            return None
        if pieces <= extent:
            return (number, pieces) if extent % pieces == 0 else None
        before *= extent
    return None
