"""Tensors as NumPy arrays that share memory."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.types import TensorType
from graphc.memory import AnyBuffer, bytes_of, part
from graphc_runtime.buffer import Window, window

if TYPE_CHECKING:
    from graphc.storage import Storage
    from graphc.tensors.tensor import Tensor


def seen(buffer: AnyBuffer, type: TensorType, strides: tuple[int, ...], offset: int) -> np.ndarray:
    """The elements of a view of `buffer`: of memory of another device than the CPU, a copy of what the view spans."""
    if type.device == "cpu" or not type.size:
        return laid_out(buffer.array if type.device == "cpu" else np.empty(0, np.uint8), type, strides, offset)
    size = type.dtype.itemsize
    count = 1 + sum((n - 1) * s for n, s in zip(type.shape, strides, strict=True))
    return laid_out(bytes_of(part(buffer, offset * size, count * size)), type, strides, 0)


def laid_out(memory: Any, type: TensorType, strides: tuple[int, ...], offset: int) -> np.ndarray:
    """The bytes `memory`, an array or a `Window`, as an array of `type`; strides and offset count elements."""
    dtype = type.dtype.numpy
    if type.size == 0:
        return np.empty(type.shape, dtype)
    if strides is type.strides:
        return np.ndarray(type.shape, dtype, memory, offset * dtype.itemsize)
    return np.ndarray(type.shape, dtype, memory, offset * dtype.itemsize, [s * dtype.itemsize for s in strides])


def exporter_of(storage: Storage) -> Window:
    """The owner of memory that NumPy sees, made when there is none: arrays over it, and views of them, keep it alive,
    so its death ends the sharing.
    """
    held = storage.export() if storage.export is not None else None
    if isinstance(held, Window):
        return held
    storage.own_buffer()
    made = window(storage.buffer)
    storage.export = weakref.ref(made)
    return made


def export(tensor: Tensor) -> np.ndarray:
    """The tensor as an array over its memory."""
    type, storage = tensor._type, tensor._storage
    buffer = storage.looked_at()
    memory = exporter_of(storage) if storage.external is None else buffer.array
    return laid_out(memory, type, tensor._strides, tensor._offset)
