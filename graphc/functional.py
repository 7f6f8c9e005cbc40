"""The functions behind layers, with `torch.nn.functional`'s names and signatures, made of primitive operators.

Formulas are those of PyTorch's documentation of each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.convolution import (
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    max_pool1d,
    max_pool2d,
    unfold,
)
from graphc.errors import DTypeError, ShapeError
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import f32, i64
from graphc.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from graphc.random import draw_key, uniform_node
from graphc.recording import current
from graphc.tensors import elementwise
from graphc.tensors.core import TensorBase, finish, read, record, wants_grad
from graphc.tensors.indexing import index_op, one_hot
from graphc.tensors.normalising import functional_log_softmax as log_softmax
from graphc.tensors.normalising import functional_softmax as softmax
from graphc.tensors.normalising import functional_softmin as softmin
from graphc.tensors.reductions import mean_node
from graphc.tensors.shaping import slice_view
from graphc.tensors.statistics import variance_node
from graphc.tensors.writing import in_place

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "tanh",
    "unfold",
]


def _finish(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return in_place(input, result) if inplace else result


def _activation(name: str, input: Tensor, emit: Callable[[Builder, Node], Node], inplace: bool = False) -> Tensor:
    if not input._type.dtype.is_float:
        raise DTypeError(f"{name}: floats expected, but the input is {input._type}; convert it with .to(dtype)")
    return _finish(input, record(f"{name}Backward0", (input,), emit), inplace)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); NaN stays."""
    return _finish(input, elementwise.relu(input), inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x cut off at both ends; no gradient at and beyond the ends."""

    def emit(b: Builder, x: Node) -> Node:
        low, high = b.constant(min_val, x.type), b.constant(max_val, x.type)
        return b.select(b.apply("le", (x, low)), low, b.select(b.apply("ge", (x, high)), high, x))

    return _activation("Hardtanh", input, emit, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else negative_slope * x."""
    return _activation(
        "LeakyRelu",
        input,
        lambda b, x: b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.mul(x, negative_slope)),
        inplace,
    )


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else alpha * (exp(x) - 1)."""
    return _activation("Elu", input, lambda b, x: _elu_node(b, x, alpha, 1.0), inplace)


def _elu_node(b: Builder, x: Node, alpha: float, scale: float) -> Node:
    positive = b.apply("gt", (x, b.zeros_like(x)))
    # The branch not taken sees 0, so that its gradient is finite.
    low = b.mul(b.apply("expm1", (b.select(positive, b.zeros_like(x), x),)), alpha)
    chosen = b.select(positive, x, low)
    return chosen if scale == 1 else b.mul(chosen, scale)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x, alpha) with the constants of Klambauer et al., 2017."""
    return _activation("Elu", input, lambda b, x: _elu_node(b, x, 1.6732632423543772, 1.0507009873554805), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; with approximate="tanh", its usual approximation."""
    if approximate == "none":
        return _activation(
            "Gelu",
            input,
            lambda b, x: b.mul(b.mul(x, 0.5), b.add(b.apply("erf", (b.mul(x, 1 / math.sqrt(2)),)), 1.0)),
        )
    if approximate != "tanh":
        raise RuntimeError("approximate argument must be either none or tanh.")

    def emit(b: Builder, x: Node) -> Node:
        cubic = b.add(x, b.mul(b.mul(b.mul(x, x), x), 0.044715))
        return b.mul(b.mul(x, 0.5), b.add(b.apply("tanh", (b.mul(cubic, math.sqrt(2 / math.pi)),)), 1.0))

    return _activation("Gelu", input, emit)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _activation("Silu", input, lambda b, x: b.mul(x, b.apply("sigmoid", (x,))), inplace)


def softplus_node(b: Builder, x: Node) -> Node:
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)), whose gradient is sigmoid(x)."""
    positive = b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.zeros_like(x))
    return b.add(positive, b.apply("log1p", (b.exp(b.neg(_magnitude(b, x))),)))


