"""What linear algebra asks of its operands, in PyTorch's words, and errors that depend on values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import DTypeError, KindError, LinAlgError, ShapeError, UnsupportedError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.packed import last_row
from graphc.ir.types import broadcast_shapes, f32, f64, i32
from graphc.late_checks import Report
from graphc.recording import current
from graphc.storage import Value
from graphc.tensors.core import TensorBase, read
from graphc.tensors.products import name_of

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

SINGULAR = "The diagonal element {} is zero, the inversion could not be completed because the input matrix is singular."
NOT_POSITIVE = (
    "The factorization could not be completed because the input is not positive-definite (the leading minor of order "
    "{} is not positive-definite)."
)


def need_matrices(name: str, a: Tensor, square: bool = False, kernel: str = "", any_dtype: bool = False) -> None:
    """`a` holds matrices of float32 or float64.

    `kernel` is PyTorch's name in the error for 16-bit floats, and with `any_dtype` also for integers.
    """
    if not isinstance(a, TensorBase):
        function = name.replace("linalg.", "linalg_")
        raise KindError(f"{function}(): argument 'A' (position 1) must be Tensor, not {type(a).__name__}")
    if a.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    rows, columns = a._type.shape[-2:]
    if square and rows != columns:
        raise ShapeError(f"{name}: A must be batches of square matrices, but they are {rows} by {columns} matrices")
    need_floats(name, a, kernel, any_dtype)


def need_floats(name: str, a: Tensor, kernel: str = "", any_dtype: bool = False) -> None:
    """The dtype is float32 or float64."""
    dtype = a._type.dtype
    if not dtype.is_float and not any_dtype:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {name_of(a)}")
    if dtype not in (f32, f64):
        if kernel:
            raise UnsupportedError(f"\"{kernel}\" not implemented for '{name_of(a)}'")
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {name_of(a)}")


def same_dtype(name: str, a: Tensor, y: Tensor) -> None:
    """Both sides of an equation have one dtype."""
    if a._type.dtype is not y._type.dtype:
        raise DTypeError(
            f"{name}: Expected A and B to have the same dtype, but found A of type {name_of(a)} and B of type "
            f"{name_of(y)} instead"
        )


def fitting(name: str, a: tuple[int, ...], y: tuple[int, ...], left: bool) -> tuple[int, ...]:
    """The leading dimensions of the solution of AX = B, or of XA = B; ShapeError when the sides do not fit."""
    if a[-1] != (y[-2] if left else y[-1]):
        raise ShapeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX' if left else 'XA'} = B "
            f"({a[-2]}x{a[-1]} and {y[-2]}x{y[-1]})"
        )
    return broadcast_shapes(y[:-2], a[:-2])


def spread(b: Builder, x: Node, lead: tuple[int, ...]) -> Node:
    """Matrices repeated along leading dimensions."""
    return b.broadcast(x, (*lead, *x.shape[-2:]))


def fact(b: Builder, packed: Node) -> Node:
    """What a packed result says in its last row: i32, one number for each matrix."""
    row = last_row(b, packed)
    lead = row.shape[:-1]
    if not row.shape[-1]:
        return b.constant(0, row.type.with_shape(lead).with_dtype(i32))
    zeros, ones = (0,) * row.type.rank, (1,) * row.type.rank
    first = b.reshape(b.slice(row, zeros, (*lead, 1), ones), lead)
    return b.cast(b.apply("detach", (first,)), i32)


class _Failed(Report):
    """The error for the first number of an info tensor (int32) that is not 0; `text` may show it."""

    __slots__ = ("_batched", "_locs", "_name", "_text")

    def __init__(self, name: str, text: str, batched: bool, locs: Iterable[object]) -> None:
        self._name, self._text, self._batched, self._locs = name, text, batched, locs

    def __call__(self, data: np.ndarray) -> Exception | None:
        info = data.view(np.int32)
        bad = np.flatnonzero(info)
        if not len(bad):
            return None
        element = f"(Batch element {bad[0]}): " if self._batched else ""
        error = LinAlgError(f"{self._name}: {element}{self._text.format(info[bad[0]])}")
        error.locs, error.made_now = self._locs, False
        return error


def raise_later(info: Tensor, name: str, text: str) -> None:
    """Raise LinAlgError at the next flush when a number of `info` (int32) is not 0; `text` may show that number."""
    if not info._type.size:
        return
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, info, False)
        # Of what was recorded just now, the operands are enough to compute it.
        parents = keep.parents if isinstance(keep, Value) and keep.parents else (keep,)
        recorder.check(node, Value(node, parents), _Failed(name, text, info.ndim > 0, b.locs))
