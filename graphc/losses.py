"""Loss functions with PyTorch's signatures. Classes are picked by comparing with a count, so no gather is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, broadcast_shapes, i64
from graphc.promotion import promote_types
from graphc.recording import current
from graphc.tensors.core import TensorBase, finish, read, record, wants_grad
from graphc.tensors.indexing import check_range
from graphc.tensors.normalising import log_softmax_node
from graphc.tensors.reductions import mean_node

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _reduced(b: Builder, x: Node, reduction: str) -> Node:
    axes = tuple(range(x.type.rank))
    if reduction == "mean":
        return mean_node(b, x, axes)
    if reduction == "sum":
        return b.reduce_sum(x, axes)
    if reduction == "none":
        return x
    raise ValueError(f"{reduction} is not a valid value for reduction")


def _pairwise(
    name: str, input: Tensor, target: Tensor, reduction: str, emit: Any, weight: Tensor | None = None
) -> Tensor:
    """Record an elementwise loss of two tensors (and a weight), broadcast, and its reduction."""
    given = [t for t in (input, target, weight) if isinstance(t, TensorBase)]
    shape = broadcast_shapes(*(t._type.shape for t in given))
    dtype = promote_types(input._type.dtype, target._type.dtype)

    def whole(b: Builder, *nodes: Node) -> Node:
        return _reduced(b, emit(b, *(b.broadcast(b.cast(n, dtype), shape) for n in nodes)), reduction)

    return record(name, given, whole)


def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """(x - y) squared."""

    def emit(b: Builder, x: Node, y: Node) -> Node:
        off = b.sub(x, y)
        return b.mul(off, off)

    return _pairwise("MseLossBackward0", input, target, reduction, emit)


def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Tensor:
    """|x - y|."""
    return _pairwise("MeanBackward0", input, target, reduction, lambda b, x, y: b.apply("abs", (b.sub(x, y),)))


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Half the square over `beta` where |x - y| < beta, else |x - y| - beta / 2."""
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        far = b.apply("abs", (b.sub(x, y),))
        near = b.apply("lt", (far, b.constant(beta, far.type)))
        return b.select(near, b.mul(b.mul(far, far), 0.5 / beta), b.sub(far, 0.5 * beta))

    return _pairwise("SmoothL1LossBackward0", input, target, reduction, emit)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """`smooth_l1_loss` times `delta`."""
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")

    def emit(b: Builder, x: Node, y: Node) -> Node:
        far = b.apply("abs", (b.sub(x, y),))
        near = b.apply("lt", (far, b.constant(delta, far.type)))
        return b.select(near, b.mul(b.mul(far, far), 0.5), b.mul(b.sub(far, 0.5 * delta), delta))

    return _pairwise("HuberLossBackward0", input, target, reduction, emit)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input), 0 where the target is 0; "batchmean" divides the sum by the first extent."""

    def emit(b: Builder, x: Node, y: Node) -> Node:
        if log_target:
            return b.mul(b.exp(y), b.sub(y, x))
        positive = b.apply("gt", (y, b.zeros_like(y)))
        safe = b.select(positive, y, b.constant(1, y.type))
        return b.sub(b.mul(y, b.log(safe)), b.mul(y, x))

    if reduction == "batchmean":
        return _pairwise("KlDivBackward0", input, target, "sum", emit) / max(
            input._type.shape[0] if input.ndim else 1, 1
        )
    return _pairwise("KlDivBackward0", input, target, reduction, emit)


def _same_size(input: Tensor, target: Tensor, name: str) -> None:
    if input._type.shape != target._type.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
            if name == "binary_cross_entropy"
            else f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """-(y log x + (1 - y) log(1 - x)), logarithms cut off at -100."""
    _same_size(input, target, "binary_cross_entropy")

    def emit(b: Builder, x: Node, y: Node, *w: Node) -> Node:
        hit, miss = _cut(b, b.log(x)), _cut(b, b.apply("log1p", (b.neg(x),)))
        loss = b.neg(b.add(b.mul(y, hit), b.mul(b.sub(b.constant(1, y.type), y), miss)))
        return b.mul(loss, w[0]) if w else loss

    return _pairwise("BinaryCrossEntropyBackward0", input, target, reduction, emit, weight)


def _cut(b: Builder, x: Node) -> Node:
    floor = b.constant(-100, x.type)
    return b.select(b.apply("lt", (x, floor)), floor, x)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of sigmoid(x), computed without overflow: (1 - y) x + w log(1 + exp(-x))."""
    _same_size(input, target, "binary_cross_entropy_with_logits")
    extra = [t for t in (weight, pos_weight) if isinstance(t, TensorBase)]

    def emit(b: Builder, x: Node, y: Node, *rest: Node) -> Node:
        left = [b.broadcast(b.cast(n, x.dtype), x.shape) for n in rest]
        y = b.cast(y, x.dtype)
        one = b.constant(1, x.type)
        scale = left.pop(0) if weight is not None else None
        positive = b.apply("gt", (x, b.zeros_like(x)))
        size = b.select(positive, x, b.neg(x))
        low = b.select(positive, b.zeros_like(x), b.neg(x))
        softplus = b.add(b.apply("log1p", (b.exp(b.neg(size)),)), low)
        factor = b.add(b.mul(b.sub(left.pop(0), 1.0), y), one) if pos_weight is not None else None
        loss = b.add(b.mul(b.sub(one, y), x), b.mul(factor, softplus) if factor is not None else softplus)
        return _reduced(b, b.mul(loss, scale) if scale is not None else loss, reduction)

    return record("BinaryCrossEntropyWithLogitsBackward0", (input, target, *extra), emit)


