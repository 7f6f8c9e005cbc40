"""Rearranged copies with PyTorch's names, and all views (made in `viewing` and `splitting`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError
from graphc.ir.types import DType
from graphc.tensors.core import record
from graphc.tensors.flattening import flatten, unflatten
from graphc.tensors.learning import repeatable
from graphc.tensors.splitting import chunk, split, unbind
from graphc.tensors.viewing import (
    broadcast_to,
    copied,
    diagonal,
    expand,
    expand_as,
    ints,
    movedim,
    narrow,
    permute,
    reshape,
    reshape_as,
    same_view,
    select,
    slice_view,
    squeeze,
    t,
    transpose,
    unsqueeze,
    view_,
    view_as,
)
from graphc.tensors.views import is_contiguous

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

__all__ = [
    "broadcast_to",
    "check_same_dtype",
    "chunk",
    "clone",
    "contiguous",
    "diagonal",
    "expand",
    "expand_as",
    "flatten",
    "ints",
    "is_contiguous",
    "moved",
    "movedim",
    "narrow",
    "permute",
    "reshape",
    "reshape_as",
    "same_view",
    "select",
    "slice_view",
    "split",
    "squeeze",
    "t",
    "to_dtype",
    "transpose",
    "unbind",
    "unflatten",
    "unsqueeze",
    "view_",
    "view_as",
]


@repeatable
def clone(input: Tensor, *, memory_format: object = None) -> Tensor:
    """A copy with its own memory; gradients flow through."""
    return copied(input)


@repeatable
def contiguous(input: Tensor, memory_format: object = None) -> Tensor:
    """The tensor itself when its elements lie in row-major order, else a copy."""
    return input if is_contiguous(input._type.shape, input._strides) else clone(input)


# copies


def to_dtype(input: Tensor, dtype: Any) -> Tensor:
    """The elements converted; the tensor itself when it has that dtype."""
    if input._type.dtype is dtype:
        return input
    return record("ToCopyBackward0", (input,), lambda b, x: b.cast(x, dtype))


def moved(input: Tensor, device: str, dtype: DType) -> Tensor:
    """The elements on a device, converted; the tensor itself when it is there and has that dtype."""
    if input._type.device == device:
        return to_dtype(input, dtype)
    if device == "cpu":  # the device converts, whichever of the two it is
        return record("ToCopyBackward0", (input,), lambda b, x: b.transfer(b.cast(x, dtype), device))
    return record("ToCopyBackward0", (input,), lambda b, x: b.cast(b.transfer(x, device), dtype))


def check_same_dtype(name: str, a: Tensor, b: Tensor) -> None:
    """RuntimeError when two operands differ in dtype."""
    if a._type.dtype is not b._type.dtype:
        raise DTypeError(f"{name}: expected both tensors to have the same dtype, but got {a.dtype} and {b.dtype}")
