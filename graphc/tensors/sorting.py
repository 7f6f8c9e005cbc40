"""Sorting and searching: kernels find orders, values are taken at them, so that gradients flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, f64, i32, i64
from graphc.promotion import promote_types
from graphc.tensors import results
from graphc.tensors.core import TensorBase, from_array, record, record_many, wrap_dim
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.operands import is_number
from graphc.tensors.out import out_form
from graphc.tensors.reductions import check_keepdim, need_extent, reduction, whole
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def order_node(b: Builder, x: Node, axis: int, descending: bool = False) -> Node:
    """The places that sort x along `axis`, ties in their order, NaN as the largest; 0 for no dimension."""
    if not x.shape:
        return b.constant(0, x.type.with_dtype(i64))
    return b.apply("argsort", (x,), {"axis": axis, "descending": descending})


def taken(b: Builder, x: Node, places: Node, axis: int) -> Node:
    """The elements of x at `places` along `axis`."""
    if not x.shape:
        return x
    if places.type.size == 0:  # nothing to read, but gradients are zeros rather than none
        start, size = (0,) * x.type.rank, places.shape
        return b.slice(x, start, tuple(min(n, m) for n, m in zip(size, x.shape, strict=True)), (1,) * x.type.rank)
    return b.apply("take_along", (x, places), {"axis": axis})


def first_places(b: Builder, places: Node, axis: int, start: int, count: int) -> Node:
    """`count` of the `places` along `axis`, from `start` on."""
    if not places.shape:
        return places
    starts = tuple(start if i == axis else 0 for i in range(places.type.rank))
    size = tuple(count if i == axis else n for i, n in enumerate(places.shape))
    return b.slice(places, starts, size, (1,) * places.type.rank)


def order_part(b: Builder, x: Node, axis: int, start: int, count: int, descending: bool = False) -> Node:
    """`count` of the places that sort x along `axis`, from `start` on."""
    if not x.shape or not 0 < 4 * count <= x.shape[axis]:  # to sort all is as fast
        return first_places(b, order_node(b, x, axis, descending), axis, start, count)
    return b.apply("argselect", (x,), {"axis": axis, "descending": descending, "start": start, "count": count})


def _sorted(input: Tensor, dim: int, descending: bool, name: str) -> list[Tensor]:
    axis = wrap_dim(whole(dim, "sort"), input.ndim)

    def emit(b: Builder, x: Node) -> list[Node]:
        places = order_node(b, x, axis, descending)
        return [taken(b, x, places, axis), places]

    return record_many(name, (input,), emit)


@reduction
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = None) -> Any:
    """Values in order along `dim`, and where they stood. Equal elements always keep their order; NaN is the largest."""
    name = "SortBackward0" if stable is None else "SortBackward1"
    return results.sort(*_sorted(input, dim, bool(descending), name))


@reduction
def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Tensor:
    """The places that `sort` takes along `dim`."""
    axis = wrap_dim(whole(dim, "argsort"), input.ndim)
    return record("NotDifferentiable", (input,), lambda b, x: order_node(b, x, axis, bool(descending)))


@out_form
def msort(input: Tensor) -> Tensor:
    """Values in order along the first dimension."""
    return _sorted(input, 0, False, "SortBackward0")[0]


@reduction
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The `k` largest (or smallest) elements along `dim`, in order, and where they stand."""
    axis = wrap_dim(whole(dim, "topk"), input.ndim)
    count = whole(k, "topk", "k")
    if input._type.dtype is boolean:
        raise DTypeError("topk does not support bool dtypes on CPU")
    if not 0 <= count <= (input._type.shape[axis] if input.ndim else 1):
        raise UsageError("selected index k out of range")

    def emit(b: Builder, x: Node) -> list[Node]:
        places = order_part(b, x, axis, 0, count, bool(largest))
        return [taken(b, x, places, axis), places]

    return results.topk(*record_many("TopkBackward0", (input,), emit))


def without(b: Builder, x: Node, axis: int, keepdim: bool) -> Node:
    """x without `axis`, which has one element, unless `keepdim`."""
    check_keepdim(keepdim)
    return x if keepdim or not x.shape else b.reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))


