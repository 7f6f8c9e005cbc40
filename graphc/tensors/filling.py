"""Numbers that are stored in tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from graphc import dtypes
from graphc.call_places import moves
from graphc.errors import DTypeError
from graphc.ir.types import DType, TensorType, boolean
from graphc.promotion import Number
from graphc.recording import current
from graphc.tensors.core import Keep, TensorBase, finish
from graphc.tensors.emitting import run_time_number
from graphc.tensors.operands import fit

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

MOST_NUMBERS = 8  # that a call takes in turn, each in programs of its own
_C_NAMES = {
    "float32": "float",
    "float16": "c10::Half",
    "bfloat16": "c10::BFloat16",
    "int32": "int",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int64": "int64_t",
}


def fill_value(value: Number, like: TensorBase) -> Tensor:
    """A number as a 0-d tensor of the dtype of `like`. DTypeError when it does not fit."""
    return number_tensor(held_number(value, like._type.dtype), like._type.with_shape(()), "fill", value)


def number_tensor(value: Number, type: TensorType, role: str, given: Number) -> Tensor:
    """A tensor with every element `value`, as its dtype holds the number that was `given`, pending: a constant of the
    program, or read at run time where a call takes one number after the other.
    """
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        parents: list[Keep] = []
        if recorder.capture is None and moves(role, value, MOST_NUMBERS, users_only=True):
            node = run_time_number(recorder, value, type, parents, given)
        else:
            node = b.constant(value, type)
        return finish(recorder, node, tuple(parents), "", False)


def check_holds(value: int | float | bool, dtype: DType) -> None:
    """DTypeError when `value` is outside of what `dtype` holds. Unsigned types take negative numbers of their width."""
    if dtype is boolean or dtype.name == "f64":
        return
    if dtype.is_float:
        largest = float(dtypes.limits(dtype).max)
        fits = not math.isfinite(value) or abs(value) <= largest
    else:
        info = np.iinfo(dtype.numpy)
        low = -int(info.max) if dtype.kind == "uint" else int(info.min)
        fits = math.isfinite(value) and low <= math.trunc(value) <= int(info.max)
    if not fits:
        name = _C_NAMES[dtype.torch_name]
        raise DTypeError(f"value cannot be converted to type {name} without overflow: {value}")


def held_number(value: Number, dtype: DType) -> Number:
    """`value` as an element of `dtype` holds it; DTypeError when it is outside of that."""
    check_holds(value, dtype)
    if dtype is boolean:
        return bool(value)
    return float(value) if dtype.is_float else fit(int(value), dtype)
