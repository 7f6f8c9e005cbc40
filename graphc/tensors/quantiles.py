"""Medians, modes and quantiles: elements at certain places of the sorted order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.ops.scan import shifted
from graphc.ir.types import boolean, f32, f64, i64
from graphc.recording import current
from graphc.tensors import results
from graphc.tensors.core import TensorBase, from_array, record, record_many, wrap_dim
from graphc.tensors.reductions import arg_node, is_nan, need_extent, reduction, whole
from graphc.tensors.sorting import order_node, order_part, taken, without

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _median_place(b: Builder, x: Node, axis: int, skips_nan: bool) -> Node:
    """Where the lower median of x along `axis` stands; the first NaN, if there is one and NaN is not skipped."""
    n = x.shape[axis]
    if not x.dtype.is_float:
        return order_part(b, x, axis, (n - 1) // 2, 1)
    kept = tuple(1 if i == axis else m for i, m in enumerate(x.shape))
    numbers = b.reshape(b.reduce_sum(b.cast(b.apply("eq", (x, x)), i64), (axis,)), kept)
    if skips_nan:
        # NaN is sorted behind all numbers.
        rank = b.elementwise("shift_right", b.elementwise("maximum", b.sub(numbers, 1), 0), 1)
        return b.apply("take_along", (order_node(b, x, axis), rank), {"axis": axis})
    first_nan = arg_node(b, "max", x, (axis,), keepdim=True)
    return b.select(b.elementwise("lt", numbers, n), first_nan, order_part(b, x, axis, (n - 1) // 2, 1))


def _median(name: str, skips_nan: bool, doc: str) -> Callable[..., Any]:
    label = name.capitalize()

    def function(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if input._type.dtype is boolean:
            raise UnsupportedError("\"median_cpu\" not implemented for 'Bool'")
        if dim is None:
            return record(f"{label}Backward0", (input,), lambda b, x: _whole_median(b, x, skips_nan))
        axis = wrap_dim(whole(dim, name), input.ndim)
        need_extent(input, axis, name)

        def emit(b: Builder, x: Node) -> list[Node]:
            if x.type.size == 0 or not x.shape:
                places = b.constant(
                    0, x.type.with_dtype(i64).with_shape(tuple(n if i != axis else 1 for i, n in enumerate(x.shape)))
                )
            else:
                places = _median_place(b, x, axis, skips_nan)
            return [without(b, node, axis, keepdim) for node in (taken(b, x, places, axis), places)]

        return getattr(results, name)(*record_many(f"{label}Backward1", (input,), emit))

    function.__name__, function.__doc__ = name, doc
    return reduction(function)


def _whole_median(b: Builder, x: Node, skips_nan: bool) -> Node:
    """The median of all elements; equal ones share its gradient evenly. NaN (0 for integers) of nothing."""
    if x.type.size == 0:
        nothing = b.constant(float("nan") if x.dtype.is_float else np.iinfo(x.dtype.numpy).min, x.type.with_shape(()))
        return b.add(b.reduce_sum(x, tuple(range(x.type.rank))), nothing)
    flat = b.reshape(x, (x.type.size,))
    middle = b.apply("take_along", (b.apply("detach", (flat,)), _median_place(b, flat, 0, skips_nan)), {"axis": 0})
    if not x.dtype.is_float:
        return b.reshape(b.apply("take_along", (flat, _median_place(b, flat, 0, skips_nan)), {"axis": 0}), ())
    spread = b.broadcast(middle, flat.shape)
    both_nan = b.apply("bitwise_and", (is_nan(b, flat), is_nan(b, spread)))
    equal = b.apply("bitwise_or", (b.apply("eq", (flat, spread)), both_nan))
    return b.reduce_max(b.select(equal, flat, float("-inf")), (0,))


median = _median("median", False, "The lower median, of all elements or along `dim` with its place; NaN if any is NaN.")
nanmedian = _median("nanmedian", True, "The lower median of what is not NaN, of all or along `dim` with its place.")


@reduction
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along `dim` (the smallest of several), and the last place where it stands."""
    axis = wrap_dim(whole(dim, "mode"), input.ndim)
    need_extent(input, axis, "mode")

    def emit(b: Builder, x: Node) -> list[Node]:
        if x.type.size == 0 or not x.shape:
            kept = tuple(n if i != axis else 1 for i, n in enumerate(x.shape))
            places = b.constant(0, x.type.with_dtype(i64).with_shape(kept))
        else:
            places = _mode_place(b, x, axis)
        return [without(b, node, axis, keepdim) for node in (taken(b, x, places, axis), places)]

    return results.mode(*record_many("ModeBackward0", (input,), emit))