def _magnitude(b: Builder, x: Node) -> Node:
    """|x| with the gradient -1 at 0, which makes softplus' gradient 1/2 there."""
    return b.select(b.apply("gt", (x, b.zeros_like(x))), x, b.neg(x))


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    def emit(b: Builder, x: Node) -> Node:
        scaled = x if beta == 1 else b.mul(x, float(beta))
        smooth = softplus_node(b, scaled)
        smooth = smooth if beta == 1 else b.div(smooth, b.constant(beta, x.type))
        return b.select(b.apply("gt", (scaled, b.constant(threshold, x.type))), x, smooth)

    return _activation("Softplus", input, emit)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return _activation("LogSigmoid", input, lambda b, x: b.neg(softplus_node(b, b.neg(x))))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return _activation("Mish", input, lambda b, x: b.mul(x, b.apply("tanh", (softplus_node(b, x),))), inplace)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return _activation("Softsign", input, lambda b, x: b.div(x, b.add(b.apply("abs", (x,)), 1.0)))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return _activation("Hardsigmoid", input, _hardsigmoid_node, inplace)


def _hardsigmoid_node(b: Builder, x: Node) -> Node:
    low, high = b.apply("le", (x, b.constant(-3, x.type))), b.apply("ge", (x, b.constant(3, x.type)))
    inner = b.div(b.add(x, 3.0), b.constant(6, x.type))
    return b.select(low, b.zeros_like(x), b.select(high, b.constant(1, x.type), inner))


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x)."""
    return _activation("Hardswish", input, lambda b, x: b.mul(x, _hardsigmoid_node(b, x)), inplace)


sigmoid, tanh = elementwise.sigmoid, elementwise.tanh


# linear and lookup


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: (*, in) and (out, in) give (*, out)."""
    x, w = input._type, weight._type
    if w.rank != 2 or not x.rank or x.shape[-1] != w.shape[1]:
        left = (math.prod(x.shape[:-1]), x.shape[-1]) if x.rank else ()
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, left))} and "
            f"{'x'.join(map(str, reversed(w.shape)))}); linear got input {x} and weight {w}"
        )
    if x.dtype is not w.dtype or (bias is not None and bias._type.dtype is not w.dtype):
        raise DTypeError(f"mat1 and mat2 must have the same dtype; linear got input {x} and weight {w}")

    def emit(b: Builder, x: Node, w: Node, *rest: Node) -> Node:
        flat = b.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        result = b.contract(flat, w, "b i, o i -> b o")
        if rest:
            result = b.add(result, b.broadcast(rest[0], result.shape))
        return b.reshape(result, (*x.shape[:-1], w.shape[0]))

    operands = (input, weight) if bias is None else (input, weight, bias)
    return record("AddmmBackward0" if bias is not None else "MmBackward0", operands, emit)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` by number. IndexError, when looked at, for numbers out of range. Row `padding_idx` gets no
    gradient.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotImplementedError("embedding: max_norm, scale_grad_by_freq and sparse are not supported")
    if padding_idx is not None:
        row = padding_idx % weight._type.shape[0]
        weight = record("EmbeddingBackward0", (weight,), lambda b, w: _without_row_gradient(b, w, row))
    return index_op("gather", "EmbeddingBackward0", "embedding", (weight,), input, 0)


def _without_row_gradient(b: Builder, w: Node, row: int) -> Node:
    type = w.type.with_dtype(i64)
    return b.select(b.apply("eq", (b.iota(0, type), b.constant(row, type))), b.apply("detach", (w,)), w)


# padding


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements added at the ends, last dimension first: (left, right, top, bottom, ...). Negative numbers cut off."""
    amounts = list(pad)
    if len(amounts) % 2 or len(amounts) > 2 * input.ndim:
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(amounts)} "
            f"and input of dimension {input.ndim}"
        )
    if mode != "constant":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported, only 'constant'")
    rank = input.ndim
    low, high = [0] * rank, [0] * rank
    for place in range(len(amounts) // 2):
        low[rank - 1 - place], high[rank - 1 - place] = amounts[2 * place], amounts[2 * place + 1]
    seen = input
    for axis in range(rank):
        cut_low, cut_high = max(-low[axis], 0), max(-high[axis], 0)
        left = seen._type.shape[axis] - cut_low - cut_high
        if left < 0:
            raise RuntimeError(f"pad: dimension {axis} of {list(input._type.shape)} would get a negative size")
        if cut_low or cut_high:
            seen = slice_view(seen, axis, cut_low, left, 1)
    below, above = tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high)
    filler = 0 if value is None else value
    return record("ConstantPadNdBackward0", (seen,), lambda b, x: b.pad(x, below, above, None, filler))


# normalisation and dropout


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element is 0 with probability p, else divided by 1 - p; the identity when not training."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        if p == 1:
            made = b.mul(x, b.zeros_like(x))
            return _finish(input, finish(recorder, made, (keep,), "MulBackward0", grad), inplace)
        key = draw_key(None)
        drawn = uniform_node(b, key.node, x.type.with_dtype(f32))
        kept = b.apply("ge", (drawn, b.constant(p, drawn.type)))
        made = b.select(kept, b.mul(x, 1 / (1 - p)), b.zeros_like(x))
        return _finish(input, finish(recorder, made, (keep, key), "NativeDropoutBackward0", grad), inplace)


def _affine(b: Builder, x: Node, rest: list[Node], shape: tuple[int, ...], weight: bool, bias: bool) -> Node:
    if weight:
        x = b.mul(x, b.broadcast(b.reshape(rest.pop(0), shape), x.shape))
    if bias:
        x = b.add(x, b.broadcast(b.reshape(rest.pop(0), shape), x.shape))
    return x


def _given(*operands: Any) -> list[Any]:
    return [o for o in operands if isinstance(o, TensorBase)]


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions."""
    wanted = tuple(normalized_shape)
    shape = input._type.shape
    if not wanted or shape[-len(wanted) :] != wanted:
        raise RuntimeError(
            f"Given normalized_shape={list(wanted)}, expected input with shape "
            f"[*{''.join(f', {n}' for n in wanted)}], but got input of size{list(shape)}"
        )
    axes = tuple(range(len(shape) - len(wanted), len(shape)))

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        made = _standardised(b, x, axes, eps)
        return _affine(b, made, list(rest), wanted, weight is not None, bias is not None)

    return record("NativeLayerNormBackward0", _given(input, weight, bias), emit)


def _standardised(b: Builder, x: Node, axes: tuple[int, ...], eps: float) -> Node:
    middle = mean_node(b, x, axes)
    off = b.sub(x, b.expand_dims(middle, axes, x.shape))
    variance = mean_node(b, b.mul(off, off), axes)
    scale = b.div(b.constant(1, variance.type), b.apply("sqrt", (b.add(variance, eps),)))
    return b.mul(off, b.expand_dims(scale, axes, x.shape))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias per channel (dimension 1).

    Training uses the batch's statistics and moves the running ones towards them by `momentum` (the variance unbiased).
    """
    shape = input._type.shape
    if len(shape) < 2:
        raise ValueError(f"expected at least 2D input (got {len(shape)}D input)")
    axes = (0, *range(2, len(shape)))
    channel = tuple(n if i == 1 else 1 for i, n in enumerate(shape))
    count = math.prod(shape[a] for a in axes)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("Expected running_mean and running_var to be defined when training=False")

        def fixed(b: Builder, x: Node, m: Node, v: Node, *rest: Node) -> Node:
            off = b.sub(x, b.broadcast(b.reshape(m, channel), x.shape))
            scale = b.div(b.constant(1, v.type), b.apply("sqrt", (b.add(v, eps),)))
            made = b.mul(off, b.broadcast(b.reshape(scale, channel), x.shape))
            return _affine(b, made, list(rest), channel, weight is not None, bias is not None)

        return record("NativeBatchNormBackward0", _given(input, running_mean, running_var, weight, bias), fixed)
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    if running_mean is not None and running_var is not None:
        _move_statistics(input, running_mean, running_var, axes, momentum)

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        made = _standardised(b, x, axes, eps)
        return _affine(b, made, list(rest), channel, weight is not None, bias is not None)

    return record("NativeBatchNormBackward0", _given(input, weight, bias), emit)


def _move_statistics(input: Tensor, mean: Tensor, variance: Tensor, axes: tuple[int, ...], momentum: float) -> None:
    saved, MODE.enabled = MODE.enabled, False
    try:
        batch = input.detach()
        for running, node in ((mean, mean_node), (variance, lambda b, x, a: variance_node(b, x, a, 1.0))):
            moved = record(
                "",
                (running, batch),
                lambda b, r, x, node=node: b.add(
                    b.mul(r, 1 - momentum), b.mul(b.cast(node(b, x, axes), r.dtype), momentum)
                ),
            )
            in_place(running, moved)
    finally:
        MODE.enabled = saved


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x over its p-norm along `dim`, which counts as at least `eps`."""
    return input / input.norm(p, dim, True).clamp(min=eps).expand_as(input)
