"""Channels moved into space and back, and mixed between groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.errors import ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.tensors.core import record
from graphc.tensors.learning import repeatable

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _check(name: str, input: Tensor, factor_name: str, factor: int) -> None:
    if input.ndim < 3:
        raise ShapeError(
            f"{name} expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)"
        )
    if factor <= 0:
        raise UsageError(f"{name} expects a positive {factor_name}, but got {factor}")


@repeatable
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C * r * r, H, W) as (..., C, H * r, W * r). W. Shi et al., 2016."""
    r = upscale_factor
    _check("pixel_shuffle", input, "upscale_factor", r)
    *front, c, h, w = input._type.shape
    if c % (r * r):
        raise ShapeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={c} is not divisible by {r * r}"
        )

    def emit(b: Builder, x: Node) -> Node:
        n = len(front)
        parts = b.reshape(x, (*front, c // (r * r), r, r, h, w))
        order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
        return b.reshape(b.permute(parts, order), (*front, c // (r * r), h * r, w * r))

    return record("PixelShuffleBackward0", (input,), emit)


@repeatable
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H * r, W * r) as (..., C * r * r, H, W): the inverse of `pixel_shuffle`."""
    r = downscale_factor
    _check("pixel_unshuffle", input, "downscale_factor", r)
    *front, c, h, w = input._type.shape
    for name, place, extent in (("height", -2, h), ("width", -1, w)):
        if extent % r:
            raise ShapeError(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but input.size({place})={extent} "
                f"is not divisible by {r}"
            )

    def emit(b: Builder, x: Node) -> Node:
        n = len(front)
        parts = b.reshape(x, (*front, c, h // r, r, w // r, r))
        order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
        return b.reshape(b.permute(parts, order), (*front, c * r * r, h // r, w // r))

    return record("PixelUnshuffleBackward0", (input,), emit)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels (dimension 1) of the groups taken in turn. X. Zhang et al., 2018."""
    return _channel_shuffle("ChannelShuffleBackward0", input, groups)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """As `channel_shuffle`."""
    return _channel_shuffle("NotImplemented", input, groups)


@repeatable
def _channel_shuffle(gradient: str, input: Tensor, groups: int) -> Tensor:
    shape = input._type.shape
    if len(shape) <= 2:
        raise ShapeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}")
    if groups <= 0:
        raise UsageError(f"Number of groups to divide channels in must be positive. Value of groups:{groups}")
    if shape[1] % groups:
        raise ShapeError(
            f"Number of channels must be divisible by groups. Got {shape[1]} channels and {groups} groups."
        )

    def emit(b: Builder, x: Node) -> Node:
        parts = b.reshape(x, (shape[0], groups, shape[1] // groups, *shape[2:]))
        return b.reshape(b.permute(parts, (0, 2, 1, *range(3, len(shape) + 1))), shape)

    return record(gradient, (input,), emit)
