"""Copies of tensors with parts added, stored or reduced: at vectors of indices, at index tensors, and where a view
would see them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import DTypeError, RangeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, i32, i64
from graphc.promotion import Number
from graphc.recording import current
from graphc.tensors import striding, viewing
from graphc.tensors.core import TensorBase, finish, read, record, wants_grad, wrap_dim
from graphc.tensors.filling import held_number
from graphc.tensors.indexing import check_range
from graphc.tensors.operands import plain
from graphc.tensors.out import out_form
from graphc.tensors.scattering import outside, same_dtype, scatter_arguments
from graphc.tensors.views import write_chain
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_MODES = {"prod": "prod", "amax": "max", "amin": "min"}


def _neutral(mode: str, dtype: DType) -> Number:
    """What changes nothing when it is reduced with another number."""
    if mode in ("sum", "mean"):
        return 0
    if mode == "prod":
        return 1
    if dtype.is_float:
        return -math.inf if mode == "amax" else math.inf
    info = np.iinfo(dtype.numpy)
    return int(info.min if mode == "amax" else info.max)


def _reduced(b: Builder, x: Node, index: Node, src: Node, axis: int, mode: str, include_self: bool) -> Node:
    """`src` reduced into `x`, or only among itself, at the places that `take_along` reads."""
    along: dict[str, Any] = {"axis": axis}
    dtype = x.dtype
    if dtype is boolean:
        mode = "amax" if mode == "sum" else mode
        x, src = b.cast(x, i32), b.cast(src, i32)
    if not include_self:
        nothing = b.constant(held_number(_neutral(mode, x.dtype), x.dtype), src.type)
        x = b.apply("scatter_set", (x, index, nothing), along)
    if mode in _MODES:
        return b.cast(b.apply("scatter_reduce", (x, index, src), {**along, "mode": _MODES[mode]}), dtype)
    total = b.apply("scatter_add", (x, index, src), along)
    if mode == "sum":
        return b.cast(total, dtype)
    start = b.constant(1 if include_self else 0, x.type)
    count = b.apply("scatter_add", (start, index, b.constant(1, src.type)), along)
    count = b.apply("maximum", (count, b.constant(1, count.type)))
    return b.div(total, count) if dtype.is_float else b.elementwise("floor_divide", total, count)


@out_form
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """input with `src` reduced into the places of `dim` that `index` names: "sum", "prod", "mean", "amax" or "amin",
    with what stands there or, without `include_self`, instead of it.
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise UsageError(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}")
    at = scatter_arguments("scatter_reduce", input, dim, index, src)
    if reduce == "mean" and input._type.dtype is boolean:
        raise UnsupportedError("\"scatter_reduce\" with 'mean' is not implemented for 'Bool'")
    if not index._type.size:
        return record("ScatterReduceBackward0", (input,), lambda b, x: x)
    shape = index._type.shape or (1,)
    whole = input._type.shape or (1,)

    def emit(b: Builder, x: Node, i: Node, s: Node) -> Node:
        s = b.slice(b.reshape(s, s.shape or (1,)), (0,) * len(shape), shape, (1,) * len(shape))
        made = _reduced(b, b.reshape(x, whole), b.reshape(i, shape), s, at, reduce, include_self)
        return b.reshape(made, input._type.shape)

    return _recorded("ScatterReduceBackward0", input, index, src, whole[at], outside(at, whole[at]), emit)


