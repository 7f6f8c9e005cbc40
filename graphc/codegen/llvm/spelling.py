"""How kernel IR types and constants are spelt in LLVM IR.

f16 and bf16 are i16 in registers: kernels only move and convert them, and integers never become calls into a soft-float
library. A bool is i1 in a register and i8 in memory.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

from graphc.codegen.kernel import Number, VType
from graphc.ir.types import DType

_REGISTER = {
    "f64": "double",
    "f32": "float",
    "f16": "i16",
    "bf16": "i16",
    "pbf16": "i32",
    "i64": "i64",
    "i32": "i32",
    "i16": "i16",
    "i8": "i8",
    "u8": "i8",
    "bool": "i1",
}
# Suffixes of overloaded intrinsics, for the types they are called with.
_SUFFIX = {"double": "f64", "float": "f32"}


@cache
def register_type(type: VType) -> str:
    """The LLVM type of a value: `float`, `<16 x i1>`."""
    element = _REGISTER[type.dtype.name]
    return element if type.lanes == 1 else f"<{type.lanes} x {element}>"


def memory_element(dtype: DType) -> str:
    """The LLVM type of one element in a buffer."""
    return "i8" if dtype.name == "bool" else _REGISTER[dtype.name]


@cache
def memory_type(type: VType) -> str:
    """The LLVM type that `type` has in memory."""
    element = memory_element(type.dtype)
    return element if type.lanes == 1 else f"<{type.lanes} x {element}>"


@cache
def suffix(llvm_type: str) -> str:
    """The name part of an overloaded intrinsic: `v16f32` for `<16 x float>`, `i32` for `i32`."""
    if llvm_type[0] == "<":
        lanes, element = llvm_type[1:-1].split(" x ")
        return f"v{lanes}{_SUFFIX.get(element, element)}"
    return _SUFFIX.get(llvm_type, llvm_type)


def rounded(value: Number, dtype: DType) -> float:
    """`value` as f32 or f64 has it."""
    if dtype.name != "f32":
        return float(value)
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def scalar_literal(value: Number, dtype: DType) -> str:
    """The LLVM spelling of a constant of type `dtype`."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype.is_float:
        if dtype.bits == 16:
            with np.errstate(over="ignore"):
                return str(int(np.asarray(value, np.float64).astype(dtype.numpy).view(np.int16)))
        # LLVM spells f32 and f64 as the bits of a double.
        return f"0x{struct.unpack('>Q', struct.pack('>d', rounded(value, dtype)))[0]:016X}"
    half = 1 << (dtype.bits - 1)
    return str((int(value) + half) % (2 * half) - half)


def literal(value: Number, type: VType) -> str:
    """The LLVM spelling of a constant, the same in every lane."""
    return spread(scalar_literal(value, type.dtype), _REGISTER[type.dtype.name], type.lanes)


def spread(text: str, element: str, lanes: int) -> str:
    """The scalar constant `text` in `lanes` lanes."""
    if lanes == 1:
        return text
    return f"splat ({element} {text})"


def lane_numbers(count: int, element: str, stride: int = 1) -> str:
    """The constant vector 0, stride, 2 * stride, ..."""
    return "<" + ", ".join(f"{element} {i * stride}" for i in range(count)) + ">"


def lane_mask(lanes: list[int]) -> str:
    """The last operand of a `shufflevector`; -1 is a lane that does not matter."""
    return f"<{len(lanes)} x i32> <" + ", ".join(f"i32 {lane}" if lane >= 0 else "i32 poison" for lane in lanes) + ">"
