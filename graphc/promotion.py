"""Type promotion as PyTorch does it.

Operands stand in three classes: tensors with dimensions, 0-d tensors and Python numbers. The type of a lower class
counts only when its kind (bool < integer < float) is above the kind of all higher classes.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphc import dtypes
from graphc.ir.types import DType, bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8

Number = float | int | bool

_KIND = {"bool": 0, "uint": 1, "int": 1, "float": 2}
_FLOATS = (f16, f32, f64)
_INTS = (i8, i16, i32, i64)


def kind_rank(dtype: DType) -> int:
    """0 for bool, 1 for integers, 2 for floats."""
    return _KIND[dtype.kind]


def promote_types(a: DType, b: DType) -> DType:
    """The type that holds both, by PyTorch's table (u8 with a signed type gives the next larger signed one; f16 with
    bf16 f32).
    """
    if a is b:
        return a
    ka, kb = kind_rank(a), kind_rank(b)
    if ka != kb:
        return a if ka > kb else b
    if ka == 2:
        if bf16 in (a, b):
            other = b if a is bf16 else a
            return f32 if other is f16 else other
        return _FLOATS[max(_FLOATS.index(a), _FLOATS.index(b))]
    if u8 in (a, b):
        other = b if a is u8 else a
        return i16 if other is i8 else other
    return _INTS[max(_INTS.index(a), _INTS.index(b))]


def number_type(value: Number) -> DType:
    """The type that a Python number stands for."""
    if isinstance(value, bool):
        return boolean
    return dtypes.default_ir() if isinstance(value, float) else i64


def result_type(tensors: Iterable[tuple[DType, int]], numbers: Iterable[Number] = ()) -> DType:
    """The common type of tensors, given as (dtype, rank), and Python numbers."""
    classes: list[DType | None] = [None, None, None]
    for dtype, rank in tensors:
        place = 0 if rank else 1
        held = classes[place]
        classes[place] = dtype if held is None else promote_types(held, dtype)
    for value in numbers:
        dtype, held = number_type(value), classes[2]
        classes[2] = dtype if held is None else promote_types(held, dtype)
    result: DType | None = None
    for found in classes:
        if found is not None and (result is None or kind_rank(found) > kind_rank(result)):
            result = found
    assert result is not None, "no operand"
    return result


def as_float(dtype: DType) -> DType:
    """The type itself if it is a float type, else the default float type."""
    return dtype if dtype.is_float else dtypes.default_ir()


def can_cast(source: DType, target: DType) -> bool:
    """Whether an in-place operation may store `source` in `target`: not from a higher kind to a lower one."""
    return kind_rank(source) <= kind_rank(target)