# classes


def _class_axis(shape: Sequence[int]) -> int:
    return 0 if len(shape) == 1 else 1


def _check_target(input: Tensor, target: Tensor, axis: int) -> None:
    shape = input._type.shape
    wanted = tuple(n for i, n in enumerate(shape) if i != axis)
    if target._type.shape != wanted:
        if target.ndim and shape and target._type.shape[0] != shape[0] and len(shape) > 1:
            raise ValueError(
                f"Expected input batch_size ({shape[0]}) to match target batch_size ({target._type.shape[0]})."
            )
        raise ShapeError(f"Expected target size {list(wanted)}, got {list(target._type.shape)}")


def nll_node(
    b: Builder,
    logs: Node,
    target: Node,
    weight: Node | None,
    axis: int,
    ignore_index: int,
    reduction: str,
    smoothing: float = 0.0,
) -> Node:
    """-weight[y] * logs[y]; "mean" divides by the sum of the weights of the targets that count."""
    classes = logs.shape[axis]
    wide = TensorType(i64, logs.shape)
    kept = tuple(1 if i == axis else n for i, n in enumerate(logs.shape))
    spread = b.broadcast(b.reshape(b.cast(target, i64), kept), logs.shape)
    hit = b.apply("eq", (b.iota(axis, wide), spread))
    counted = b.apply("ne", (b.cast(target, i64), b.constant(ignore_index, TensorType(i64, target.shape))))
    dtype = logs.dtype
    ones = b.constant(1, TensorType(dtype, target.shape))
    zeros = b.zeros_like(ones)
    row = tuple(classes if i == axis else 1 for i in range(logs.type.rank))
    per_class = None if weight is None else b.broadcast(b.reshape(b.cast(weight, dtype), row), logs.shape)
    weighted = logs if per_class is None else b.mul(logs, per_class)
    picked = b.neg(b.reduce_sum(b.select(hit, weighted, b.zeros_like(weighted)), (axis,)))
    loss = b.select(counted, picked, zeros)
    if smoothing:
        even = b.select(counted, b.neg(b.reduce_sum(weighted, (axis,))), zeros)
        loss = b.add(b.mul(loss, 1 - smoothing), b.mul(even, smoothing / classes))
    if reduction == "none":
        return loss
    axes = tuple(range(loss.type.rank))
    total = b.reduce_sum(loss, axes)
    if reduction == "sum":
        return total
    if reduction != "mean":
        raise ValueError(f"{reduction} is not a valid value for reduction")
    share = ones if per_class is None else b.reduce_sum(b.select(hit, per_class, b.zeros_like(per_class)), (axis,))
    return b.div(total, b.reduce_sum(b.select(counted, share, zeros), axes))


def _class_loss(
    name: str,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothing: float,
    logits: bool,
) -> Tensor:
    axis = _class_axis(input._type.shape)
    _check_target(input, target, axis)
    classes = input._type.shape[axis]
    if weight is not None and weight._type.shape != (classes,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
            f"tensor of shape: "
            f"{list(weight._type.shape)}"
        )
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        y, keep_y = read(recorder, target, False)
        keeps = [keep, keep_y]
        w = None
        if weight is not None:
            w, keep_w = read(recorder, weight, False)
            keeps.append(keep_w)
        _check_classes(recorder, y, keep_y, classes, ignore_index)
        logs = log_softmax_node(b, x, axis) if logits else x
        return finish(
            recorder, nll_node(b, logs, y, w, axis, ignore_index, reduction, smoothing), tuple(keeps), name, grad
        )


def _check_classes(recorder: Any, target: Node, keep: Any, classes: int, ignore_index: int) -> None:
    b = recorder.b
    ignored = b.apply("eq", (target, b.constant(ignore_index, target.type)))
    seen = b.select(ignored, b.zeros_like(target), target)
    check_range(
        recorder, seen, keep, classes, 0, f"Target is out of bounds: classes are numbered from 0 to {classes - 1}."
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[y] * input[y]: `input` holds logarithms of probabilities, (C), (N, C) or (N, C, d1, ...)."""
    return _class_loss("NllLossBackward0", input, target, weight, ignore_index, reduction, 0.0, False)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of softmax(input): targets are class numbers, or probabilities in the input's shape.

    IndexError, when looked at, for class numbers out of range (`ignore_index` is allowed).
    """
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if not target._type.dtype.is_float:
        return _class_loss("NllLossBackward0", input, target, weight, ignore_index, reduction, label_smoothing, True)
    axis = _class_axis(input._type.shape)
    if target._type.shape != input._type.shape:
        raise ShapeError(
            f"Expected floating point type for target with class probabilities to have size {list(input._type.shape)}, "
            f"got {list(target._type.shape)}"
        )
    classes = input._type.shape[axis]

    def emit(b: Builder, x: Node, y: Node, *w: Node) -> Node:
        logs = log_softmax_node(b, x, axis)
        y = b.cast(y, x.dtype)
        if label_smoothing:
            y = b.add(b.mul(y, 1 - label_smoothing), label_smoothing / classes)
        if w:
            row = tuple(classes if i == axis else 1 for i in range(x.type.rank))
            logs = b.mul(logs, b.broadcast(b.reshape(w[0], row), x.shape))
        loss = b.neg(b.reduce_sum(b.mul(logs, y), (axis,)))
        if reduction == "mean":
            total = b.reduce_sum(loss, tuple(range(loss.type.rank)))
            return b.div(total, b.constant(math.prod(loss.shape), total.type))
        return _reduced(b, loss, reduction)

    given = [t for t in (input, target, weight) if isinstance(t, TensorBase)]
    return record("DivBackward1", given, emit)
