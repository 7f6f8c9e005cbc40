"""Losses of numbers against numbers, with PyTorch's signatures. Formulas are those of its documentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.activations import softplus_node
from graphc.errors import DTypeError, InputError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, broadcast_shapes
from graphc.loss_reduction import (
    check_reduction,
    check_values,
    given,
    reduced,
    reduced_name,
    reduced_node,
    reduction_name,
)
from graphc.promotion import as_float, promote_types
from graphc.recording import current
from graphc.refusing import need_float, refuse_gradient
from graphc.tensors import elementwise, reductions
from graphc.tensors.casting import autocasts
from graphc.tensors.core import TensorBase, finish, read, read_all, record, wants_grad
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Form = Callable[..., Node]
_LEAST = 9.999999960041972e-13  # 1e-12 as a float32, which PyTorch keeps x (1 - x) above


def _spread(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`tensor` broadcast to `shape`, by a gradient node of its own, as PyTorch's losses do it."""
    if tensor._type.shape == shape:
        return tensor
    return record("ExpandBackward0", (tensor,), lambda b, x: b.broadcast(x, shape))


def _pairwise(
    name: str,
    tensors: list[Tensor],
    reduction: str,
    emit: Form,
    dtype: DType | None = None,
    kernel: str = "",
    fixed: bool = False,
) -> Tensor:
    """Record an elementwise loss of tensors, broadcast and brought to one dtype, and its reduction.

    `kernel` is PyTorch's name in its refusal of integers; with `fixed`, only the first tensor's shape will do.
    """
    check_reduction(reduction)
    if dtype is None:
        dtype = tensors[0]._type.dtype
        for tensor in tensors[1:]:
            dtype = promote_types(dtype, tensor._type.dtype)
    if not dtype.is_float:
        raise UnsupportedError(f"\"{kernel}\" not implemented for '{type_name(dtype)}'")
    shape = broadcast_shapes(*(t._type.shape for t in tensors))
    if fixed and shape != tensors[0]._type.shape:
        raise UsageError(
            f"output with shape {list(tensors[0]._type.shape)} doesn't match the broadcast shape {list(shape)}"
        )

    def whole(b: Builder, *nodes: Node) -> Node:
        return reduced_node(b, emit(b, *(b.cast(n, dtype) for n in nodes)), reduction)

    return record(name, [_spread(t, shape) for t in tensors], whole)


def _warn_of_shapes(input: Tensor, target: Tensor) -> None:
    if input._type.shape != target._type.shape:
        warn(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
        )


def _weighted(losses: Tensor, weight: Tensor, input: Tensor, reduction: str, share: bool) -> Tensor:
    """Losses times weights; with `share`, the mean is taken by the weights."""
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"Invalid reduction mode: {reduction}. Expected one of 'none', 'mean', 'sum'.")
    if weight._type.shape != input._type.shape:
        raise InputError("Weights and input must have the same size.")
    made = elementwise.mul(losses, weight)
    if share and reduction == "mean":
        return elementwise.div(reductions.sum(made), reductions.sum(weight))
    return reduced(made, reduction)


@autocasts
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x - y) squared; with weights the mean is divided by their sum."""
    _warn_of_shapes(input, target)
    reduction = reduction_name(size_average, reduce, reduction)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        off = b.sub(x, y)
        return b.mul(off, off)

    def losses(reduction: str) -> Tensor:
        return _pairwise("MseLossBackward0", [input, target], reduction, emit, kernel="mse_cpu")

    return losses(reduction) if weight is None else _weighted(losses("none"), weight, input, reduction, True)


@autocasts
def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x - y|; with weights the mean is divided by their sum."""
    _warn_of_shapes(input, target)
    reduction = reduction_name(size_average, reduce, reduction)
    losses = elementwise.abs(elementwise.sub(input, target))
    return reduced(losses, reduction) if weight is None else _weighted(losses, weight, input, reduction, True)


@autocasts
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Half the square over `beta` where |x - y| < beta, else |x - y| - beta / 2."""
    _warn_of_shapes(input, target)
    reduction = reduction_name(size_average, reduce, reduction)
    if beta < 0:
        raise UsageError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return reduced(elementwise.abs(elementwise.sub(input, target)), reduction)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        far = b.apply("abs", (b.sub(x, y),))
        near = b.apply("lt", (far, b.constant(beta, far.type)))
        return b.select(near, b.mul(b.mul(far, far), 0.5 / beta), b.sub(far, 0.5 * beta))

    return _pairwise("SmoothL1LossBackward0", [input, target], reduction, emit, kernel="smooth_l1_cpu")


@autocasts
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the square where |x - y| < delta, else delta * (|x - y| - delta / 2); in the input's dtype."""
    _warn_of_shapes(input, target)
    if delta <= 0:
        raise UsageError("huber_loss does not support non-positive values for delta.")
    need_float("huber_cpu", input)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        far = b.apply("abs", (b.sub(x, y),))
        near = b.apply("lt", (far, b.constant(delta, far.type)))
        return b.select(near, b.mul(b.mul(far, far), 0.5), b.mul(b.sub(far, 0.5 * delta), float(delta)))

    def losses(reduction: str) -> Tensor:
        return _pairwise("HuberLossBackward0", [input, target], reduction, emit, input._type.dtype)

    return losses(reduction) if weight is None else _weighted(losses("none"), weight, input, reduction, False)


