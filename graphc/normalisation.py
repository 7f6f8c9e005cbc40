"""Normalisation by statistics of a batch, a sample, a group or a channel. Formulas are those of PyTorch's documentation
of each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, InputError, KindError, ShapeError, UsageError
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import f32
from graphc.loss_reduction import given
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.learning import repeatable
from graphc.tensors.norms import norm
from graphc.tensors.out import into, refuse_gradients
from graphc.tensors.reductions import mean_node
from graphc.tensors.statistics import own_deviation, squared_deviations, variance_node
from graphc.tensors.writing import in_place, type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


# shared


def _affine(b: Builder, x: Node, rest: list[Node], shape: tuple[int, ...], weight: bool, bias: bool) -> Node:
    """x times a weight, plus a bias, both of `shape`."""
    if weight:
        x = b.mul(x, b.broadcast(b.reshape(b.cast(rest.pop(0), x.dtype), shape), x.shape))
    if bias:
        x = b.add(x, b.broadcast(b.reshape(b.cast(rest.pop(0), x.dtype), shape), x.shape))
    return x


def _standardised(b: Builder, x: Node, axes: tuple[int, ...], eps: float) -> Node:
    middle = mean_node(b, x, axes)
    off = b.sub(x, b.expand_dims(middle, axes, x.shape))
    variance = b.sub(mean_node(b, squared_deviations(b, x, middle, axes), axes), own_deviation(b, middle))
    return b.mul(off, b.expand_dims(inverse_root(b, variance, eps), axes, x.shape))


def inverse_root(b: Builder, variance: Node, eps: float) -> Node:
    """1 / sqrt(variance + eps)."""
    root = b.apply("sqrt", (b.add(variance, float(eps)),))
    return b.div(b.constant(1, root.type), root)


def _check_parameters(input: Tensor, *parameters: Tensor | None) -> None:
    """All parameters have the input's dtype; float32 goes with the short floats too."""
    dtype = input._type.dtype
    for parameter in parameters:
        if parameter is not None and parameter._type.dtype is not dtype:
            if parameter._type.dtype is f32 and dtype.bits == 16:
                continue
            raise DTypeError(
                f"mixed dtype (CPU): expect parameter to have scalar type of {type_name(dtype)}, but got "
                f"{parameter._type}"
            )


def _check_counts(channels: int, **parameters: Tensor | None) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and parameter.numel() != channels:
            raise ShapeError(f"{name} should contain {channels} elements not {parameter.numel()}")


# over dimensions at the end


def _last_axes(name: str, input: Tensor, normalized_shape: Sequence[int], star: str) -> tuple[int, ...]:
    if isinstance(normalized_shape, int):
        raise KindError(f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, not int")
    wanted, shape = tuple(normalized_shape), input._type.shape
    if not wanted:
        raise ShapeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
            "normalized_shape = []"
        )
    if shape[-len(wanted) :] != wanted:
        raise ShapeError(
            f"Given normalized_shape={list(wanted)}, expected input with shape [*{star}"
            f"{', '.join(map(str, wanted))}], but got input of size{list(shape)}"
        )
    return tuple(range(len(shape) - len(wanted), len(shape)))


def _check_shapes(wanted: Sequence[int], **parameters: Tensor | None) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and parameter._type.shape != tuple(wanted):
            raise ShapeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(parameter._type.shape)} and normalized_shape = {list(wanted)}"
            )


@autocasts
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions."""
    axes = _last_axes("layer_norm", input, normalized_shape, ", ")
    _check_shapes(normalized_shape, weight=weight, bias=bias)
    need_float("LayerNormKernelImpl", input)
    _check_parameters(input, weight, bias)
    wanted = tuple(normalized_shape)

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        made = _standardised(b, x, axes, eps)
        return _affine(b, made, list(rest), wanted, weight is not None, bias is not None)

    return record("NativeLayerNormBackward0", given(input, weight, bias), emit)


@autocasts
def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last dimensions; without `eps`, that of the dtype."""
    axes = _last_axes("rms_norm", input, normalized_shape, "")
    _check_shapes(normalized_shape, weight=weight)
    need_float("rms_norm", input)
    least = _EPSILON[input._type.dtype.name] if eps is None else eps

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        square = mean_node(b, b.mul(x, x), axes)
        made = b.mul(x, b.expand_dims(inverse_root(b, square, least), axes, x.shape))
        return _affine(b, made, list(rest), tuple(normalized_shape), weight is not None, False)

    return record("MulBackward0", given(input, weight), emit)


