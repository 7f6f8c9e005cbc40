"""Losses of scores for classes. Classes are picked by comparing with a count, so no gather is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.activations import positive_part, softplus_node
from graphc.errors import DTypeError, InputError, OutOfRange, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes, i64, u8
from graphc.linear import linear
from graphc.loss_reduction import check_reduction, given, reduced_name, reduced_node, reduction_name
from graphc.recording import Recorder, current
from graphc.refusing import need_float, need_same_dtype, refuse_gradient
from graphc.storage import Value
from graphc.tensors.casting import autocasts
from graphc.tensors.core import finish, read, record, wants_grad
from graphc.tensors.emitting import emitted
from graphc.tensors.halves import Emit
from graphc.tensors.indexing import check_range, outside
from graphc.tensors.normalising import log_softmax_node
from graphc.tensors.plans import Plans
from graphc.tensors.widening import in_single
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


_plans: Plans[Emit] = Plans()


def _class_axis(shape: Sequence[int]) -> int:
    return 0 if len(shape) == 1 else 1


def _check_target(input: Tensor, target: Tensor, axis: int) -> None:
    """PyTorch's errors for the shape and the dtype of class numbers."""
    shape, found = input._type.shape, target._type.shape
    if not shape:
        raise InputError(f"Expected 1 or more dimensions (got {len(shape)})")
    wanted = tuple(n for i, n in enumerate(shape) if i != axis)
    if found != wanted and not (len(shape) == 1 and found == (1,)):
        if len(shape) > 1 and (not found or found[0] != shape[0]):
            raise InputError(
                f"Expected input batch_size ({shape[0]}) to match target batch_size ({found[0] if found else ()})."
            )
        if len(shape) == 4:
            raise ShapeError(f"size mismatch (got input: {list(shape)} , target: {list(found)})")
        if len(shape) <= 2:
            raise ShapeError(f"0D or 1D target tensor expected, multi-target not supported; got {target._type}")
        raise ShapeError(f"Expected target size {list(wanted)}, got {list(found)}")
    if target._type.dtype not in (i64, u8):
        raise DTypeError(f"expected target dtype to be Long or Byte, but got {type_name(target._type.dtype)}")


def _nll_node(
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
    target = b.cast(target, i64)
    wide = logs.type.with_dtype(i64)
    kept = tuple(1 if i == axis else n for i, n in enumerate(logs.shape))
    spread = b.broadcast(b.reshape(target, kept), logs.shape)
    hit = b.apply("eq", (b.iota(axis, wide), spread))
    counted = b.apply("ne", (target, b.constant(ignore_index, target.type)))
    dtype = logs.dtype
    ones = b.constant(1, target.type.with_dtype(dtype))
    zeros = b.zeros_like(ones)
    row = tuple(classes if i == axis else 1 for i in range(logs.type.rank))
    per_class = None if weight is None else b.broadcast(b.reshape(weight, row), logs.shape)
    weighted = logs if per_class is None else b.mul(logs, per_class)
    picked = b.neg(b.reduce_sum(b.select(hit, weighted, b.zeros_like(weighted)), (axis,)))
    loss = b.select(counted, b.reshape(picked, target.shape), zeros)
    if smoothing:
        even = b.select(counted, b.reshape(b.neg(b.reduce_sum(weighted, (axis,))), target.shape), zeros)
        loss = b.add(b.mul(loss, 1 - smoothing), b.mul(even, smoothing / classes))
    if reduction == "none":
        return loss if logs.type.rank > 1 else b.reshape(loss, ())
    axes = tuple(range(loss.type.rank))
    total = b.reduce_sum(loss, axes)
    if reduction == "sum":
        return total
    share = ones
    if per_class is not None:
        share = b.reduce_sum(b.select(hit, per_class, b.zeros_like(per_class)), (axis,))
    return b.div(total, b.reduce_sum(b.select(counted, b.reshape(share, target.shape), zeros), axes))


def _nll_name(rank: int, reduction: str, smoothing: float) -> str:
    if smoothing:
        return "AddBackward0"
    if rank <= 2:
        return "NllLossBackward0"
    return "ViewBackward0" if rank != 4 and reduction == "none" else "NllLoss2DBackward0"


def _class_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    smoothing: float,
    logits: bool,
) -> Tensor:
    arguments = (ignore_index, reduction, smoothing, logits)
    key = _plans.key(input, target, weight, *arguments)
    emit = _plans.get(key)
    if emit is None:
        _check_class_loss(input, target, weight, reduction, logits)
        emit = _plans.keep(key, _class_loss_emitter(_class_axis(input._type.shape), *arguments))
    if weight is not None:
        refuse_gradient("nll_loss", weight=weight)
    axis = _class_axis(input._type.shape)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        # The weight of class numbers gets no gradient.
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        y, keep_y = read(recorder, target, False)
        nodes, keeps = [x, y], [keep, keep_y]
        if weight is not None:
            w, keep_w = read(recorder, weight, False)
            nodes.append(w)
            keeps.append(keep_w)
        _check_classes(recorder, y, keep_y, input._type.shape[axis], ignore_index)
        made = emitted(b, emit, nodes, nodes, not smoothing, keeps)
        name = _nll_name(input.ndim, reduction, smoothing)
        return finish(recorder, made, tuple(keeps), name, grad, nodes, True)


