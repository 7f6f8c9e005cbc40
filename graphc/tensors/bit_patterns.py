"""The bytes of elements read as elements of another dtype, made of IR operators."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, i16, i32, i64, u8


def integer_of(dtype: DType) -> DType:
    """The integer type of the size of a dtype; unsigned for single bytes."""
    return {64: i64, 32: i32, 16: i16, 8: u8}[dtype.bits]


def _as_integers(b: Builder, x: Node) -> Node:
    integer = integer_of(x.dtype)
    if x.dtype is boolean or x.dtype is integer:
        return b.cast(x, integer)
    return b.apply("bitcast", (x,), {"dtype": integer})


def _from_integers(b: Builder, x: Node, dtype: DType) -> Node:
    if dtype is boolean or dtype is x.dtype:
        return b.cast(x, dtype)
    return b.apply("bitcast", (x,), {"dtype": dtype})


def reinterpret(b: Builder, x: Node, dtype: DType, shape: tuple[int, ...]) -> Node:
    """The memory of `x` in row-major order as elements of `dtype`, in a `shape` that has as many bytes.

    Only the last dimension differs. The first byte in memory is the lowest, as on all machines that kernels are built
    for; bytes other than 0 are true.
    """
    bits = _as_integers(b, x)
    wide, narrow = max(x.dtype.bits, dtype.bits), min(x.dtype.bits, dtype.bits)
    parts = wide // narrow
    if parts == 1:
        return _from_integers(b, bits, dtype)
    if dtype.bits == narrow:
        type = bits.type.with_shape((*shape[:-1], x.shape[-1], parts))
        bits = b.broadcast(b.reshape(bits, (*x.shape, 1)), type.shape)
        bits = b.apply("shift_right_logical", (bits, _places(b, type, narrow)))
        return _from_integers(b, b.reshape(b.cast(bits, integer_of(dtype)), shape), dtype)
    type = x.type.with_dtype(integer_of(dtype)).with_shape((*shape, parts))
    bits = b.cast(b.reshape(bits, type.shape), type.dtype)
    bits = b.apply("bitwise_and", (bits, b.constant((1 << narrow) - 1, type)))
    bits = b.apply("shift_left", (bits, _places(b, type, narrow)))
    return _from_integers(b, b.apply("reduce_sum", (bits,), {"axes": (len(shape),)}), dtype)


def _places(b: Builder, type: TensorType, bits: int) -> Node:
    """How far each part, along the last axis, is shifted."""
    return b.mul(b.iota(type.rank - 1, type), bits)
