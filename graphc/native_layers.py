"""Layers as they stand under `torch` itself, with another order of arguments, or more results, than in
`nn.functional`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.dropping import alpha_dropout as functional_alpha_dropout
from graphc.dropping import drop_channels, kept_node
from graphc.dropping import dropout as functional_dropout
from graphc.dropping import feature_alpha_dropout as functional_feature_alpha_dropout
from graphc.errors import InputError, ShapeError, UsageError
from graphc.grids import affine_grid, grid_sample
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.lookup import bag_facts
from graphc.lookup import embedding as functional_embedding
from graphc.lookup import embedding_bag as functional_embedding_bag
from graphc.normalisation import batch_norm as functional_batch_norm
from graphc.normalisation import group_norm as functional_group_norm
from graphc.normalisation import instance_norm as functional_instance_norm
from graphc.normalisation import inverse_root
from graphc.normalisation import layer_norm as functional_layer_norm
from graphc.random import draw_key
from graphc.recording import current
from graphc.tensors.casting import autocasts
from graphc.tensors.core import finish, read, record, record_many, wants_grad
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.norms import norm
from graphc.tensors.out import out_form
from graphc.tensors.reductions import mean_node
from graphc.tensors.shaping import reshape, transpose

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# normalisation


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias per channel; `cudnn_enabled` has no effect on the CPU."""
    return functional_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias per sample and channel; `cudnn_enabled` has no effect."""
    return functional_instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )  # fmt: skip


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over groups of channels; `cudnn_enabled` has no effect on the CPU."""
    return functional_group_norm(input, num_groups, weight, bias, eps)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over the last dimensions; `cudnn_enable` has no effect on the CPU."""
    return functional_layer_norm(input, normalized_shape, weight, bias, eps)


def _mean_and_scale(b: Builder, x: Node, axes: tuple[int, ...], eps: float) -> list[Node]:
    """Mean over `axes` and 1 / sqrt(variance + eps)."""
    middle = mean_node(b, x, axes)
    off = b.sub(x, b.expand_dims(middle, axes, x.shape))
    return [middle, inverse_root(b, mean_node(b, b.mul(off, off), axes), eps)]


@autocasts
def native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`layer_norm`, the means and 1 / sqrt(variance + eps); no gradient goes through the last two."""
    made = functional_layer_norm(input, normalized_shape, weight, bias, eps)
    rank, count = input.ndim, len(normalized_shape)
    axes = tuple(range(rank - count, rank))
    kept = tuple(1 if i in axes else n for i, n in enumerate(input._type.shape))
    mean, scale = record_many("", (input.detach(),), lambda b, x: _mean_and_scale(b, x, axes, eps))
    return made, reshape(mean, kept), reshape(scale, kept)


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`group_norm` of N samples of C channels of HxW places, the means and 1 / sqrt(variance + eps) of the groups."""
    if input.numel() != N * C * HxW:
        raise ShapeError(f"native_group_norm: expected {N} * {C} * {HxW} elements, got {list(input._type.shape)}")
    made = functional_group_norm(input, group, weight, bias, eps)

    def emit(b: Builder, x: Node) -> list[Node]:
        return _mean_and_scale(b, b.reshape(x, (N, group, C // group * HxW)), (2,), eps)

    mean, scale = record_many("NativeGroupNormBackward0", (input,), emit)
    return made, mean, scale


@out_form
def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`batch_norm` and, when training, the batch's means and 1 / sqrt(variance + eps), which no gradient goes through;
    else two empty tensors.
    """
    made = functional_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = (0, *range(2, input.ndim))

    def emit(b: Builder, x: Node) -> list[Node]:
        if not training:
            return [b.constant(0, x.type.with_shape((0,)))] * 2
        return _mean_and_scale(b, x, axes, eps)

    mean, scale = record_many("", (input.detach(),), emit)
    return made, mean, scale


