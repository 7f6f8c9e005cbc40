"""PyTorch's errors for dtypes that a function does not take."""

from __future__ import annotations

from typing import Any

from graphc.errors import UnsupportedError, UsageError
from graphc.tensors.core import TensorBase, wants_grad
from graphc.tensors.writing import type_name


def need_float(kernel: str, *tensors: TensorBase | None) -> None:
    """NotImplementedError in PyTorch's words, naming its `kernel`, unless every tensor holds floats."""
    for tensor in tensors:
        if tensor is not None and not tensor._type.dtype.is_float:
            raise UnsupportedError(
                f"\"{kernel}\" not implemented for '{type_name(tensor._type.dtype)}': floats expected, but got "
                f"{tensor._type}; convert it with .to(dtype)"
            )


def need_same_dtype(name: str, first: TensorBase, *others: TensorBase | None) -> None:
    """RuntimeError unless all tensors have the dtype of `first`."""
    wanted = first._type.dtype
    for other in others:
        if other is not None and other._type.dtype is not wanted:
            raise UsageError(
                f"{name}: expected scalar type {type_name(wanted)} but found {type_name(other._type.dtype)}"
            )


def refuse_gradient(name: str, **arguments: Any) -> None:
    """PyTorch's error for arguments that a function has no gradient for, where one of them requires it."""
    for argument, value in arguments.items():
        if isinstance(value, TensorBase) and wants_grad((value,)):
            raise UsageError(
                f"The function '{name}' is not differentiable with respect to argument '{argument}'. This input cannot "
                "have requires_grad True."
            )
