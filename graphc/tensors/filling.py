"""Numbers that are stored in tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from graphc.call_places import moves
from graphc.errors import UsageError
from graphc.ir.types import DType, TensorType
from graphc.promotion import Number
from graphc.recording import current
from graphc.tensors.core import Keep, TensorBase, finish
from graphc.tensors.operands import fit, run_time_number

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

MOST_NUMBERS = 8  # that a call takes in turn, each in programs of its own
_C_TYPES = {
    "u8": "uint8_t",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int",
    "i64": "int64_t",
    "f16": "at::Half",
    "bf16": "at::BFloat16",
    "f32": "float",
}
_LARGEST = {"f16": 65504.0, "bf16": 3.3895313892515355e38, "f32": 3.4028234663852886e38}


def fill_value(value: Number, like: TensorBase) -> Tensor:
    """A number as a 0-d tensor of the dtype of `like`. RuntimeError when it does not fit."""
    return number_tensor(held_number(value, like._type.dtype), like._type.with_shape(()), "fill")


def number_tensor(value: Number, type: TensorType, role: str) -> Tensor:
    """A tensor with every element `value`, which its dtype holds, pending: a constant of the program, or read at run
    time where a call takes one number after the other.
    """
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        parents: list[Keep] = []
        if recorder.capture is None and moves(role, value, MOST_NUMBERS, theirs=True):
            node = run_time_number(recorder, value, type, parents)
        else:
            node = b.constant(value, type)
        return finish(recorder, node, tuple(parents), "", False)


def held_number(value: Number, dtype: DType) -> Number:
    """`value` as an element of `dtype` holds it; RuntimeError in PyTorch's words when it is too large."""
    if dtype.kind == "bool":
        return bool(value)
    if dtype.is_float:
        largest = _LARGEST.get(dtype.name, math.inf)
        bad = math.isfinite(value) and abs(value) > largest
    elif isinstance(value, float) and not math.isfinite(value):
        bad = True
    else:
        info = np.iinfo(dtype.numpy)
        whole = int(value)
        lowest = -int(info.max) if dtype.kind == "uint" else int(info.min)  # negative numbers may wrap to unsigned
        bad = not lowest <= whole <= int(info.max)
        value = whole
    if bad:
        raise UsageError(f"value cannot be converted to type {_C_TYPES[dtype.name]} without overflow")
    return float(value) if dtype.is_float else fit(value, dtype)
