"""Numbers that are stored in tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import UsageError
from graphc.ir.types import DType
from graphc.promotion import Number
from graphc.tensors.core import TensorBase, record
from graphc.tensors.operands import fit

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

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
    """A number as a 0-d tensor of the dtype of `like`: a constant of the program. RuntimeError when it does not fit."""
    dtype = like._type.dtype
    held, type = held_number(value, dtype), like._type.with_shape(())
    return record("", (), lambda b: b.constant(held, type))


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
