"""Orders of elements, and places in them. Kernels of their own compute these (`graphc/codegen/sorting.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.node import Node
from graphc.ir.opdef import Attr, Attrs, OpDef, register
from graphc.ir.ops.checks import check_arity, check_axis, check_device, check_same_dtype, widen
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def _infer_argsort(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("argsort", types, 1)
    check_axis("argsort", attrs["axis"], types[0])
    return types[0].with_dtype(i64)


def _evaluate_argsort(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    x, axis = widen(arrays[0]), attrs["axis"]
    if not attrs["descending"]:
        return np.argsort(x, axis=axis, kind="stable")
    # Backwards twice: equal elements keep their order, and NaN, the largest, comes first.
    return np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)


ARGSORT = register(
    OpDef(
        name="argsort",
        kind="sorting",
        arity=1,
        doc="Indices (i64) that sort along `axis`; equal elements keep their order, NaN is the largest. Any dtype.",
        infer=_infer_argsort,
        evaluate=_evaluate_argsort,
        attrs=(Attr("axis", "int"), Attr("descending", "bool")),
        why_no_vjp="zero: indices do not depend smoothly on the elements",
    )
)


def _infer_sort(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("sort", types, 1)
    check_axis("sort", attrs["axis"], types[0])
    return types[0]


def _evaluate_sort(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.take_along_axis(arrays[0], _evaluate_argsort(arrays, attrs, type), attrs["axis"])


def _sort_vjp(b: Builder, node: Node, ct: Node) -> Gradients:
    (x,) = node.inputs
    places = b.apply("argsort", (x,), dict(node.attrs))
    return [b.apply("scatter_add", (b.zeros_like(x), places, ct), {"axis": node.integer("axis")})]


SORT = register(
    OpDef(
        name="sort",
        kind="sorting",
        arity=1,
        doc="The elements in the order of `argsort`, for less work where nobody wants their indices. Any dtype.",
        infer=_infer_sort,
        evaluate=_evaluate_sort,
        attrs=(Attr("axis", "int"), Attr("descending", "bool")),
        vjp=_sort_vjp,
    )
)


def _infer_argselect(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("argselect", types, 1)
    (x,), axis, start, count = types, attrs["axis"], attrs["start"], attrs["count"]
    check_axis("argselect", axis, x)
    if start < 0 or count < 0 or start + count > x.shape[axis]:
        raise ShapeError(f"argselect: places {start} to {start + count} are not all in axis {axis} of {x}")
    return x.with_shape((*x.shape[:axis], count, *x.shape[axis + 1 :])).with_dtype(i64)


def _evaluate_argselect(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    order = _evaluate_argsort(arrays, attrs, type)
    return np.take(order, range(attrs["start"], attrs["start"] + attrs["count"]), attrs["axis"])


ARGSELECT = register(
    OpDef(
        name="argselect",
        kind="sorting",
        arity=1,
        doc="The `count` indices of `argsort` along `axis` that begin at `start`, for less work where they are few.",
        infer=_infer_argselect,
        evaluate=_evaluate_argselect,
        attrs=(Attr("axis", "int"), Attr("descending", "bool"), Attr("start", "int"), Attr("count", "int")),
        why_no_vjp="zero: indices do not depend smoothly on the elements",
    )
)


def _infer_searchsorted(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("searchsorted", types, 2)
    check_device("searchsorted", types)
    check_same_dtype("searchsorted", types)
    rows, x = types
    if rows.rank == 0 or x.rank == 0 or (rows.rank > 1 and rows.shape[:-1] != x.shape[:-1]):
        raise ShapeError(
            f"searchsorted: the rows are one row for all, or have all dimensions of x but the last; got {rows} and {x}"
        )
    return x.with_dtype(i64)


def _evaluate_searchsorted(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """Binary search of all elements at once. What is not below the middle goes left, so NaN ends at the right."""
    rows, x = map(widen, arrays)
    rows = np.broadcast_to(rows, (*x.shape[:-1], rows.shape[-1]))
    low, high = np.zeros(x.shape, np.int64), np.full(x.shape, rows.shape[-1], np.int64)
    for _ in range(rows.shape[-1].bit_length()):
        middle = (low + high) // 2
        at = np.take_along_axis(rows, np.minimum(middle, rows.shape[-1] - 1), -1)
        left = at > x if attrs["right"] else at >= x
        active = low < high
        high = np.where(active & left, middle, high)
        low = np.where(active & ~left, middle + 1, low)
    return low


SEARCHSORTED = register(
    OpDef(
        name="searchsorted",
        kind="sorting",
        arity=2,
        doc=(
            "Where each element of x belongs in its sorted row (i64): before equal elements, or after them with "
            "`right`. Rows of one dimension serve all elements. Any dtype."
        ),
        infer=_infer_searchsorted,
        evaluate=_evaluate_searchsorted,
        attrs=(Attr("right", "bool"),),
        why_no_vjp="zero: places do not depend smoothly on the elements",
    )
)
