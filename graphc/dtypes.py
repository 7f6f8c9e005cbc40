"""The user's element types: PyTorch's names and printing over the IR's types."""

from __future__ import annotations

import builtins

import numpy as np

from graphc.errors import DTypeError
from graphc.ir import types as ir


class dtype:
    """An element type as PyTorch shows it; one object per type, compared by identity. `ir` is the IR's type."""

    __slots__ = ("ir", "name")

    def __init__(self, type: ir.DType) -> None:
        self.ir = type
        self.name = type.torch_name

    @property
    def itemsize(self) -> builtins.int:
        """Bytes of one element."""
        return self.ir.itemsize

    @property
    def is_floating_point(self) -> builtins.bool:
        return self.ir.is_float

    @property
    def is_complex(self) -> builtins.bool:
        return False

    @property
    def is_signed(self) -> builtins.bool:
        return self.ir.kind in ("float", "int")

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[object, ...]:
        return dtype_named, (self.name,)


_ALL = {type: dtype(type) for type in ir.DTYPES}
_NAMED = {d.name: d for d in _ALL.values()}

float64 = double = _ALL[ir.f64]
float32 = float = _ALL[ir.f32]
float16 = half = _ALL[ir.f16]
bfloat16 = _ALL[ir.bf16]
int64 = long = _ALL[ir.i64]
int32 = int = _ALL[ir.i32]
int16 = short = _ALL[ir.i16]
int8 = _ALL[ir.i8]
uint8 = _ALL[ir.u8]
bool = _ALL[ir.boolean]

DTypeLike = dtype | type | np.dtype

_default = ir.f32


def dtype_named(name: str) -> dtype:
    """The type of PyTorch's `name` ("float32"); KeyError when there is none."""
    return _NAMED[name]


def public(type: ir.DType) -> dtype:
    """The user's object for an IR type."""
    return _ALL[type]


def to_ir(given: object) -> ir.DType:
    """The IR type for a graphc dtype, a Python type (`float`, `int`, `bool`) or a NumPy dtype; DTypeError otherwise."""
    if isinstance(given, dtype):
        return given.ir
    if isinstance(given, ir.DType):
        return given
    name = getattr(given, "__name__", "") if isinstance(given, type) and given.__module__ == "builtins" else ""
    if name == "float":
        return _default
    if name in ("int", "bool"):
        return ir.i64 if name == "int" else ir.boolean
    try:
        found = ir.dtype_of_numpy(np.dtype(given))  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None:
        known = ", ".join(map(repr, _ALL.values()))
        raise DTypeError(f"{given!r} is no dtype that graphc knows; known are {known}")
    return found


def get_default_dtype() -> dtype:
    """The float type of Python floats and of creation functions."""
    return _ALL[_default]


def set_default_dtype(d: dtype) -> None:
    """Set the float type of Python floats and of creation functions; it must be a float type (TypeError)."""
    global _default
    if not d.ir.is_float:
        raise TypeError(f"only floating-point types are supported as the default type, not {d}")
    _default = d.ir


def default_ir() -> ir.DType:
    """The default float type, as the IR's type."""
    return _default
