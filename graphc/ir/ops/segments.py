"""Elements that go to one place, one after the other in an order: `index_add` where a GPU sorts its indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import (
    check_arity,
    check_axis,
    check_device,
    check_group,
    check_index,
    check_same_dtype,
    narrow,
    shown,
    widen,
)
from graphc.ir.ops.scattering import combine_at
from graphc.ir.types import TensorType

MODES = ("add", "prod", "max", "min")


def _infer_segment_reduce(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    op, axis = "segment_reduce", attrs["axis"]
    check_arity(op, types, 4)
    check_device(op, types)
    x, order, starts, src = types
    check_axis(op, axis, x)
    for index in (order, starts):
        check_index(op, index)
    check_same_dtype(op, (x, src))
    check_group(op, x, "number")
    if attrs["mode"] not in MODES:
        raise ShapeError(f"{op}: mode is one of {', '.join(MODES)}, got {attrs['mode']!r}")
    wanted = (*x.shape[:axis], *order.shape, *x.shape[axis + 1 :])
    if order.rank != 1 or starts.shape != (x.shape[axis] + 1,) or src.shape != wanted:
        raise ShapeError(
            f"{op}: there are {x.shape[axis]} segments, so {x.shape[axis] + 1} places where they start and end, and "
            f"the order has a place for each element of the source along dimension {axis}; "
            f"operand, order, starts, source: {shown(types)}"
        )
    return x


def _evaluate_segment_reduce(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    x, order, starts, src = arrays
    axis, count = attrs["axis"], len(order)
    ends = np.clip(starts.astype(np.int64), 0, count)
    counts = np.maximum(np.diff(ends), 0)
    places = np.arange(counts.sum()) + np.repeat(ends[:-1] - np.cumsum(counts) + counts, counts)
    rows = np.repeat(np.arange(x.shape[axis]), counts)
    elements = np.take(src, np.clip(order[places], 0, max(count - 1, 0)), axis)
    return narrow(combine_at(widen(x), (*(slice(None),) * axis, rows), widen(elements), attrs["mode"]), type)


SEGMENT_REDUCE = register(
    OpDef(
        name="segment_reduce",
        kind="indexing",
        arity=4,
        doc="x combined, by `mode` (add, prod, max, min), along `axis` in row r with the elements of `src` at "
        "`order[starts[r]:starts[r + 1]]`.",
        infer=_infer_segment_reduce,
        evaluate=_evaluate_segment_reduce,
        attrs=(Attr("axis", "int"), Attr("mode", "str")),
        why_no_vjp="undefined: it is made of `index_add` and its like, which have one",
    )
)