# The step from 1 to the next number; those of 16 bits are computed in float32.
_EPSILON = {"f64": 2.0**-52, "f32": 2.0**-23, "f16": 2.0**-23, "bf16": 2.0**-23}


# over a batch, a sample, a group


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
    axes = (0, *range(2, len(shape)))
    if training and math.prod(shape[a] for a in axes if a < len(shape)) == 1:
        raise InputError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    if (running_mean is None) != (running_var is None):
        raise InputError("running_mean and running_var must either both be None or neither be None")
    if not training and running_mean is None:
        raise UsageError("running_mean must be defined in evaluation mode")
    channels = shape[1] if len(shape) > 1 else 0
    _check_counts(channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: expected at least 2D input (got {len(shape)}D input)")
    need_float("batch_norm", input)
    _check_parameters(input, running_mean, running_var, weight, bias)
    if not training:
        assert running_mean is not None and running_var is not None
        return _by_statistics(_BATCH_NORM, input, running_mean, running_var, weight, bias, eps)
    if running_mean is not None and running_var is not None and input._type.size:
        _move_statistics(input, running_mean, running_var, axes, momentum)
    return _by_own(_BATCH_NORM, input, axes, weight, bias, eps)


_BATCH_NORM = "NativeBatchNormBackward0"


def _per_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n if i == 1 else 1 for i, n in enumerate(shape))


