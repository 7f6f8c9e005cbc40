"""How kernel IR types and constants are spelt in CUDA C.

f16 and bf16 are 16-bit integers in registers: kernels only move and convert them. A bool is `bool` in a register and
one byte in memory. An i64 that fits is an `int` in a register: see `ranges`.
"""

from __future__ import annotations

import math

import numpy as np

from graphc.codegen.kernel import Number
from graphc.ir.types import DType

REGISTER = {
    "f64": "double",
    "f32": "float",
    "f16": "unsigned short",
    "bf16": "unsigned short",
    "i64": "long long",
    "i32": "int",
    "i16": "short",
    "i8": "signed char",
    "u8": "unsigned char",
    "bool": "bool",
}
UNSIGNED = {
    "i64": "unsigned long long",
    "i32": "unsigned",
    "i16": "unsigned short",
    "i8": "unsigned char",
    "u8": "unsigned char",
}
INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1


def memory_type(dtype: DType) -> str:
    """The C type of one element in a buffer."""
    return "unsigned char" if dtype.kind == "bool" else REGISTER[dtype.name]


def integer(value: int) -> str:
    """An integer constant: an `int` where it fits."""
    if value == INT_MIN:
        return "(-2147483647 - 1)"
    if value == -(1 << 63):
        return "(-9223372036854775807LL - 1)"
    text = str(abs(value)) if INT_MIN <= value <= INT_MAX else f"{abs(value)}LL"
    return f"(-{text})" if value < 0 else text


def literal(value: Number, dtype: DType) -> str:
    """The C spelling of a constant of type `dtype`, an operand as it stands."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if not dtype.is_float:
        half = 1 << (dtype.bits - 1)
        signed = (int(value) + half) % (2 * half) - half
        return integer(signed % (2 * half) if dtype.kind == "uint" else signed)
    with np.errstate(over="ignore"):
        element = np.asarray(value, np.float64).astype(dtype.numpy)
    if dtype.bits == 16:
        return str(int(element.view(np.uint16)))
    number = float(element)
    if math.isfinite(number) and (number == 0 or abs(number) >= float(np.finfo(dtype.numpy).tiny)):
        text = str(element.item()) if dtype.bits == 64 else str(np.float32(number))
        text = text if any(c in text for c in ".e") else text + ".0"
        text = text if dtype.bits == 64 else text + "f"
        return f"({text})" if text[0] == "-" else text
    if dtype.bits == 64:
        return f"__longlong_as_double(0x{int(element.view(np.uint64)):016x}LL)"
    return f"__int_as_float(0x{int(element.view(np.uint32)):08x})"