@autocasts
def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-y * x)) for targets 1 and -1; in the input's dtype."""
    reduction = reduction_name(size_average, reduce, reduction)
    if not input._type.dtype.is_float:
        raise DTypeError(
            f"soft_margin_loss: result type Float can't be cast to the desired output type "
            f"{type_name(input._type.dtype)}"
        )
    refuse_gradient("soft_margin_loss", target=target)
    return _pairwise(
        "SoftMarginLossBackward0",
        [input, target],
        reduction,
        lambda b, x, y: softplus_node(b, b.neg(b.mul(y, x))),
        input._type.dtype,
        fixed=True,
    )


@autocasts
def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target * (log(target) - input), 0 where the target is 0; "batchmean" divides the sum by the first extent."""
    batch = size_average is None and reduce is None and reduction == "batchmean"
    if size_average is None and reduce is None and reduction == "mean":
        warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size."
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition."
            "'mean' will be changed to behave the same as 'batchmean' in the next major release.",
        )
    reduction = "sum" if batch else reduction_name(size_average, reduce, reduction)
    if not (input._type.dtype.is_float and target._type.dtype.is_float):
        raise DTypeError("kl_div: Integral inputs not supported.")

    def emit(b: Builder, x: Node, y: Node) -> Node:
        if log_target:
            return b.mul(b.exp(y), b.sub(y, x))
        zero = b.apply("eq", (y, b.zeros_like(y)))
        safe = b.select(zero, b.constant(1, y.type), y)
        return b.sub(b.mul(y, b.log(safe)), b.mul(y, x))

    name = reduced_name("MulBackward0" if log_target else "SubBackward0", reduction)
    made = _pairwise(name, [input, target], reduction, emit)
    return elementwise.div(made, input._type.shape[0]) if batch and input.ndim else made


# probabilities


@autocasts
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(y log x + (1 - y) log(1 - x)), logarithms cut off at -100. RuntimeError, when looked at, for an input outside
    [0, 1].
    """
    reduction = reduction_name(size_average, reduce, reduction)
    if input._type.shape != target._type.shape:
        raise InputError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
        )
    check_reduction(reduction)
    dtype = input._type.dtype
    if target._type.dtype is not dtype:
        raise DTypeError(f"Found dtype {type_name(target._type.dtype)} but expected {type_name(dtype)}")
    need_float("binary_cross_entropy", input)
    refuse_gradient("binary_cross_entropy", weight=weight)
    if weight is not None:
        broadcast_shapes(weight._type.shape, target._type.shape)
    tensors = given(input, target, weight)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad(tensors)
        pairs = read_all(recorder, tensors, grad)
        nodes, keeps = [node for node, _ in pairs], [keep for _, keep in pairs]
        x, y = nodes[:2]
        zero, one = b.zeros_like(x), b.constant(1, x.type)
        outside = b.apply("bitwise_or", (b.apply("lt", (x, zero)), b.apply("gt", (x, one))))
        error = UsageError("all elements of input should be between 0 and 1")
        check_values(recorder, outside, keeps[0], error)
        loss = _entropy_node(b, x, y)
        if len(nodes) > 2:
            loss = b.mul(loss, b.broadcast(b.cast(nodes[2], dtype), loss.shape))
        made = reduced_node(b, loss, reduction)
        return finish(recorder, made, tuple(keeps), "BinaryCrossEntropyBackward0", grad, nodes)