def _class_loss_emitter(axis: int, ignore_index: int, reduction: str, smoothing: float, logits: bool) -> Emit:
    def emit(b: Builder, x: Node, y: Node, *weight: Node) -> Node:
        logs = log_softmax_node(b, x, axis) if logits and x.type.size else x
        w = weight[0] if weight else None
        return _nll_node(b, logs, y, w, axis, ignore_index, reduction, smoothing)

    return emit


def _check_class_loss(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, logits: bool) -> None:
    check_reduction(reduction)
    axis = _class_axis(input._type.shape)
    need_float("log_softmax_lastdim_kernel_impl" if logits else "nll_loss_out_frame", input)
    _check_target(input, target, axis)
    classes = input._type.shape[axis]
    if weight is not None:
        if weight._type.shape != (classes,):
            raise UsageError(
                f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
                f"tensor of shape: {list(weight._type.shape)}"
            )
        need_same_dtype("cross_entropy" if logits else "nll_loss", input, weight)


def _check_classes(recorder: Recorder, target: Node, keep: Any, classes: int, ignore_index: int) -> None:
    if not target.type.size:
        return
    b = recorder.b
    kept = ("class_range", classes, ignore_index, target)
    flag = b.made(kept)
    if flag is None:
        target = b.cast(target, i64)
        ignored = b.apply("eq", (target, b.constant(ignore_index, target.type)))
        flag = b.keep(kept, outside(b, b.select(ignored, b.zeros_like(target), target), classes, 0))
    message = f"Target {{}} is out of bounds: classes are numbered from 0 to {classes - 1}."
    if not classes:
        raise OutOfRange(message)
    recorder.check(flag, Value(flag, (keep,)), OutOfRange(message))


@autocasts
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-weight[y] * input[y]: `input` holds logarithms of probabilities, (C), (N, C) or (N, C, d1, ...)."""
    reduction = reduction_name(size_average, reduce, reduction)
    return _class_loss(input, target, weight, ignore_index, reduction, 0.0, False)


@autocasts
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log-likelihood of softmax(input): targets are class numbers, or probabilities in the input's shape.

    IndexError, when looked at, for class numbers out of range (`ignore_index` is allowed).
    """
    reduction = reduction_name(size_average, reduce, reduction)
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise UsageError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if target._type.shape != input._type.shape:
        return _class_loss(input, target, weight, ignore_index, reduction, label_smoothing, True)
    if not target._type.dtype.is_float:
        raise DTypeError(
            f"Expected floating point type for target with class probabilities, got {type_name(target._type.dtype)}"
        )
    if ignore_index >= 0:
        raise UsageError("ignore_index is not supported for floating point target")
    return _probability_loss(input, target, weight, reduction, label_smoothing)


