"""Checks that the type rules of the operators share. Each raises with the operator's name and both sides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from graphc.errors import DTypeError, ShapeError, UsageError
from graphc.ir.opdef import Attrs, Infer
from graphc.ir.types import DType, TensorType, bf16, f16, i32, i64

ALLOWED = {
    "float": "float",
    "integer": "integer",
    "number": "float or integer",
    "bits": "integer or bool",
    "bool": "bool",
    "any": "any",
}


def belongs(dtype: DType, group: str) -> bool:
    """Whether `dtype` is in `group`, a key of `ALLOWED`."""
    match group:
        case "float":
            return dtype.is_float
        case "integer":
            return dtype.is_integer
        case "number":
            return dtype.is_float or dtype.is_integer
        case "bits":
            return not dtype.is_float
        case "bool":
            return dtype.kind == "bool"
        case _:
            return True


def shown(types: Sequence[TensorType]) -> str:
    return " and ".join(map(str, types)) or "nothing"


def check_arity(op: str, types: Sequence[TensorType], arity: int) -> None:
    if len(types) != arity:
        raise ShapeError(f"{op}: wants {arity} operand{'s' if arity != 1 else ''}, got {len(types)}: {shown(types)}")


def check_device(op: str, types: Sequence[TensorType]) -> None:
    found = sorted({t.device for t in types}, key=lambda device: (device == "cpu", device))  # the CPU last, as PyTorch
    if len(found) > 1:
        raise UsageError(
            f"Expected all tensors to be on the same device, but found at least two devices, {found[0]} and "
            f"{found[1]}! ({op}: {shown(types)}; move them with .to(device))"
        )


def check_group(op: str, type: TensorType, group: str) -> None:
    if not belongs(type.dtype, group):
        raise DTypeError(f"{op}: wants {ALLOWED[group]} elements, got {type}; convert with .to(dtype)")


def check_same_dtype(op: str, types: Sequence[TensorType]) -> None:
    if len({t.dtype for t in types}) > 1:
        raise DTypeError(f"{op}: operands have different dtypes, {shown(types)}; convert with .to(dtype)")


def check_same_shape(op: str, types: Sequence[TensorType]) -> None:
    if len({t.shape for t in types}) > 1:
        shapes = " and ".join(str(list(t.shape)) for t in types)
        raise ShapeError(f"{op}: operands have different shapes, {shapes}; broadcast them first")


def check_index(op: str, type: TensorType) -> None:
    if type.dtype not in (i64, i32):
        raise DTypeError(f"{op}: an index tensor has dtype i64 or i32, got {type}")


def check_axis(op: str, axis: int, type: TensorType) -> None:
    if not 0 <= axis < type.rank:
        raise ShapeError(f"{op}: axis {axis} is out of range for {type} ({type.rank} dimensions)")


def check_axes(op: str, axes: Sequence[int], type: TensorType) -> None:
    """Axes are increasing, without duplicates, in range."""
    for axis in axes:
        check_axis(op, axis, type)
    if any(a >= b for a, b in pairwise(axes)):
        raise ShapeError(f"{op}: axes {tuple(axes)} of {type} are not increasing")


def check_length(op: str, name: str, values: Sequence[int], count: int, at_least: int | None) -> None:
    """`values` has one entry for each of `count` dimensions, none below `at_least`."""
    if len(values) != count:
        raise ShapeError(
            f"{op}: {name} {tuple(values)} has {len(values)} entries, wanted one for each of {count} dimensions"
        )
    if at_least is not None and any(v < at_least for v in values):
        raise ShapeError(f"{op}: {name} {tuple(values)} has an entry below {at_least}")


def given(op: str) -> Infer:
    """The type rule of an operator whose type is stated where it is made."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        raise ShapeError(f"{op}: the type of this operator is given, not inferred; make it with Builder.{op}")

    return infer


def widen(array: np.ndarray) -> np.ndarray:
    """f16 and bf16 arrays as f32, in which the reference computes; others unchanged."""
    return array.astype(np.float32) if array.dtype in (f16.numpy, bf16.numpy) else array


def narrow(array: np.ndarray | np.generic, type: TensorType) -> np.ndarray:
    """`array` rounded to the dtype of `type` (f16 and bf16 through f32)."""
    result = np.asarray(array)
    if type.dtype in (f16, bf16) and result.dtype == np.float64:
        result = result.astype(np.float32)
    return result if result.dtype == type.dtype.numpy else result.astype(type.dtype.numpy)
