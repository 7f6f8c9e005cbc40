"""Dropout in its forms. The mask is a function of the draw's key and the place of an element alone, so the gradient
sees the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, InputError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import f32
from graphc.random import draw_key, uniform_node
from graphc.recording import current
from graphc.tensors.calling import want_tensor
from graphc.tensors.core import TensorBase, finish, read, wants_grad
from graphc.tensors.emitting import emitted
from graphc.tensors.learning import repeatable
from graphc.tensors.shaping import squeeze, unsqueeze
from graphc.tensors.writing import in_place, type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# What SELU tends to at minus infinity, -scale * alpha (Klambauer et al., 2017).
_SATURATED = -1.7580993408473766


def record_drawn(name: str, input: TensorBase, emit: Callable[[Builder, Node, Node], Node]) -> Tensor:
    """Record `emit(b, x, key)`, `key` being that of a new draw."""
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        key = draw_key(None)
        parents = [keep, key]
        made = emitted(b, emit, (x, key.node), (x,), False, parents)
        return finish(recorder, made, tuple(parents), name, grad, (x,), True)


def kept_node(b: Builder, x: Node, key: Node, shape: tuple[int, ...], p: float) -> Node:
    """A bool for each element of `x`, false with probability `p`: one draw for each element of `shape`, broadcast."""
    drawn = uniform_node(b, key, x.type.with_dtype(f32).with_shape(shape))
    return b.broadcast(b.apply("ge", (drawn, b.constant(p, drawn.type))), x.shape)


def dropped_node(b: Builder, x: Node, kept: Node, p: float) -> Node:
    """`x` over 1 - p where `kept`, else 0."""
    if p == 1:
        return b.mul(x, b.zeros_like(x))
    return b.select(kept, b.mul(x, 1 / (1 - p)), b.zeros_like(x))


def _alpha_node(b: Builder, x: Node, kept: Node, p: float) -> Node:
    """SELU's saturated value where not `kept`; then scaled and moved so that mean and variance stay."""
    if p == 1:
        return b.mul(x, b.zeros_like(x))
    scale = ((1 - p) * (1 + p * _SATURATED**2)) ** -0.5
    mixed = b.select(kept, x, b.constant(_SATURATED, x.type))
    return b.add(b.mul(mixed, scale), -scale * _SATURATED * p)


def _drop(
    name: str,
    node: Callable[[Builder, Node, Node, float], Node],
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    by_channel: bool = False,
) -> Tensor:
    if not 0 <= p <= 1:
        raise InputError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or not input._type.size:
        return input
    if not input._type.dtype.is_float:
        raise DTypeError(
            f"dropout: result type Float can't be cast to the desired output type {type_name(input._type.dtype)}; "
            "the input must hold floats"
        )
    shape = input._type.shape
    if by_channel:
        shape = tuple(n if i < 2 else 1 for i, n in enumerate(shape))
    name = "MulBackward0" if p == 1 else name  # times zeros
    made = record_drawn(name, input, lambda b, x, key: node(b, x, kept_node(b, x, key, shape, p), p))
    return in_place(input, made) if inplace else made


@repeatable
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element is 0 with probability p, else divided by 1 - p; the identity when not training."""
    want_tensor("dropout", input)
    return _drop("MulBackward0", dropped_node, input, p, training, inplace)


@repeatable
def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout that keeps mean 0 and variance 1: dropped elements get SELU's saturated value. Klambauer et al., 2017."""
    want_tensor("alpha_dropout", input)
    return _drop("AddBackward0", _alpha_node, input, p, training, inplace)


@repeatable
def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels: one draw for each entry of the first two dimensions."""
    want_tensor("feature_alpha_dropout", input)
    return _drop("AddBackward0", _alpha_node, input, p, training, inplace, by_channel=True)


def drop_channels(input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """Dropout of whole channels: one draw for each entry of the first two dimensions."""
    if input.ndim < 2:
        raise UsageError(f"Feature dropout requires at least 2 dimensions in the input, but got {input._type}")
    return _drop("MulBackward0", dropped_node, input, p, training, inplace, by_channel=True)


def _as_one_sample(input: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """Channels of an input without a batch dimension."""
    made = squeeze(drop_channels(unsqueeze(input, 0), p, training, False), 0)
    return in_place(input, made) if inplace else made


@repeatable
def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, L) or (C, L)."""
    want_tensor("dropout1d", input)
    if not 0 <= p <= 1:
        raise InputError(f"dropout probability has to be between 0 and 1, but got {p}")
    if input.ndim not in (2, 3):
        raise UsageError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    return (_as_one_sample if input.ndim == 2 else drop_channels)(input, p, training, inplace)


def _warn_rank(name: str, rank: int, spatial: int) -> None:
    warn(
        f"{name}: Received a {rank}-D input to {name}, which is deprecated and will result in an error in a future "
        f"release. To retain the behavior and silence this warning, please use dropout instead. Note that {name} "
        f"exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, a channel dimension, "
        f"and an optional batch dimension (i.e. {spatial + 1}D or {spatial + 2}D inputs).",
    )


@repeatable
def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W). Three dimensions count as (N, C, L), with PyTorch's warning."""
    want_tensor("dropout2d", input)
    if not 0 <= p <= 1:
        raise InputError(f"dropout probability has to be between 0 and 1, but got {p}")
    if input.ndim not in (3, 4):
        _warn_rank("dropout2d", input.ndim, 2)
    if input.ndim == 3:
        warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired "
            "- input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a "
            "future release to interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain "
            "the 1D channel-wise dropout behavior, please switch to using dropout1d instead.",
        )
    return drop_channels(input, p, training, inplace)


@repeatable
def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    want_tensor("dropout3d", input)
    if not 0 <= p <= 1:
        raise InputError(f"dropout probability has to be between 0 and 1, but got {p}")
    if input.ndim not in (4, 5):
        _warn_rank("dropout3d", input.ndim, 3)
    return (drop_channels if input.ndim == 5 else _as_one_sample)(input, p, training, inplace)