def _recorded(
    name: str, input: Tensor, index: Tensor, source: Tensor, size: int, message: str, emit: Any, low: int = 0
) -> Tensor:
    """Record `emit(b, input, index, source)` for indices in [low, size)."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input, source))
        x, keep_x = read(recorder, input, grad)
        s, keep_s = read(recorder, source, grad)
        i, keep_i = read(recorder, index, False)
        made = emit(b, x, i, s)
        check_range(recorder, i, keep_i, size, low, message)
        return finish(recorder, made, (keep_x, keep_s, keep_i), name, grad, (x, s))


def _parts(b: Builder, index: Node, axis: int, shape: tuple[int, ...]) -> Node:
    """A vector of indices as an index tensor of `shape`."""
    ones = tuple(index.type.size if d == axis else 1 for d in range(len(shape)))
    return b.broadcast(b.reshape(index, ones), shape)


# vectors of indices


def _vector(name: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> tuple[int, int, tuple[int, ...]]:
    """The dimension, its size, and the shape of the source, all with at least one dimension."""
    at = wrap_dim(dim, input.ndim)
    if index._type.dtype not in (i64, i32):
        raise DTypeError(f"{name}(): Expected dtype int32/int64 for index but got: {type_name(index._type.dtype)}")
    same_dtype(f"{name}(): self ({{}}) and source ({{}}) must have the same scalar type", input, source)
    if index.ndim > 1:
        raise RangeError(
            f"{name}(): Index is supposed to be a vector, but got dim: {index.ndim} with type: "
            f"{type_name(index._type.dtype)} and size: {list(index._type.shape)}"
        )
    whole, given, count = input._type.shape, source._type.shape, index._type.size
    if whole and not given and count != 1:
        raise RangeError("Dimension specified as 0 but tensor has no dimensions")
    if len(whole) == len(given) and whole and given[at] != count:
        raise UsageError(
            f"{name}(): Number of indices ({count}) should be equal to source.size(dim): ({given[at]}), for dim: {at}"
        )
    if len(whole) != len(given) or (whole[:at], whole[at + 1 :]) != (given[:at], given[at + 1 :]):
        raise UsageError(
            "source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
            f"{list(whole)} source.shape = {list(given)}"
        )
    return at, whole[at] if whole else 1, given or (1,)


@out_form
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """input with `alpha` times the entries of `source` added at the places of `dim` that `index` names; duplicates add
    up.
    """
    at, size, given = _vector("index_add_", input, dim, index, source)
    whole = input._type.shape or (1,)
    scale = alpha if input._type.dtype.is_float else int(alpha)

    def emit(b: Builder, x: Node, i: Node, s: Node) -> Node:
        wide = i32 if x.dtype is boolean else x.dtype
        part = b.reshape(b.cast(s, wide), given)
        part = part if scale == 1 else b.mul(part, scale)
        base, rows = b.reshape(b.cast(x, wide), whole), b.reshape(i, (i.type.size,))
        return b.reshape(b.cast(b.apply("index_add", (base, rows, part), {"axis": at}), x.dtype), x.shape)

    return _recorded("IndexAddBackward0", input, index, source, size, outside(at, size), emit)


@out_form
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """input with the entries of `source` reduced into the places of `dim` that `index` names: "prod", "mean", "amax"
    or "amin", with what stands there or, without `include_self`, instead of it.
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise UsageError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.")
    at, size, given = _vector("index_reduce_", input, dim, index, source)
    whole = input._type.shape or (1,)

    def emit(b: Builder, x: Node, i: Node, s: Node) -> Node:
        places = _parts(b, i, at, given)
        made = _reduced(b, b.reshape(x, whole), places, b.reshape(s, given), at, reduce, include_self)
        return b.reshape(made, x.shape)

    return _recorded("IndexReduceBackward0", input, index, source, size, outside(at, size), emit)


