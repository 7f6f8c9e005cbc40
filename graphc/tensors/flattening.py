"""Dimensions merged into one, and one split into several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from graphc.errors import KindError, ShapeError, UsageError
from graphc.tensors.core import wrap_dim
from graphc.tensors.learning import repeatable
from graphc.tensors.viewing import Ints, reshape, reshaped, view_
from graphc.tensors.views import contiguous_strides, infer_shape

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@repeatable
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` merged into one."""
    type = input._type
    shape = _flat_shape(type.shape, start_dim, end_dim)
    if shape is None:
        return input
    if input._strides == type.strides:  # what lies in row-major order stays so
        return reshaped(input, shape, contiguous_strides(shape))
    return reshape(input, shape)


@lru_cache(maxsize=4096, typed=True)
def _flat_shape(shape: Ints, start_dim: int, end_dim: int) -> Ints | None:
    """The shape that `flatten` gives; None where nothing changes."""
    first, last = wrap_dim(start_dim, len(shape)), wrap_dim(end_dim, len(shape))
    if not shape:
        return (1,)
    if first > last:
        raise UsageError("flatten() has invalid args: start_dim cannot come after end_dim")
    if first == last:
        return None
    return *shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]


@repeatable
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Dimension `dim` split into `sizes`, of which one may be -1."""
    if not isinstance(sizes, Sequence):
        raise KindError(f"unflatten(): argument 'sizes' must be tuple of ints, not {type(sizes).__name__}")
    at = wrap_dim(dim, input.ndim)
    if not sizes:
        raise UsageError("unflatten: sizes must be non-empty")
    if not input.ndim:
        raise UsageError("unflatten: Dimension specified as 0 but tensor has no dimensions")
    shape = input._type.shape
    try:
        split = infer_shape(tuple(sizes), shape[at])
    except ShapeError:
        raise UsageError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {at} ({shape[at]}) in the "
            "input tensor"
        ) from None
    return view_(input, (*shape[:at], *split, *shape[at + 1 :]))
