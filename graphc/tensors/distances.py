"""Distances of all pairs of vectors, and the bilinear form, with PyTorch's names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, InputError, RangeError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, broadcast_shapes, f32, f64, i64
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record
from graphc.tensors.norms import vector_norm_node
from graphc.tensors.products import name_of, need_tensors

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_MODES = (
    "use_mm_for_euclid_dist_if_necessary",
    "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)


def _need_distances(name: str, x: Tensor, p: float) -> None:
    if p < 0:
        raise UsageError(f"{name} only supports non-negative p values")
    if x._type.dtype not in (f32, f64):
        raise UnsupportedError(f"\"{name}\" not implemented for '{name_of(x)}'")


def _right_of_diagonal(b: Builder, n: int, device: str) -> Node:
    """Where each element right of the diagonal of an n x n matrix stands in it, row by row: i64[n * (n - 1) / 2].

    Counted from the last one, row k from below has k + 1 of them and begins at k * (k + 1) / 2. Its root is exact: next
    to a square there is none that would round to it, for n below 2**26.
    """
    type = TensorType(f64, (n * (n - 1) // 2,), device)

    def number(value: float) -> Node:
        return b.constant(value, type)

    place = b.sub(number(type.size - 1), b.iota(0, type))
    root = b.apply("sqrt", (b.add(b.mul(place, number(8)), number(1)),))
    row = b.apply("floor", (b.mul(b.sub(root, number(1)), number(0.5)),))
    inside = b.sub(place, b.mul(b.mul(row, b.add(row, number(1))), number(0.5)))
    flat = b.sub(b.mul(b.sub(number(n - 1), row), number(n)), b.add(inside, number(1)))
    return b.cast(flat, i64)


def _distance_node(b: Builder, off: Node, p: float, axis: int) -> Node:
    """The p-norm along `axis`; 0 over nothing. Differences that are 0 have gradient 0."""
    if not off.shape[axis]:
        return b.reduce_sum(off, (axis,))
    return vector_norm_node(b, off, p, (axis,))


@autocasts
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """The p-norm distances of all rows of `x1` (..., P, M) to all rows of `x2` (..., R, M): (..., P, R).

    Differences are formed in every `compute_mode`, which is the exact way.
    """
    need_tensors("cdist", x1=x1, x2=x2)
    if compute_mode not in _MODES:
        raise InputError(f"{compute_mode} is not a valid value for compute_mode")
    for name, x in (("X1", x1), ("X2", x2)):
        if x.ndim < 2:
            raise ShapeError(f"cdist only supports at least 2D tensors, {name} got: {x.ndim}D")
        if not x._type.dtype.is_float:
            raise DTypeError(f"cdist only supports floating-point dtypes, {name} got: {name_of(x)}")
    (*lead1, rows, m), (*lead2, columns, n) = x1._type.shape, x2._type.shape
    if m != n:
        raise ShapeError(f"X1 and X2 must have the same number of columns. X1: {m} X2: {n}")
    if x1._type.dtype is not x2._type.dtype:
        raise DTypeError(f"expected scalar type {name_of(x1)} but found {name_of(x2)}")
    _need_distances("cdist", x1, p)
    shape = (*broadcast_shapes(tuple(lead1), tuple(lead2)), rows, columns, m)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        x = b.broadcast(b.reshape(x, (*lead1, rows, 1, m)), shape)
        y = b.broadcast(b.reshape(y, (*lead2, 1, columns, m)), shape)
        return _distance_node(b, b.sub(x, y), float(p), len(shape) - 1)

    return record("CdistBackward0", (x1, x2), emit)


@autocasts
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of each two rows of a matrix, those of the first row first."""
    need_tensors("pdist", input=input)
    if input.ndim != 2:
        raise ShapeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if not input._type.dtype.is_float:
        raise DTypeError("pdist only supports floating-point dtypes")
    _need_distances("pdist", input, p)
    n, m = input._type.shape
    pairs = n * (n - 1) // 2

    def emit(b: Builder, x: Node) -> Node:
        if not pairs:
            return b.reduce_sum(b.reshape(b.slice(x, (0, 0), (0, m), (1, 1)), (0, m)), (1,))
        wide = (n, n, m)
        x1, x2 = b.broadcast(b.reshape(x, (n, 1, m)), wide), b.broadcast(b.reshape(x, (1, n, m)), wide)
        distances = b.reshape(_distance_node(b, b.sub(x1, x2), float(p), 2), (n * n,))
        return b.apply("gather", (distances, _right_of_diagonal(b, n, x.type.device)), {"axis": 0})

    return record("PdistBackward0", (input,), emit)


@autocasts
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1 (*, in1) and input2 (*, in2) by weight (out, in1, in2), plus bias (out): (*, out)."""
    need_tensors("bilinear", input1=input1, input2=input2, weight=weight)
    x, y, w = input1._type.shape, input2._type.shape, weight._type.shape
    if len(x) != len(y):
        raise ShapeError(f"bilinear(): input dimensions do not match: got {len(x)} and {len(y)}")
    for i, (n, m) in enumerate(zip(x[:-1], y[:-1], strict=True)):
        if n != m:
            raise ShapeError(f"bilinear(): input batch dimensions do not match at dim {i}: got {n} and {m}")
    if len(w) != 3:
        raise RangeError(
            f"Dimension out of range (expected to be in range of [{-len(w)}, {len(w) - 1}], but got 2); bilinear wants "
            f"a weight of 3 dimensions, got {weight._type}"
        )
    for name, n, m in (("input1", x[-1], w[1]), ("input2", y[-1], w[2])):
        if n != m:
            raise ShapeError(f"bilinear(): {name} size does not match weight size: got {n} but expected {m}")
    if bias is not None and bias._type.shape != w[:1]:
        raise ShapeError(
            f"bilinear(): bias size does not match weight size: got {bias._type.shape[0]} but expected {w[0]}"
        )
    for tensor in (input2, weight, *((bias,) if bias is not None else ())):
        if tensor._type.dtype is not input1._type.dtype:
            raise DTypeError(f"bilinear(): expected scalar type {name_of(input1)} but found {name_of(tensor)}")
    rows = math.prod(x[:-1])

    def emit(b: Builder, p: Node, q: Node, v: Node, *rest: Node) -> Node:
        inner = b.contract(b.reshape(p, (rows, w[1])), v, "b i, o i j -> b o j")
        made = b.contract(inner, b.reshape(q, (rows, w[2])), "b o j, b j -> b o")
        if rest:
            made = b.add(made, b.broadcast(rest[0], made.shape))
        return b.reshape(made, (*x[:-1], w[0]))

    operands: tuple[Any, ...] = (input1, input2, weight) if bias is None else (input1, input2, weight, bias)
    return record("ViewBackward0" if bias is None else "AddBackward0", operands, emit)