def _mode_place(b: Builder, x: Node, axis: int) -> Node:
    """The end of the longest run of equal elements in sorted order."""
    order = order_node(b, x, axis)
    ordered = b.apply("take_along", (x, order), {"axis": axis})
    count = b.iota(axis, x.type.with_dtype(i64))
    value = False if x.dtype is boolean else 0
    new = b.elementwise("ne", ordered, shifted(b, ordered, axis, False, value))
    start = b.scan("scan_max", b.select(new, count, 0), axis)
    longest = arg_node(b, "max", b.sub(count, start), (axis,), keepdim=True)
    return b.apply("take_along", (order, longest), {"axis": axis})


_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(name: str, skips_nan: bool, doc: str) -> Callable[..., Any]:
    def function(
        input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
    ) -> Tensor:
        dtype = input._type.dtype
        if dtype not in (f32, f64):
            raise DTypeError(f"{name}() input tensor must be either float or double dtype")
        if input._type.size == 0:
            raise UsageError(f"{name}() input tensor must be non-empty")
        if interpolation not in _INTERPOLATIONS:
            raise UsageError(
                f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
                f"{interpolation}"
            )
        wanted = _checked_q(name, input, q)
        axis = None if dim is None else wrap_dim(whole(dim, name), input.ndim)
        rank = input.ndim

        def emit(b: Builder, x: Node, at: Node) -> Node:
            kept = (1,) * rank if axis is None else tuple(n if i != axis else 1 for i, n in enumerate(x.shape))
            if axis is None or not rank:
                x = b.reshape(x, (x.type.size,))
            else:
                x = b.permute(x, (*(i for i in range(rank) if i != axis), axis))
            found = _quantile_node(b, x, b.reshape(at, (at.type.size,)), interpolation, skips_nan)
            last = found.type.rank - 1
            found = b.permute(found, (last, *range(last)))
            shape = kept if keepdim else tuple(n for i, n in enumerate(kept) if i != axis) if axis is not None else ()
            return b.reshape(found, (*at.shape, *shape))

        return record("SqueezeBackward4", (input, wanted), emit)

    function.__name__, function.__doc__ = name, doc
    return reduction(function)


def _checked_q(name: str, input: Tensor, q: Any) -> Tensor:
    """`q` as a tensor of the input's dtype, its values in [0, 1]."""
    if not isinstance(q, TensorBase):
        if not 0 <= q <= 1:
            raise UsageError(f"{name}() q must be in the range [0, 1] but got {q}")
        return from_array(np.array(q), input._type.dtype, input._type.device)
    if q.ndim > 1:
        raise UsageError(f"{name}() q must be a scalar or 1D tensor")
    if q._type.dtype is not input._type.dtype:
        raise DTypeError(f"{name}() q tensor must be same dtype as the input tensor")
    if current().capture is None and not ((q._array() >= 0) & (q._array() <= 1)).all():
        raise UsageError(f"{name}() q values must be in the range [0, 1]")
    return q  # type: ignore[return-value]


def _quantile_node(b: Builder, x: Node, q: Node, interpolation: str, skips_nan: bool) -> Node:
    """The quantiles q (a vector) of the last axis of x, which they replace."""
    axis = x.type.rank - 1
    n, count = x.shape[axis], q.shape[0]
    ordered = b.apply("take_along", (x, order_node(b, x, axis)), {"axis": axis})
    shape = (*x.shape[:-1], count)
    numbers = b.expand_dims(b.reduce_sum(b.cast(b.apply("eq", (x, x)), x.dtype), (axis,)), (axis,), shape)
    wide = b.broadcast(q, shape)
    if skips_nan:
        rank = b.mul(wide, b.elementwise("maximum", b.sub(numbers, 1.0), 0.0))
    else:
        # NaN is sorted to the end, and one is enough.
        rank = b.select(b.elementwise("lt", numbers, float(n)), float(n - 1), b.mul(wide, float(n - 1)))

    def at(places: Node) -> Node:
        return b.apply("take_along", (ordered, b.cast(places, i64)), {"axis": axis})

    simple = {"lower": "floor", "higher": "ceil", "nearest": "round"}.get(interpolation)
    if simple is not None:
        return at(b.apply(simple, (rank,)))
    below = b.apply("floor", (rank,))
    low, high = at(below), at(b.apply("ceil", (rank,)))
    weight = b.constant(0.5, rank.type) if interpolation == "midpoint" else b.sub(rank, below)
    gap = b.sub(high, low)
    near = b.elementwise("lt", weight, 0.5)
    return b.select(near, b.add(low, b.mul(weight, gap)), b.sub(high, b.mul(gap, b.sub(1.0, weight))))


quantile = _quantile(
    "quantile", False, "The `q`-quantiles (a number or vector), of all elements or along `dim`; NaN if any is NaN."
)
nanquantile = _quantile("nanquantile", True, "The `q`-quantiles of what is not NaN, of all elements or along `dim`.")