def _probability_loss(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    need_float("log_softmax_lastdim_kernel_impl", input)
    axis, shape = _class_axis(input._type.shape), input._type.shape
    if not shape:
        raise InputError("Expected 1 or more dimensions (got 0)")
    classes = shape[axis]
    if weight is not None and weight._type.shape != (classes,):
        raise UsageError(
            f"cross_entropy: weight tensor should be defined either for all {classes} classes or no classes but got "
            f"weight tensor of shape: {list(weight._type.shape)}"
        )
    dtype = max((input._type.dtype, target._type.dtype), key=lambda d: d.bits)
    row = tuple(classes if i == axis else 1 for i in range(len(shape)))

    def emit(b: Builder, x: Node, y: Node, *w: Node) -> Node:
        logs = b.cast(log_softmax_node(b, x, axis) if x.type.size else x, dtype)
        y = b.cast(y, dtype)
        if smoothing:
            y = b.add(b.mul(y, 1 - smoothing), smoothing / classes)
        scores = b.mul(logs, y)
        if w:
            scores = b.mul(scores, b.broadcast(b.reshape(b.cast(w[0], dtype), row), shape))
        loss = b.neg(b.reduce_sum(scores, (axis,)))
        return reduced_node(b, loss, reduction)

    name = "DivBackward1" if reduction == "mean" else "NegBackward0"
    return record(name, given(input, target, weight), emit)


@in_single
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of `linear(input, linear_weight, linear_bias)`; `options`, which tell how to split the work in
    PyTorch, are the compiler's business here.
    """
    ignored = -100 if ignore_index is None else ignore_index
    scores = linear(input, linear_weight, linear_bias)
    return cross_entropy(
        scores, target, weight, ignore_index=ignored, reduction=reduction, label_smoothing=label_smoothing
    )


# margins


def _rows(name: str, input: Tensor) -> tuple[int, int]:
    """How many samples and classes an input of (C), (N, C) or no dimension holds."""
    shape = input._type.shape
    if len(shape) > 2 or (len(shape) == 2 and not shape[1]):
        raise UsageError(f"{name}: Expected non-empty vector or matrix with optional 0-dim batch size, got {shape}")
    return (shape[0] if len(shape) == 2 else 1), (shape[-1] if shape else 1)


@autocasts
def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes j other than y of weight[y] * max(0, margin - x[y] + x[j])^p."""
    reduction = reduction_name(size_average, reduce, reduction)
    if p not in (1, 2):
        raise InputError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise InputError("weight must be one-dimensional")
    check_reduction(reduction)
    count, classes = _rows("multi_margin_loss", input)
    if target.ndim > 1 or target.numel() != count:
        raise UsageError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch "
            f"size). Expected target size [{count}], but got {list(target._type.shape)}. Input has shape "
            f"{list(input._type.shape)}."
        )
    if weight is not None and weight.numel() != classes:
        raise UsageError(f"inconsistent weight size, expected {classes} but got {list(weight._type.shape)}")
    need_float("multi_margin_loss_cpu_kernel", input)
    if target._type.dtype is not i64:
        raise DTypeError(f"expected scalar type Long but found {type_name(target._type.dtype)}")
    need_same_dtype("multi_margin_loss", input, weight)
    refuse_gradient("multi_margin_loss", weight=weight)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        y, keep_y = read(recorder, target, False)
        keeps = [keep, keep_y]
        y = b.reshape(y, (count,))
        x = b.reshape(x, (count, classes))
        check_range(recorder, y, keep_y, classes, 0, f"target {{}} out of range: classes are below {classes}")
        wide = x.type.with_dtype(i64)
        hit = b.apply("eq", (b.iota(1, wide), b.expand_dims(y, (1,), wide.shape)))
        own = b.expand_dims(b.reduce_sum(b.select(hit, x, b.zeros_like(x)), (1,)), (1,), x.shape)
        gap = b.select(hit, b.zeros_like(x), positive_part(b, b.add(b.sub(x, own), float(margin))))
        cost = b.mul(gap, gap) if p == 2 else gap
        loss = b.div(b.reduce_sum(cost, (1,)), b.constant(classes, x.type.with_shape((count,))))
        if weight is not None:
            w, keep_w = read(recorder, weight, False)
            keeps.append(keep_w)
            row = b.broadcast(b.reshape(w, (1, classes)), x.shape)
            loss = b.mul(loss, b.reduce_sum(b.select(hit, row, b.zeros_like(row)), (1,)))
        if not target.ndim:
            loss = b.reshape(loss, ())
        made = reduced_node(b, loss, reduction)
        return finish(recorder, made, tuple(keeps), "MultiMarginLossBackward0", grad)


