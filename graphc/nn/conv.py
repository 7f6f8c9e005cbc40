"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc import Tensor, empty
from graphc.errors import InputError
from graphc.nn import functional as F
from graphc.nn import init
from graphc.nn.module import Module
from graphc.nn.parameter import Parameter

Extents = int | tuple[int, ...]
_MODES = ("zeros", "reflect", "replicate", "circular")


def _per_axis(value: Extents, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


class _ConvNd(Module):
    """What all convolutions share.

    Weight and bias start as U(-b, b) with b = 1/sqrt(product(weight.shape[1:])).
    """

    weight: Parameter
    bias: Parameter | None
    rank: int
    transposed: bool

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extents,
        stride: Extents,
        padding: Extents | str,
        dilation: Extents,
        output_padding: Extents,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise InputError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise InputError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise InputError("out_channels must be divisible by groups")
        steps = _per_axis(stride, self.rank)
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise InputError(f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}")
            if padding == "same" and any(step != 1 for step in steps):
                raise InputError("padding='same' is not supported for strided convolutions")
        if padding_mode not in _MODES:
            raise InputError(f"padding_mode must be one of {set(_MODES)}, but got padding_mode={padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _per_axis(kernel_size, self.rank)
        self.stride = steps
        self.padding = padding if isinstance(padding, str) else _per_axis(padding, self.rank)
        self.dilation = _per_axis(dilation, self.rank)
        self.transposed = type(self).transposed
        self.output_padding = _per_axis(output_padding, self.rank)
        self.groups = groups
        self.padding_mode = padding_mode
        self._reversed_padding_repeated_twice = self._pads()
        channels = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (channels[0], channels[1] // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _pads(self) -> Sequence[int]:
        """What `functional.pad` wants: low and high of each axis, the last axis first."""
        if not isinstance(self.padding, str):
            return tuple(p for p in reversed(self.padding) for _ in range(2))
        if self.padding == "valid":
            return [0, 0] * self.rank
        totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return [n for t in reversed(totals) for n in (t // 2, t - t // 2)]

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = math.prod(self.weight.shape[1:])
        if self.bias is not None and fan_in != 0:
            bound = 1 / math.sqrt(fan_in)
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self.rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.rank:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self.rank:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Conv(_ConvNd):
    """Cross-correlation. Weight `[out_channels, in_channels / groups, *kernel_size]`.

    `padding`: numbers, "valid" or "same"; `padding_mode` says what is added: "zeros", or as in `functional.pad`.
    """

    transposed = False
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extents,
        stride: Extents = 1,
        padding: Extents | str = 0,
        dilation: Extents = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias, padding_mode, device,
            dtype,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self._own_parameters()
        return self._conv_forward(input, weight, bias)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0,) * self.rank
        return type(self).function(input, weight, bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(_Conv):
    """Cross-correlation over `[batch, in_channels, length]` or `[in_channels, length]`."""

    rank = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Conv):
    """Cross-correlation over `[batch, in_channels, height, width]` or `[in_channels, height, width]`."""

    rank = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Conv):
    """Cross-correlation over `[batch, in_channels, depth, height, width]` or the same without the batch."""

    rank = 3
    function = staticmethod(F.conv3d)


class _ConvTransposeNd(_ConvNd):
    """The adjoint of a convolution. Weight `[in_channels, out_channels / groups, *kernel_size]`.

    An extent n becomes (n - 1) · stride - 2 · padding + dilation · (kernel_size - 1) + output_padding + 1; a call with
    `output_size` chooses `output_padding` instead.
    """

    transposed = True
    function: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extents,
        stride: Extents = 1,
        padding: Extents = 0,
        output_padding: Extents = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Extents = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise InputError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        more = self.output_padding if output_size is None else self._chosen(input, list(output_size))
        return type(self).function(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation
        )

    def _chosen(self, input: Tensor, wanted: list[int]) -> tuple[int, ...]:
        """The output padding that gives the extents `wanted`. ValueError where there is none."""
        front = input.dim() - self.rank
        if len(wanted) == front + self.rank:
            wanted = wanted[front:]
        if len(wanted) != self.rank:
            raise InputError(
                f"ConvTranspose{self.rank}D: for {input.dim()}D input, output_size must have {self.rank} or "
                f"{front + self.rank} elements (got {len(wanted)})"
            )
        extents = input.shape[front:]
        assert not isinstance(self.padding, str)
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(extents, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        ]
        most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
        if any(not low <= size <= high for low, size, high in zip(least, wanted, most, strict=True)):
            raise InputError(
                f"requested an output size of {wanted}, but valid sizes range from {least} to {most} (for an input of "
                f"{input.shape[2:]})"
            )
        return tuple(size - low for size, low in zip(wanted, least, strict=True))


class ConvTranspose1d(_ConvTransposeNd):
    """The adjoint of `Conv1d`, over `[batch, in_channels, length]` or `[in_channels, length]`."""

    rank = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    """The adjoint of `Conv2d`, over `[batch, in_channels, height, width]` or the same without the batch."""

    rank = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    """The adjoint of `Conv3d`, over `[batch, in_channels, depth, height, width]` or the same without the batch."""

    rank = 3
    function = staticmethod(F.conv_transpose3d)
