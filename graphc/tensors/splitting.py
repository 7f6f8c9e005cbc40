"""Tensors cut into several views along a dimension."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphc.errors import RangeError, UsageError
from graphc.ir.types import i64
from graphc.tensors.core import TensorBase, wrap_dim
from graphc.tensors.learning import repeatable
from graphc.tensors.viewing import ints, select, slice_view
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Views = tuple["Tensor", ...]


@repeatable
def unbind(input: Tensor, dim: int = 0) -> Views:
    """All indices of `dim`, as views."""
    if input.ndim == 0:
        raise RangeError("Dimension specified as 0 but tensor has no dimensions")
    at = wrap_dim(dim, input.ndim)
    return tuple(select(input, at, i, "UnbindBackward0", i) for i in range(input._type.shape[at]))


def _pieces(input: Tensor, dim: int, sizes: Sequence[int], name: str, several: bool = True) -> Views:
    parts: list[Tensor] = []
    start = 0
    for place, size in enumerate(sizes):
        parts.append(slice_view(input, dim, start, size, 1, name, place if several else -1))
        start += size
    return tuple(parts)


@repeatable
def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> Views:
    """Views of `split_size` elements along `dim` (the last one shorter), or of the given sizes."""
    size: Any = split_size_or_sections
    if not isinstance(size, int) and not (isinstance(size, TensorBase) and size.ndim == 0):
        return split_with_sizes(input, size, dim)
    size = operator.index(split_size_or_sections)  # type: ignore[arg-type]
    if input.ndim == 0:
        raise UsageError("split expects at least a 1-dimensional tensor")
    if size < 0:
        raise UsageError(f"split expects split_size be non-negative, but got split_size={size}")
    at = wrap_dim(dim, input.ndim)
    n = input._type.shape[at]
    if not size and n:
        raise UsageError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}")
    return _pieces(input, at, [min(size, n - i) for i in range(0, n, size or 1)] or [0], "SplitBackward0")


@repeatable
def split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> Views:
    """Views of the given sizes along `dim`."""
    if input.ndim == 0:
        raise UsageError("split_with_sizes expects at least a 1-dimensional tensor")
    at, sizes = wrap_dim(dim, input.ndim), ints((split_sizes,))
    n = input._type.shape[at]
    if any(size < 0 for size in sizes):
        raise UsageError(
            f"split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes={list(sizes)}"
        )
    if sum(sizes) != n:
        raise UsageError(
            f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size at dimension {at}), "
            f"but got split_sizes={list(sizes)}"
        )
    return _pieces(input, at, sizes, "SplitWithSizesBackward0")


@repeatable
def chunk(input: Tensor, chunks: int, dim: int = 0) -> Views:
    """At most `chunks` views of equal size along `dim`."""
    if input.ndim == 0:
        raise UsageError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise UsageError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input._type.shape[wrap_dim(dim, input.ndim)]
    if not n:
        return split_with_sizes(input, [0] * chunks, dim)
    return split(input, -(-n // chunks), dim)


def _named(parts: Views, name: str) -> Views:
    """The same views, made by the gradient node `name`."""
    for part in parts:
        part._chain = (*part._chain[:-1], replace(part._chain[-1], name=name))
    return parts


def unsafe_split(input: Tensor, split_size: int, dim: int = 0) -> Views:
    """`split`; writing the parts in place is not checked."""
    return _named(split(input, split_size, dim), "UnsafeSplitBackward0")


def unsafe_split_with_sizes(input: Tensor, split_sizes: Any, dim: int = 0) -> Views:
    """`split_with_sizes`; writing the parts in place is not checked."""
    return _named(split_with_sizes(input, split_sizes, dim), "UnsafeSplitWithSizesBackward0")


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> Views:
    """`chunk`; writing the parts in place is not checked."""
    return _named(chunk(input, chunks, dim), "UnsafeSplitBackward0")


def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> Views:
    """Views along `dim`: a number of nearly equal ones, or cut at the given indices."""
    if input.ndim == 0:
        raise UsageError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    at = wrap_dim(dim, input.ndim)
    n = input._type.shape[at]
    where: Any = indices_or_sections
    if isinstance(where, TensorBase):
        if where._type.dtype is not i64:
            raise UsageError(
                "tensor_split expected tensor_indices_or_sections to have dtype of long, but got "
                f"{type_name(where._type.dtype)}"
            )
        if where.ndim > 1:
            raise UsageError(
                "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor, "
                f"but got a tensor with {where.ndim} dims"
            )
        where = where._array().tolist()
    if isinstance(where, int):
        if where <= 0:
            raise UsageError(f"number of sections must be larger than 0, got {where}")
        small, larger = divmod(n, where)
        return _pieces(input, at, [small + (i < larger) for i in range(where)], "SliceBackward0", several=False)
    ends = [*ints((where,)), n]
    parts: list[Tensor] = []
    start = 0
    for end in ends:
        first, stop, _ = slice(start, end).indices(n)
        parts.append(slice_view(input, at, first, max(stop - first, 0), 1))
        start = end
    return tuple(parts)


def _along(name: str, input: Tensor, where: Any, dim: int, least: int) -> Views:
    if input.ndim < least:
        raise UsageError(
            f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {input.ndim} "
            "dimensions!"
        )
    n = input._type.shape[dim]
    if isinstance(where, int) and (where <= 0 or n % where):
        raise UsageError(
            f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {n} is not "
            f"divisible by the split_size {where}!"
        )
    return tensor_split(input, where, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> Views:
    """`tensor_split` along columns: dimension 1, or 0 of vectors."""
    return _along("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> Views:
    """`tensor_split` along dimension 0 of tensors with at least two."""
    return _along("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: Any) -> Views:
    """`tensor_split` along dimension 2."""
    return _along("dsplit", input, indices_or_sections, 2, 3)