@repeatable
def _by_statistics(
    gradient: str,
    input: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    channel = _per_channel(input._type.shape)

    def emit(b: Builder, x: Node, m: Node, v: Node, *rest: Node) -> Node:
        off = b.sub(x, b.broadcast(b.reshape(b.cast(m, x.dtype), channel), x.shape))
        scale = b.cast(inverse_root(b, v, eps), x.dtype)
        made = b.mul(off, b.broadcast(b.reshape(scale, channel), x.shape))
        return _affine(b, made, list(rest), channel, weight is not None, bias is not None)

    return record(gradient, given(input, mean, variance, weight, bias), emit)


@repeatable
def _by_own(
    gradient: str, input: Tensor, axes: tuple[int, ...], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    channel = _per_channel(input._type.shape)

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        made = _standardised(b, x, axes, eps)
        return _affine(b, made, list(rest), channel, weight is not None, bias is not None)

    return record(gradient, given(input, weight, bias), emit)


def _unbiased(b: Builder, x: Node, axes: tuple[int, ...]) -> Node:
    return variance_node(b, x, axes, 1.0)


def _moved(
    statistic: Callable[[Builder, Node, tuple[int, ...]], Node], axes: tuple[int, ...], momentum: float, samples: bool
) -> Callable[[Builder, Node, Node], Node]:
    """What moves a running statistic towards that of a batch."""

    def moved(b: Builder, r: Node, x: Node) -> Node:
        found = statistic(b, x, axes)
        found = mean_node(b, found, (0,)) if samples else found
        return b.add(b.mul(r, 1 - momentum), b.mul(b.cast(found, r.dtype), float(momentum)))

    return moved


def _move_statistics(
    input: Tensor, mean: Tensor, variance: Tensor, axes: tuple[int, ...], momentum: float, samples: bool = False
) -> None:
    """Move running statistics towards those of `input` over `axes`; with `samples`, the mean of each sample's."""
    saved, MODE.enabled = MODE.enabled, False
    try:
        batch = input.detach()
        _move_mean(mean, batch, axes, momentum, samples)
        _move_variance(variance, batch, axes, momentum, samples)
    finally:
        MODE.enabled = saved


@repeatable
def _move_mean(mean: Tensor, batch: Tensor, axes: tuple[int, ...], momentum: float, samples: bool) -> None:
    in_place(mean, record("", (mean, batch), _moved(mean_node, axes, momentum, samples)))


@repeatable
def _move_variance(variance: Tensor, batch: Tensor, axes: tuple[int, ...], momentum: float, samples: bool) -> None:
    in_place(variance, record("", (variance, batch), _moved(_unbiased, axes, momentum, samples)))


@kinds_checked
def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias per sample and channel: dimensions 0 and 1.

    Without `use_input_stats` the running statistics stand for those of the input.
    """
    shape = input._type.shape
    if use_input_stats and math.prod(shape[2:]) == 1:
        raise InputError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    if not use_input_stats and (running_mean is None or running_var is None):
        raise UsageError("Expected running_mean and running_var to be defined when use_input_stats is false")
    need_float("batch_norm", input)
    channels = shape[1]
    _check_counts(channels, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias)
    _check_parameters(input, running_mean, running_var, weight, bias)
    if not use_input_stats:
        return _by_statistics("ViewBackward0", input, running_mean, running_var, weight, bias, eps)
    axes = tuple(range(2, len(shape)))
    if running_mean is not None and running_var is not None and input._type.size:
        _move_statistics(input, running_mean, running_var, axes, momentum, samples=True)
    return _by_own("ViewBackward0", input, axes, weight, bias, eps)


@autocasts
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over each sample's groups of channels, * weight + bias per channel."""
    shape = input._type.shape
    if len(shape) < 2:
        raise ShapeError(f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    if num_groups <= 0:
        raise ZeroDivisionError(f"group_norm: num_groups must be greater than 0, got {num_groups}")
    channels = shape[1]
    if shape[0] * (channels // num_groups) * math.prod(shape[2:]) == 1:
        raise InputError(f"Expected more than 1 value per channel when training, got input size {list(shape)}")
    if channels % num_groups:
        raise ShapeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(shape)} and num_groups={num_groups}"
        )
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter._type.shape != (channels,):
            raise ShapeError(
                f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} of "
                f"shape {list(parameter._type.shape)} and input of shape {list(shape)}"
            )
    need_float("GroupNormKernelImpl", input)
    _check_parameters(input, weight, bias)
    grouped = (shape[0], num_groups, channels // num_groups, *shape[2:])
    channel = tuple(n if i == 1 else 1 for i, n in enumerate(shape))

    def emit(b: Builder, x: Node, *rest: Node) -> Node:
        wide = b.reshape(x, grouped)
        made = b.reshape(_standardised(b, wide, tuple(range(2, len(grouped))), eps), shape)
        return _affine(b, made, list(rest), channel, weight is not None, bias is not None)

    return record("NativeGroupNormBackward0", given(input, weight, bias), emit)


@repeatable
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of squares over `size` channels around)^beta; channels outside count as 0."""
    shape = input._type.shape
    if len(shape) < 3:
        raise InputError(f"Expected 3D or higher dimensionality input (got {len(shape)} dimensions)")
    if size <= 0:
        raise UsageError(f"local_response_norm: size should be greater than zero, but got {size}")
    low = tuple(size // 2 if i == 1 else 0 for i in range(len(shape)))
    high = tuple((size - 1) // 2 if i == 1 else 0 for i in range(len(shape)))

    def emit(b: Builder, x: Node) -> Node:
        squares = b.window(b.pad(b.mul(x, x), low, high), (1,), (size,), (1,), (1,))
        mean = b.div(b.reduce_sum(squares, (len(shape),)), b.constant(size, x.type))
        base = b.add(b.mul(mean, float(alpha)), float(k))
        return b.div(x, b.apply("pow", (base, b.constant(beta, x.type))))

    need_float("local_response_norm", input)
    if not input._type.size:
        return input
    return record("DivBackward0", (input,), emit)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x over its p-norm along `dim`, which counts as at least `eps`."""
    scale = norm(input, p, dim, True).clamp(min=eps).expand_as(input)
    if out is None:
        return input / scale
    refuse_gradients("div", (input, out))
    return into(out, input / scale, "div")
