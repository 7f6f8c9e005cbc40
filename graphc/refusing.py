"""PyTorch's errors for dtypes that a function does not take."""

from __future__ import annotations

from graphc.tensors.core import TensorBase
from graphc.tensors.writing import type_name


def need_float(kernel: str, *tensors: TensorBase | None) -> None:
    """NotImplementedError in PyTorch's words, naming its `kernel`, unless every tensor holds floats."""
    for tensor in tensors:
        if tensor is not None and not tensor._type.dtype.is_float:
            raise NotImplementedError(
                f"\"{kernel}\" not implemented for '{type_name(tensor._type.dtype)}': floats expected, but got "
                f"{tensor._type}; convert it with .to(dtype)"
            )


def need_same_dtype(name: str, first: TensorBase, *others: TensorBase | None) -> None:
    """RuntimeError unless all tensors have the dtype of `first`."""
    wanted = first._type.dtype
    for other in others:
        if other is not None and other._type.dtype is not wanted:
            raise RuntimeError(
                f"{name}: expected scalar type {type_name(wanted)} but found {type_name(other._type.dtype)}"
            )