@kinds_checked
def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The `pow`-norm over all dimensions but one, which are kept; with -1, over all."""
    if dim == -1:
        return norm(v, pow)
    shape = v._type.shape
    if dim == 0:
        return reshape(norm(reshape(v, shape[0], -1), pow, 1), (shape[0], *(1,) * (len(shape) - 1)))
    if dim == len(shape) - 1:
        return reshape(norm(reshape(v, -1, shape[dim]), pow, 0), (*(1,) * (len(shape) - 1), shape[dim]))
    return transpose(norm_except_dim(transpose(v, 0, dim), pow, 0), 0, dim)


# dropout


def _check_chance(p: float) -> None:
    if not 0 <= p <= 1:
        raise UsageError(f"dropout probability has to be between 0 and 1, but got {p:g}")


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Each element is 0 with probability p, else divided by 1 - p; the identity when not training."""
    _check_chance(p)
    return functional_dropout(input, p, train)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`dropout` in place."""
    _check_chance(p)
    return functional_dropout(input, p, train, inplace=True)


def alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Dropout that keeps mean 0 and variance 1: dropped elements get SELU's saturated value."""
    _check_chance(p)
    return functional_alpha_dropout(input, p, train)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout` in place."""
    _check_chance(p)
    return functional_alpha_dropout(input, p, train, inplace=True)


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`dropout` of whole channels: one draw for each entry of the first two dimensions."""
    _check_chance(p)
    return drop_channels(input, p, train, False)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_dropout` in place."""
    _check_chance(p)
    return drop_channels(input, p, train, True)


def feature_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout` of whole channels."""
    _check_chance(p)
    return functional_feature_alpha_dropout(input, p, train)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_alpha_dropout` in place."""
    _check_chance(p)
    return functional_feature_alpha_dropout(input, p, train, inplace=True)


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """`dropout`, always a new tensor, and which elements were kept; `train` None counts as True."""
    chance = p if train or train is None else 0.0
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        key = draw_key(None)
        kept = kept_node(b, x, key.node, x.shape, chance)
        scale = 0.0 if chance == 1 else 1 / (1 - chance)
        made = b.mul(b.mul(x, b.cast(kept, x.dtype)), scale)
        parents = (keep, key)
        value = finish(recorder, made, parents, "NativeDropoutBackward0", grad)
        return value, finish(recorder, kept, parents, "", False)


# tables


def embedding(
    weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Tensor:
    """Rows of `weight` by number; row `padding_idx`, if it is one, gets no gradient."""
    padding = padding_idx if 0 <= padding_idx < (weight._type.shape or (0,))[0] else None
    return functional_embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


_MODES = ("sum", "mean", "max")


def embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """Sums (mode 0), means (1) or maxima (2) of the rows of each bag; the bag of each index; how many rows counted in
    each bag; with mode 2 the numbers of the rows with the maxima.

    Sums count nothing: the third and fourth result are zeros, as in PyTorch. PyTorch also leaves out the second for
    sums of float32.
    """
    if mode not in (0, 1, 2):
        raise UsageError("`mode` must be sum, mean, or max.")
    made = functional_embedding_bag(
        indices,
        weight,
        offsets,
        scale_grad_by_freq=scale_grad_by_freq,
        mode=_MODES[mode],
        sparse=sparse,
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=padding_idx,
    )
    return (made, *bag_facts(weight, indices, offsets, _MODES[mode], include_last_offset, padding_idx))


# grids and convolution

_INTERPOLATIONS = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:  # fmt: skip
    """`nn.functional.grid_sample` by numbers: bilinear, nearest, bicubic; zeros, border, reflection.

    ValueError for other numbers.
    """
    for name, number in (("interpolation_mode", interpolation_mode), ("padding_mode", padding_mode)):
        if number not in (0, 1, 2):
            raise InputError(f"grid_sampler(): expected {name} to be 0, 1 or 2, but got {number}")
    mode, padding = _INTERPOLATIONS[interpolation_mode], _PADDINGS[padding_mode]
    return grid_sample(input, grid, mode, padding, bool(align_corners))


def grid_sampler_2d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:  # fmt: skip
    """`grid_sampler` of images (N, C, H, W)."""
    return _sampler(2, input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:  # fmt: skip
    """`grid_sampler` of volumes (N, C, D, H, W)."""
    return _sampler(3, input, grid, interpolation_mode, padding_mode, align_corners)


def _sampler(rank: int, input: Tensor, grid: Tensor, *how: Any) -> Tensor:
    if input.ndim != rank + 2 or grid.ndim != rank + 2:
        raise ShapeError(
            f"grid_sampler_{rank}d(): expected {rank + 2}D input and grid, but got input with sizes "
            f"{list(input._type.shape)} and grid with sizes {list(grid._type.shape)}"
        )
    return grid_sampler(input, grid, *how)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """`nn.functional.affine_grid`."""
    return affine_grid(theta, size, bool(align_corners))


@autocasts
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """A convolution over time of (time, batch, channels) with a weight (offsets, channels, out) and a bias (out)."""
    shape, kernel = input._type.shape, weight._type.shape
    if len(shape) != 3:
        raise ShapeError("Input must have 3 dims: time, batch, in_channel")
    if len(kernel) != 3:
        raise ShapeError("Weight tensor must have 3 dims: kernel_width, in_channels, out_channels.")
    if bias.ndim != 1:
        raise ShapeError("Bias must be 1-D")
    if shape[2] != kernel[1]:
        raise ShapeError("Input dim 2 (input channels) is not == dim 1 in the weight tensor")
    if bias._type.shape[0] != kernel[2]:
        raise ShapeError("Bias size must equal dim 2 in the weight tensor (output channels).")

    def emit(b: Builder, x: Node, w: Node, c: Node) -> Node:
        padded = b.pad(x, (pad, 0, 0), (pad, 0, 0))
        made = b.contract(padded, w, "t+r b c, r c o -> t b o")
        return b.add(made, b.broadcast(c, made.shape))

    return record("ConvTbcBackward0", (input, weight, bias), emit)