@out_form
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """input with the entries of `source` stored at the places of `dim` that `index` names; the last one wins."""
    at = wrap_dim(dim, input.ndim)
    name = "index_copy_()"
    if index._type.dtype is not i64:
        raise DTypeError(f"{name}: Expected a long tensor for index, but got {type_name(index._type.dtype)}")
    same_dtype(
        f"{name}: self and source expected to have the same dtype, but got (self) {{}} and (source) {{}}", input, source
    )
    whole, given = input._type.shape, source._type.shape
    if index.ndim > 1:
        raise RangeError(f"{name}: Index should have dimension 1 or 0 (got {index.ndim})")
    if whole and given and len(whole) != len(given):
        raise RangeError(
            f"{name}: When source and destination are not scalars, their dimensionality must match. Source "
            f"dimensionality ({len(given)}), destination dimensionality ({len(whole)})"
        )
    count = index._type.size
    if not given and count != 1:
        raise RangeError(f"{name}: When source is scalar, index should have one element (got {count})")
    if (whole[:at], whole[at + 1 :]) != (given[:at], given[at + 1 :]):
        raise UsageError(
            f"{name}: Source/destination tensor must have same slice shapes. Destination slice shape: "
            f"{[*whole[:at], *whole[at + 1 :]]} at dimension {at} and source slice shape: "
            f"{[*given[:at], *given[at + 1 :]]} at dimension 0."
        )
    parts = given[min(at, len(given) - 1)] if given else count
    if parts != count:
        raise RangeError(f"{name}: Number of indices ({count}) should be equal to source.size(dim) ({parts})")
    full, size = whole or (1,), whole[at] if whole else 1
    part = (*full[:at], count, *full[at + 1 :])

    def emit(b: Builder, x: Node, i: Node, s: Node) -> Node:
        operands = (b.reshape(x, full), b.reshape(i, (count,)), b.reshape(s, part))
        return b.reshape(b.apply("index_set", operands, {"axis": at}), x.shape)

    return _recorded("IndexCopyBackward0", input, index, source, size, f"{name}: {outside(at, size)}", emit)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """input with `value`, a number or a 0-d tensor, stored at the places of `dim` that `index` names, negative ones
    from the end.
    """
    at = wrap_dim(dim, input.ndim)
    if index._type.dtype is not i64:
        raise RangeError("index_fill_(): Expected dtype int64 for index.")
    if index.ndim > 1:
        raise UsageError("Index has to be a vector/scalar")
    if isinstance(value, TensorBase) and value.ndim:
        raise UsageError(
            f"index_fill_ only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
        )
    whole = input._type.shape or (1,)
    size, count = whole[at], index._type.size
    part = (*whole[:at], count, *whole[at + 1 :])
    other_axes = tuple(axis for axis in range(len(whole)) if axis != at)
    held = None if isinstance(value, TensorBase) else held_number(plain(value), input._type.dtype)
    source: Any = value if held is None else input

    def emit(b: Builder, x: Node, i: Node, s: Node) -> Node:
        rows = b.reshape(b.select(b.apply("lt", (i, b.zeros_like(i))), b.add(i, size), i), (count,))
        if held is not None:
            stored = b.constant(held, x.type.with_shape(part))
            return b.reshape(b.apply("index_set", (b.reshape(x, whole), rows, stored), {"axis": at}), x.shape)
        # A place that is named twice holds the value once, which its gradient must count.
        flags = TensorType(boolean, (size,), x.type.device)
        named = (b.constant(False, flags), rows, b.constant(True, flags.with_shape((count,))))
        filled = b.expand_dims(b.apply("index_set", named, {"axis": 0}), other_axes, whole)
        made = b.select(filled, b.broadcast(b.cast(s, x.dtype), whole), b.reshape(x, whole))
        return b.reshape(made, x.shape)

    name = "IndexFillBackward0" if held is not None else "IndexFillBackward1"
    return _recorded(name, input, index, source, size, outside(at, size), emit, -size)


# where a view sees


def _through(name: str, input: Tensor, seen: Tensor, src: Tensor) -> Tensor:
    """A copy of `input` with `src` stored where `seen`, a view of it, would see it."""
    if seen._type.shape != src._type.shape:
        raise UsageError(
            f"expected src to have a size equal to the slice of self. src size = {list(src._type.shape)}, slice size = "
            f"{list(seen._type.shape)}"
        )
    steps = seen._chain[len(input._chain) :]
    return record(name, (input, src), lambda b, x, s: write_chain(b, x, steps, b.cast(s, x.dtype)))


@out_form
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy with `src` stored where `select` looks."""
    return _through("SelectScatterBackward0", input, viewing.select(input, dim, index), src)


@out_form
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """A copy with `src` stored where the slice start:end:step of `dim` looks."""
    if step <= 0:
        raise UsageError("slice step must be positive")
    at = wrap_dim(dim, input.ndim)
    first, last, _ = slice(start, end, step).indices(input._type.shape[at])
    size = max(0, -(-(last - first) // step))
    return _through("SliceScatterBackward0", input, viewing.slice_view(input, at, first, size, step), src)


@out_form
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A copy with `src` stored where `diagonal` looks."""
    return _through("DiagonalScatterBackward0", input, viewing.diagonal(input, offset, dim1, dim2), src)


@out_form
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A copy with `src` stored where `as_strided` looks in it."""
    dense = viewing.copied(input)
    return _through("AsStridedScatterBackward0", dense, striding.as_strided(dense, size, stride, storage_offset), src)