def _entropy_node(b: Builder, x: Node, y: Node) -> Node:
    """Binary cross entropy. At the ends, where x (1 - x) < 1e-12, the slope is (x - y) / 1e-12, as in PyTorch."""
    one, floor, least = b.constant(1, x.type), b.constant(-100, x.type), b.constant(_LEAST, x.type)

    def entropy(hit: Node, miss: Node) -> Node:
        return b.neg(b.add(b.mul(y, hit), b.mul(b.sub(one, y), miss)))

    def cut(logarithm: Node) -> Node:
        return b.apply("detach", (b.select(b.apply("lt", (logarithm, floor)), floor, logarithm),))

    ends = b.apply("lt", (b.mul(x, b.sub(one, x)), least))
    inner = b.select(ends, b.constant(0.5, x.type), x)
    regular = entropy(b.log(inner), b.apply("log1p", (b.neg(inner),)))
    fixed = b.apply("detach", (x,))
    slope = b.div(b.sub(fixed, b.apply("detach", (y,))), least)
    flat = entropy(cut(b.log(x)), cut(b.apply("log1p", (b.neg(x),))))
    return b.select(ends, b.add(flat, b.mul(b.sub(x, fixed), slope)), regular)


@autocasts
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross entropy of sigmoid(x), computed without overflow: (1 - y) x + w log(1 + exp(-x))."""
    reduction = reduction_name(size_average, reduce, reduction)
    if input._type.shape != target._type.shape:
        raise InputError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    need_float("log_sigmoid_cpu", input)
    refuse_gradient("binary_cross_entropy_with_logits", weight=weight, pos_weight=pos_weight)

    def emit(b: Builder, x: Node, y: Node, *rest: Node) -> Node:
        left = list(rest)
        one = b.constant(1, x.type)
        scale = left.pop(0) if weight is not None else None
        smooth = softplus_node(b, b.neg(x))
        if pos_weight is not None:
            smooth = b.mul(b.add(b.mul(b.sub(left.pop(0), 1.0), y), one), smooth)
        loss = b.add(b.mul(b.sub(one, y), x), smooth)
        return b.mul(loss, scale) if scale is not None else loss

    return _pairwise(
        "BinaryCrossEntropyWithLogitsBackward0", given(input, target, weight, pos_weight), reduction, emit, fixed=True
    )


@autocasts
def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - y x, or x - y log(x + eps) if the input is no logarithm; `full` adds Stirling's formula for log(y!)."""
    reduction = reduction_name(size_average, reduce, reduction)

    def emit(b: Builder, x: Node, y: Node) -> Node:
        loss = b.sub(b.exp(x), b.mul(y, x)) if log_input else b.sub(x, b.mul(y, b.log(b.add(x, float(eps)))))
        if not full:
            return loss
        large = b.apply("gt", (y, b.constant(1, y.type)))
        n = b.select(large, y, b.constant(1, y.type))
        stirling = b.add(b.sub(b.mul(n, b.log(n)), n), b.mul(b.log(b.mul(n, 2 * math.pi)), 0.5))
        return b.add(loss, b.select(large, stirling, b.zeros_like(y)))

    name = reduced_name("AddBackward0" if full else "SubBackward0", reduction)
    dtype = as_float(promote_types(input._type.dtype, target._type.dtype))
    return _pairwise(name, [input, target], reduction, emit, dtype)


@autocasts
def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log(v) + (x - y)² / v) / 2 with v = max(var, eps), whose gradient is that of `var`; `full` adds log(2 pi) / 2.

    `var` has the input's shape, or that without the last dimension or with one dimension of size 1. ValueError, when
    looked at, for negative ones.
    """
    if not isinstance(var, TensorBase):
        if var < 0:
            raise InputError("var has negative entry/entries")
        number = float(var)
        var = record("", (), lambda b: b.constant(number, input._type))
    shape, held = input._type.shape, var._type.shape
    if held != shape:
        if held == shape[:-1]:
            held = (*held, 1)
        elif len(held) != len(shape) or [v for n, v in zip(shape, held, strict=True) if n != v] != [1]:
            raise InputError("var is of incorrect size")
    if reduction not in ("none", "mean", "sum"):
        raise InputError(f"{reduction} is not valid")
    _check_variance(var)

    def emit(b: Builder, x: Node, y: Node, v: Node) -> Node:
        low = b.constant(eps, v.type)
        v = b.select(b.apply("lt", (v, low)), b.add(b.sub(v, b.apply("detach", (v,))), low), v)
        off = b.sub(x, y)
        loss = b.mul(b.add(b.log(v), b.div(b.mul(off, off), v)), 0.5)
        return b.add(loss, 0.5 * math.log(2 * math.pi)) if full else loss

    name = reduced_name("AddBackward0" if full else "MulBackward0", reduction)
    spread = var if held == var._type.shape else record("UnsqueezeBackward0", (var,), lambda b, v: b.reshape(v, held))
    return _pairwise(name, [input, target, spread], reduction, emit)


def _check_variance(var: TensorBase) -> None:
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, var, False)
        negative = b.apply("lt", (node, b.zeros_like(node)))
        check_values(recorder, negative, keep, InputError("var has negative entry/entries"))
