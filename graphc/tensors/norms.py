"""Norms of vectors and distances, with PyTorch's names and subgradients."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.errors import DTypeError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType
from graphc.promotion import promote_types
from graphc.tensors import reductions, shaping
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.linear.factorisations import svdvals
from graphc.tensors.operands import combine, plain
from graphc.tensors.out import out_form
from graphc.tensors.reductions import Dims, axes_of, keep
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_NAME = "linalg.vector_norm"
_WHOLE_POWERS = (3.0, 4.0)


def _powers(b: Builder, x: Node, order: float) -> Node:
    """|x| to the power `order`, with gradient 0 at zero, as PyTorch defines it."""
    size = b.apply("abs", (x,))
    if order in _WHOLE_POWERS:
        square = b.mul(x, x)
        return b.mul(square, size if order == 3 else square)
    zero = b.apply("eq", (x, b.zeros_like(x)))
    raised = b.apply("pow", (b.select(zero, 1.0, size), b.constant(order, x.type)))
    return b.select(zero, 0.0 if order > 0 else math.inf, raised)


def _root(b: Builder, total: Node, order: float) -> Node:
    """total to the power 1/order, with gradient 0 at zero."""
    zero = b.apply("eq", (total, b.zeros_like(total)))
    safe = b.select(zero, 1.0, total)
    made = b.apply("sqrt", (safe,)) if order == 2 else b.apply("pow", (safe, b.constant(1 / order, safe.type)))
    return b.select(zero, 0.0 if order > 0 else math.inf, made)


def vector_norm_node(b: Builder, x: Node, order: float, axes: tuple[int, ...]) -> Node:
    """The `order`-norm of float x over `axes`; the number of nonzeros for order 0, extremes for infinite orders."""
    if order == 0:
        return b.reduce_sum(b.cast(b.apply("ne", (x, b.zeros_like(x))), x.dtype), axes)
    if math.isinf(order) or not axes:
        size = b.apply("abs", (x,))
        op = "reduce_max" if order > 0 else "reduce_min"
        return b.apply(op, (size,), {"axes": axes, "ties": "even"}) if axes else size
    if order == 1:
        return b.reduce_sum(b.apply("abs", (x,)), axes)
    if order == 2:
        return _root(b, b.reduce_sum(b.mul(x, x), axes), 2)
    return _root(b, b.reduce_sum(_powers(b, x, order), axes), order)


def vector_norm(input: Tensor, order: Any, dim: Dims, keepdim: bool, dtype: object) -> Tensor:
    """The `order`-norm over `dim`, computed in `dtype`. Errors name `linalg.vector_norm`, as PyTorch's do."""
    given = input._type.dtype
    if not given.is_float:
        raise DTypeError(f"{_NAME}: Expected a floating point or complex tensor as input. Got {type_name(given)}")
    wanted = given if dtype is None else _wider(given, dtypes.to_ir(dtype))
    axes = axes_of(dim, input.ndim, "norm")
    power = float(plain(order))
    if (power < 0 or power == math.inf) and any(input._type.shape[a] == 0 for a in axes):
        if len(axes) == input.ndim:
            text = "inf" if power == math.inf else "-inf" if math.isinf(power) else str(plain(order))
            raise UsageError(
                f"{_NAME} cannot compute the {text} norm on an empty tensor because the operation does not have an "
                "identity"
            )
        raise ShapeError(f"{_NAME} cannot compute the {power} norm on a dimension without elements")

    def emit(b: Builder, x: Node) -> Node:
        if 0 in x.shape and math.isinf(power):
            kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
            return keep(b, b.constant(0, x.type.with_shape(kept).with_dtype(wanted)), axes, x.shape, keepdim)
        return keep(b, vector_norm_node(b, b.cast(x, wanted), power, axes), axes, x.shape, keepdim)

    return record("LinalgVectorNormBackward0", (input,), emit)


def _wider(given: DType, wanted: DType) -> DType:
    if not wanted.is_float:
        raise DTypeError(f"{_NAME}: dtype should be floating point or complex. Got {type_name(wanted)}")
    if promote_types(given, wanted) is not wanted:
        raise DTypeError(
            f"{_NAME}: the dtype of the input ({type_name(given)}) should be convertible without narrowing to the "
            f"specified dtype ({type_name(wanted)})"
        )
    return wanted


def nuclear(input: Tensor, dim: Dims, keepdim: bool, dtype: object) -> Tensor:
    """The sum of the singular values of the matrices in two dimensions."""
    given: Any = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if len(given) != 2:
        raise ShapeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {' '.join(map(str, given))}")
    rows, columns = (wrap_dim(d, input.ndim) for d in given)
    source = input if dtype is None else shaping.to_dtype(input, dtypes.to_ir(dtype))
    made = reductions.sum(svdvals(shaping.movedim(source, (rows, columns), (-2, -1))), -1)
    for place in sorted((rows, columns)) if keepdim else ():
        made = shaping.unsqueeze(made, place)
    return made


@out_form
def norm(
    input: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False, dtype: object = None
) -> Tensor:
    """The p-norm of the elements over `dim`; "fro" and None are p = 2."""
    if p == "nuc":
        return nuclear(input, dim, keepdim, dtype)
    if isinstance(p, str) and p != "fro":
        raise UsageError(f"linalg.matrix_norm: Order {p} not supported.")
    return vector_norm(input, 2 if p is None or p == "fro" else p, dim, keepdim, dtype)


@autocasts
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of `input - other`, broadcast."""
    order = float(plain(p))

    def emit(b: Builder, x: Node, y: Node) -> Node:
        if not x.dtype.is_float:
            raise DTypeError(f"{_NAME}: Expected a floating point or complex tensor as input. Got {type_name(x.dtype)}")
        return vector_norm_node(b, b.sub(x, y), order, tuple(range(x.type.rank)))

    return combine("DistBackward0", (input, other), emit)


@out_form
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Sub-tensors along `dim` whose p-norm is above `maxnorm` are scaled down to it."""
    order, most = float(plain(p)), float(plain(maxnorm))
    if order <= 0:
        raise UsageError("renorm: non-positive-norm not supported")
    if most < 0:
        raise UsageError(f"renorm: expected maxnorm to be >= 0 but got {plain(maxnorm)}")
    if input.ndim < 2:
        raise UsageError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    axis = wrap_dim(dim, input.ndim)
    others = tuple(i for i in range(input.ndim) if i != axis)

    def emit(b: Builder, x: Node) -> Node:
        length = vector_norm_node(b, x, order, others)
        above = b.apply("gt", (length, b.constant(most, length.type)))
        # PyTorch adds 1e-7, so that the scaled norm does not end above the bound.
        factor = b.select(above, b.div(b.constant(most, length.type), b.add(length, 1e-7)), 1.0)
        return b.mul(x, b.expand_dims(factor, others, x.shape))

    return record("RenormBackward0", (input,), emit)
