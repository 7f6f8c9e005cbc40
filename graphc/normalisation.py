"""Normalisation by statistics of a batch, a sample, a group or a channel. Formulas are those of PyTorch's documentation
of each function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.core import TensorBase, record
from graphc.tensors.reductions import mean_node
from graphc.tensors.statistics import variance_node
from graphc.tensors.writing import in_place

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


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
