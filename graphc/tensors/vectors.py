"""Products and distances of vectors along a dimension, traces, Kronecker products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes, i64
from graphc.tensors import elementwise, reductions, shaping
from graphc.tensors.casting import autocasts
from graphc.tensors.contracting import diagonal_node
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.out import out_form
from graphc.tensors.products import name_of, need_numbers, need_tensors
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@autocasts
def matrix_trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix; integers sum to int64."""
    need_tensors("trace", input=input)
    if input.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, but got tensor with dim {input.ndim}")
    need_numbers("trace", input)

    def emit(b: Builder, x: Node) -> Node:
        return b.reduce_sum(diagonal_node(b, x if x.dtype.is_float else b.cast(x, i64), 0, 1), (0,))

    return record("TraceBackward0", (input,), emit)


@out_form
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along `dim`, of size 3; other dimensions broadcast."""
    need_tensors("linalg_cross", input=input, other=other)
    return _cross(input, other, dim)


def _cross(input: Tensor, other: Tensor, dim: int) -> Tensor:
    if input.ndim != other.ndim:
        raise ShapeError("linalg.cross: inputs must have the same number of dimensions.")
    axis = wrap_dim(dim, input.ndim)
    n, m = input._type.shape[axis], other._type.shape[axis]
    if n != 3 or m != 3:
        raise ShapeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {n} and {m}")
    shape = broadcast_shapes(input._type.shape, other._type.shape)
    if input._type.dtype is not other._type.dtype:
        raise DTypeError(f"expected scalar type {name_of(input)} but found {name_of(other)}")
    need_numbers("cross", input)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        parts = []
        size = tuple(1 if i == axis else n for i, n in enumerate(shape))
        step = (1,) * len(shape)
        x, y = b.broadcast(x, shape), b.broadcast(y, shape)

        def part(node: Node, place: int) -> Node:
            return b.slice(node, tuple(place % 3 if i == axis else 0 for i in range(len(shape))), size, step)

        for i in range(3):
            plus = b.mul(part(x, i + 1), part(y, i + 2))
            parts.append(b.sub(plus, b.mul(part(x, i + 2), part(y, i + 1))))
        return b.concat(tuple(parts), axis)

    return record("LinalgCrossBackward0", (input, other), emit)


@out_form
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along `dim`; without `dim`, along the first dimension of size 3."""
    need_tensors("cross", input=input, other=other)
    if dim is not None:
        return _cross(input, other, dim)
    warn(
        "Using torch.cross without specifying the dim arg is deprecated.\nPlease either pass the dim explicitly or "
        "simply use torch.linalg.cross.\nThe default value of dim will change to agree with that of linalg.cross in a "
        "future release.",
    )
    threes = [i for i, n in enumerate(input._type.shape) if n == 3]
    if not threes:
        raise ShapeError(f"no dimension of size 3 in input; cross got {input._type} and {other._type}")
    return _cross(input, other, threes[0])


@out_form
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Sums of products along `dim`; other dimensions broadcast. Floats only."""
    need_tensors("linalg_vecdot", x=x, y=y)
    if not x._type.dtype.is_float:
        raise DTypeError(f"linalg.vecdot: Expected a floating point or complex tensor as input. Got {name_of(x)}")
    if x._type.dtype is not y._type.dtype:
        raise DTypeError(
            "linalg.vecdot: Expected x and y to have the same dtype, but found x of type "
            f"{name_of(x)} and y of type {name_of(y)} instead"
        )
    made: Any = elementwise.mul(x, y)
    return reductions.sum(made, dim)


def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of the matrices in two dimensions, the last ones by default."""
    return shaping.diagonal(A, offset, dim1, dim2)
