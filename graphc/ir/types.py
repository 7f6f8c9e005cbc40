"""Types of the graph IR: element types and tensor types, frozen and compared by value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from graphc.errors import ShapeError


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. There is one object per type, so `is` and `==` agree.

    `name` is the IR spelling, `torch_name` PyTorch's, `kind` one of "float", "int", "uint", "bool", "pair".
    """

    name: str
    torch_name: str
    kind: str
    bits: int
    numpy: np.dtype

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory (bool takes one byte)."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("int", "uint")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return dtype_by_name, (self.name,)


f64 = DType("f64", "float64", "float", 64, np.dtype(np.float64))
f32 = DType("f32", "float32", "float", 32, np.dtype(np.float32))
f16 = DType("f16", "float16", "float", 16, np.dtype(np.float16))
bf16 = DType("bf16", "bfloat16", "float", 16, np.dtype(ml_dtypes.bfloat16))
i64 = DType("i64", "int64", "int", 64, np.dtype(np.int64))
i32 = DType("i32", "int32", "int", 32, np.dtype(np.int32))
i16 = DType("i16", "int16", "int", 16, np.dtype(np.int16))
i8 = DType("i8", "int8", "int", 8, np.dtype(np.int8))
u8 = DType("u8", "uint8", "uint", 8, np.dtype(np.uint8))
boolean = DType("bool", "bool", "bool", 8, np.dtype(np.bool_))
# Two numbers of bf16 that a sum of products takes in one step, the first in the lower half. No tensor has it.
pbf16 = DType("pbf16", "packed_bfloat16", "pair", 32, np.dtype(np.int32))

DTYPES: tuple[DType, ...] = (f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean)
IR_DTYPES: tuple[DType, ...] = (*DTYPES, pbf16)  # those that values inside of a program can have
_BY_NAME = {d.name: d for d in IR_DTYPES}
_BY_NUMPY = {d.numpy: d for d in DTYPES}


def dtype_by_name(name: str) -> DType:
    """The dtype spelt `name` in the IR; KeyError when there is none."""
    return _BY_NAME[name]


def dtype_of_numpy(dtype: np.dtype) -> DType | None:
    """The dtype for a NumPy dtype in native byte order, or None."""
    return _BY_NUMPY.get(dtype)


def identity(kind: str, dtype: DType) -> float | int | bool:
    """What a `sum`, `prod`, `max` or `min` of no elements is, in `dtype`."""
    if kind in ("sum", "prod"):
        number = int(kind == "prod")
        return float(number) if dtype.is_float else bool(number) if dtype.kind == "bool" else number
    lowest = kind == "max"
    if dtype.is_float:
        return -math.inf if lowest else math.inf
    if dtype.kind == "bool":
        return not lowest
    low = 0 if dtype.kind == "uint" else -(1 << (dtype.bits - 1))
    return low if lowest else low + (1 << dtype.bits) - 1


def least(dtype: DType) -> float:
    """The least number of a float dtype."""
    return float(ml_dtypes.finfo(dtype.numpy).min)


def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements, as PyTorch counts them (a dimension of size 0 counts as 1)."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))


class TensorType:
    """Element type, static shape and device of a tensor value; printed as `f32[64,1,32,32]` (`@dev` if not the CPU).

    There is one object per type, so `is` and `==` agree: types are keys of what is looked up for each operation.
    `size` is the number of elements, `strides` the steps between them in row-major order. Immutable.
    """

    __slots__ = ("device", "dtype", "nbytes", "rank", "shape", "size", "strides")

    dtype: DType
    shape: tuple[int, ...]
    device: str
    rank: int
    size: int
    nbytes: int
    strides: tuple[int, ...]

    def __new__(cls, dtype: DType, shape: tuple[int, ...], device: str = "cpu") -> TensorType:
        key = dtype, shape, device
        known = _types.get(key)
        if known is not None:
            return known
        self = super().__new__(cls)
        size = math.prod(shape)
        parts = (("dtype", dtype), ("shape", shape), ("device", device), ("rank", len(shape)), ("size", size))
        for name, value in (*parts, ("nbytes", size * dtype.itemsize), ("strides", row_major_strides(shape))):
            object.__setattr__(self, name, value)
        # 2.0 equals 2 as a key, but is no extent: such a type stays alone, for the verifier to refuse.
        return _types.setdefault(key, self) if all(type(n) is int for n in shape) else self

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a TensorType does not change; tried to set {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return TensorType, (self.dtype, self.shape, self.device)

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        return TensorType(self.dtype, shape, self.device)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.device)

    def on(self, device: str) -> TensorType:
        """This type on `device`."""
        return self if self.device == device else TensorType(self.dtype, self.shape, device)

    def __str__(self) -> str:
        text = f"{self.dtype.name}[{','.join(map(str, self.shape))}]"
        return text if self.device == "cpu" else f"{text}@{self.device}"

    __repr__ = __str__


_types: dict[tuple[DType, tuple[int, ...], str], TensorType] = {}


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcasting rule; raises ShapeError that names the sizes that do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i, extent in enumerate(shape):
            if extent == 1 or extent == result[offset + i]:
                continue
            if result[offset + i] != 1:
                raise ShapeError(
                    f"The size of tensor a ({result[offset + i]}) must match the size of tensor b ({extent}) at "
                    f"non-singleton dimension {offset + i}; shapes {' and '.join(str(list(s)) for s in shapes)} "
                    "do not broadcast together"
                )
            result[offset + i] = extent
    return tuple(result)