@autocasts
def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over targets y and other classes i of max(0, 1 - x[y] + x[i]), over the number of classes.

    Each row of `target` lists class numbers up to the first -1.
    """
    reduction = reduction_name(size_average, reduce, reduction)
    check_reduction(reduction)
    count, classes = _rows("multilabel_margin_loss", input)
    if target.numel() != count * classes or target.ndim > 2 or (target.ndim == 2) != (input.ndim == 2):
        raise UsageError(
            f"inconsistent target size: {list(target._type.shape)} for input of size: {list(input._type.shape)}"
        )
    need_float("multilabel_margin_loss_forward_out_frame", input)
    if target._type.dtype is not i64:
        raise DTypeError(f"expected scalar type Long but found {type_name(target._type.dtype)}")
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        y, keep_y = read(recorder, target, False)
        x, y = b.reshape(x, (count, classes)), b.reshape(y, (count, classes))
        message = f"argument #2 'target' is out of range: {{}} is no class of {classes}"
        check_range(recorder, y, keep_y, classes, -1, message)
        loss = _label_margins(b, x, y)
        if input.ndim < 2:
            loss = b.reshape(loss, ())
        made = reduced_node(b, loss, reduction)
        return finish(recorder, made, (keep, keep_y), "MultilabelMarginLossBackward0", grad)


def _label_margins(b: Builder, x: Node, y: Node) -> Node:
    """Dimensions of the cube: sample, place in the list of targets, class."""
    count, classes = x.shape
    cube = x.type.with_dtype(i64).with_shape((count, classes, classes))
    ended = b.apply("lt", (y, b.zeros_like(y)))
    earlier = b.apply("le", (b.iota(2, cube), b.iota(1, cube)))
    stopped = b.apply("bitwise_and", (earlier, b.expand_dims(ended, (1,), cube.shape)))
    over = b.apply("reduce_max", (stopped,), {"axes": (2,), "ties": "even"}) if classes else ended
    listed = b.expand_dims(b.apply("bitwise_not", (over,)), (2,), cube.shape)
    same = b.apply("eq", (b.iota(2, cube), b.expand_dims(y, (2,), cube.shape)))
    named = b.apply("bitwise_and", (same, listed))
    is_target = b.apply("reduce_max", (named,), {"axes": (1,), "ties": "even"})
    other = b.apply("bitwise_not", (b.expand_dims(is_target, (1,), cube.shape),))
    wide = b.expand_dims(x, (1,), cube.shape)
    own = b.reduce_sum(b.select(named, wide, b.zeros_like(wide)), (2,))
    gap = positive_part(b, b.add(b.sub(wide, b.expand_dims(own, (2,), cube.shape)), 1.0))
    counted = b.apply("bitwise_and", (listed, other))
    total = b.reduce_sum(b.select(counted, gap, b.zeros_like(gap)), (1, 2))
    return b.div(total, b.constant(classes, total.type))


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes (the last dimension) of the binary cross entropy of sigmoid(x)."""
    reduction = reduction_name(size_average, reduce, reduction)
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"{reduction} is not valid")
    need_float("log_sigmoid_cpu", input)
    tensors = given(input, target, weight)
    shape = broadcast_shapes(*(t._type.shape for t in tensors))
    dtype = max((t._type.dtype for t in tensors if t._type.dtype.is_float), key=lambda d: d.bits)

    def emit(b: Builder, *nodes: Node) -> Node:
        x, y, *rest = (b.broadcast(b.cast(n, dtype), shape) for n in nodes)
        one = b.constant(1, x.type)
        loss = b.add(b.mul(y, softplus_node(b, b.neg(x))), b.mul(b.sub(one, y), softplus_node(b, x)))
        if rest:
            loss = b.mul(loss, rest[0])
        total = b.reduce_sum(loss, (len(shape) - 1,))
        return reduced_node(b, b.div(total, b.constant(input._type.shape[-1], total.type)), reduction)

    return record(reduced_name("DivBackward0", reduction), tensors, emit)