@reduction
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The `k`-th smallest element along `dim` (counted from 1), and where it stands."""
    axis = wrap_dim(whole(dim, "kthvalue"), input.ndim)
    if input._type.dtype is boolean:
        raise UnsupportedError("\"kthvalue_cpu\" not implemented for 'Bool'")
    need_extent(input, axis, "kthvalue")
    if not 1 <= whole(k, "kthvalue", "k") <= (input._type.shape[axis] if input.ndim else 1):
        raise UsageError(f"kthvalue(): selected number k out of range for dimension {axis}")

    def emit(b: Builder, x: Node) -> list[Node]:
        places = order_part(b, x, axis, k - 1, 1)
        return [without(b, n, axis, keepdim) for n in (taken(b, x, places, axis), places)]

    return results.kthvalue(*record_many("KthvalueBackward0", (input,), emit))


# searching


def _right(name: str, side: str | None, right: bool) -> bool:
    if side is None:
        return right
    if side not in ("left", "right"):
        raise UsageError(f"torch.{name}(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise UsageError(
            f"torch.{name}(): side and right can't be set to opposites, got side of left while right was True"
        )
    return side == "right"


@kinds_checked
@out_form
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where elements of `input` belong in the sorted rows of `sorted_sequence`: before equal elements, or after them
    (`right`).
    """
    after = _right("searchsorted", side, right)
    rows = sorted_sequence._type.shape
    values = input._type.shape if isinstance(input, TensorBase) else ()
    if not rows:
        raise UsageError("torch.searchsorted(): boundaries tensor should have positive dimension, but got 0 dimension")
    if not values and len(rows) != 1:
        raise UsageError(
            "torch.searchsorted(): input value can be a scalar only when boundaries tensor dimension is 1, but we got "
            f"boundaries tensor dim({len(rows)}) and input value's dim(0) numel(1)"
        )
    if len(rows) != 1 and rows[:-1] != values[:-1]:
        raise UsageError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries "
            f"tensor and input value tensor must match, but we got boundaries tensor {list(rows)} and input value "
            f"tensor {list(values)}"
        )
    if sorter is not None:
        _check_sorter(sorted_sequence, sorter)
        sorted_sequence = record(
            "NotDifferentiable",
            (sorted_sequence.detach(), sorter),
            lambda b, x, places: taken(b, x, places, len(rows) - 1),
        )
    return _search(sorted_sequence, input, after, out_int32)


def _check_sorter(sequence: Tensor, sorter: Tensor) -> None:
    if sorter._type.dtype is not i64:
        raise DTypeError(
            f"torch.searchsorted(): sorter must be a tensor of long dtype but got dtype {type_name(sorter._type.dtype)}"
        )
    if sorter._type.shape != sequence._type.shape:
        raise UsageError(
            "torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
            f"{list(sequence._type.shape)} and got sorter tensor {list(sorter._type.shape)}"
        )


def _search(sequence: Tensor, values: Any, right: bool, out_int32: bool) -> Tensor:
    given: Tensor = _number(values, sequence) if is_number(values) else values.detach()

    def emit(b: Builder, rows: Node, x: Node) -> Node:
        dtype = x.dtype
        if dtype is not rows.dtype:
            dtype = promote_types(dtype, rows.dtype)
        flat = x if x.shape else b.reshape(x, (1,))
        found = b.apply("searchsorted", (b.cast(rows, dtype), b.cast(flat, dtype)), {"right": right})
        return b.cast(b.reshape(found, x.shape), i32 if out_int32 else i64)

    return record("NotDifferentiable", (sequence.detach(), given), emit)


def _number(value: Any, like: Tensor) -> Tensor:
    """A Python number as a tensor; a fraction keeps its digits against integers."""
    dtype = like._type.dtype if like._type.dtype.is_float or isinstance(value, int) else f64
    return from_array(np.array(value), dtype, like._type.device)


@out_form
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The bucket between sorted `boundaries` that each element falls into; see `searchsorted`."""
    if boundaries.ndim != 1:
        raise UsageError(f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return _search(boundaries, input, right, out_int32)
