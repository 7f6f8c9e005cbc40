"""Distances of vectors, and the losses made of them. Formulas are those of PyTorch's documentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.errors import InputError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes
from graphc.loss_reduction import check_reduction, reduced, reduced_name, reduced_node, reduction_name
from graphc.promotion import as_float, promote_types
from graphc.tensors import elementwise
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, wrap_dim
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.norms import norm
from graphc.tensors.widening import in_single
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def clamp_min_node(b: Builder, x: Node) -> Node:
    """x, at least 0; at 0 itself the gradient passes."""
    zero = b.constant(0.0, x.type)
    return b.select(b.apply("lt", (x, zero)), zero, x)


def _clamped(x: Tensor) -> Tensor:
    return record("ClampMinBackward0", (x,), lambda b, x: clamp_min_node(b, x))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dimension."""
    return norm(elementwise.add(elementwise.sub(x1, x2), eps), p, -1, keepdim)


@autocasts
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 over the product of their lengths along `dim`, each length at least `eps`."""
    dtype = promote_types(x1._type.dtype, x2._type.dtype)
    if not dtype.is_float:
        raise UsageError(f"expected common dtype to be floating point, yet common dtype is {type_name(dtype)}")
    shape = broadcast_shapes(x1._type.shape, x2._type.shape)
    axes = (wrap_dim(dim, len(shape)),) if shape else ()

    def emit(b: Builder, *nodes: Node) -> Node:
        x, y = (b.broadcast(b.cast(n, dtype), shape) for n in nodes)

        def unit(v: Node) -> Node:
            squares = b.reduce_sum(b.mul(v, v), axes)
            # The root of 0 has no slope: its gradient is 0.
            flat = b.apply("le", (squares, b.zeros_like(squares)))
            root = b.apply("sqrt", (b.select(flat, b.constant(1, squares.type), squares),))
            root = b.select(flat, b.zeros_like(root), root)
            # Where `eps` stands for a length, the gradient goes to the length all the same.
            least = b.constant(eps, squares.type)
            short = b.add(b.sub(root, b.apply("detach", (root,))), least)
            length = b.select(b.apply("lt", (root, least)), short, root)
            return b.div(v, b.expand_dims(length, axes, shape))

        return b.reduce_sum(b.mul(unit(x), unit(y)), axes)

    return record("SumBackward1", (x1, x2), emit)


@autocasts
def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where the target is 1, max(0, margin - x) where it is -1 (both terms where it is neither)."""
    reduction = reduction_name(size_average, reduce, reduction)
    check_reduction(reduction)
    shape = broadcast_shapes(input._type.shape, target._type.shape)
    if not input._type.dtype.is_float:
        raise UsageError(f"hinge_embedding_loss: the input must hold floats, but is {input._type}")

    def emit(b: Builder, x: Node, y: Node) -> Node:
        x, y = b.broadcast(x, shape), b.broadcast(y, shape)
        far = clamp_min_node(b, b.sub(b.constant(margin, x.type), x))
        zero = b.zeros_like(x)
        plus = b.select(b.apply("ne", (y, b.constant(1, y.type))), far, zero)
        minus = b.select(b.apply("ne", (y, b.constant(-1, y.type))), x, zero)
        return reduced_node(b, b.add(plus, minus), reduction)

    return record(reduced_name("AddBackward0", reduction), (input, target), emit)


@autocasts
def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin - target * (x1 - x2))."""
    reduction = reduction_name(size_average, reduce, reduction)
    check_reduction(reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise UsageError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
            f"{input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    off = elementwise.mul(elementwise.neg(target), elementwise.sub(input1, input2))
    return reduced(_clamped(elementwise.add(off, margin)), reduction)


@autocasts
def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos(x1, x2) where the target is 1, max(0, cos(x1, x2) - margin) where it is -1."""
    reduction = reduction_name(size_average, reduce, reduction)
    check_reduction(reduction)
    if target.ndim > 1:
        raise UsageError("0D or 1D target tensor expected, multi-target not supported")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        raise UsageError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found inputs with sizes "
            f"{list(input1._type.shape)} and {list(input2._type.shape)}."
        )
    dtype = as_float(promote_types(input1._type.dtype, input2._type.dtype))
    shape = broadcast_shapes(input1._type.shape, input2._type.shape)
    axis = target.ndim
    whole = broadcast_shapes(shape[:-1], target._type.shape)

    def emit(b: Builder, *nodes: Node) -> Node:
        x, y = (b.broadcast(b.cast(n, dtype), shape) for n in nodes[:2])
        sign = b.broadcast(nodes[2], whole)

        def dot(u: Node, v: Node) -> Node:
            return b.reduce_sum(b.mul(u, v), (axis,))

        lengths = b.mul(b.add(dot(x, x), 1e-12), b.add(dot(y, y), 1e-12))
        cosine = b.broadcast(b.div(dot(x, y), b.apply("sqrt", (lengths,))), whole)
        zero = b.zeros_like(cosine)
        near = b.sub(b.constant(1, cosine.type), cosine)
        far = clamp_min_node(b, b.sub(cosine, float(margin)))
        plus = b.select(b.apply("eq", (sign, b.constant(1, sign.type))), near, zero)
        minus = b.select(b.apply("eq", (sign, b.constant(-1, sign.type))), far, zero)
        return reduced_node(b, b.add(plus, minus), reduction)

    return record(reduced_name("AddBackward0", reduction), (input1, input2, target), emit)


def _check_triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> None:
    if margin <= 0:
        raise InputError(f"margin must be greater than 0, got {margin}")
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )


@autocasts
@in_single
def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + |a - p| - |a - n|) by `pairwise_distance`; `swap` takes |p - n| where it is smaller than |a - n|
    (Balntas et al., 2016).
    """
    reduction = reduction_name(size_average, reduce, reduction)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    return triplet_margin_with_distance_loss(
        anchor, positive, negative, distance_function=distance, margin=margin, swap=swap, reduction=reduction
    )


@kinds_checked
def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` by any distance."""
    check_reduction(reduction)
    _check_triplet(anchor, positive, negative, margin)
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = elementwise.minimum(far, distance(positive, negative))
    return reduced(_clamped(elementwise.sub(elementwise.add(near, margin), far)), reduction)
