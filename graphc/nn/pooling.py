"""Pooling layers over the last dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import Tensor
from graphc.errors import InputError
from graphc.nn import functional as F
from graphc.nn.module import Module

Extents = int | tuple[int, ...]
Places = int | None | Sequence[int | None]


def _per_axis(value: Extents, rank: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


class _MaxPool(Module):
    """Largest value of each window; `stride` defaults to `kernel_size`. Padding counts as minus infinity.

    With `return_indices` also where it stands (int64).
    """

    function: Callable[..., Any]

    def __init__(
        self,
        kernel_size: Extents,
        stride: Extents | None = None,
        padding: Extents = 0,
        dilation: Extents = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """Largest value of each window of the last dimension."""

    function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """Largest value of each window of the last two dimensions."""

    function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    """Largest value of each window of the last three dimensions."""

    function = staticmethod(F.max_pool3d)


class _AvgPool(Module):
    """Mean of each window; `stride` defaults to `kernel_size`. Zero padding counts if `count_include_pad`."""

    kernel_size: Extents
    stride: Extents
    padding: Extents

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """Mean of each window of the last dimension."""

    def __init__(
        self,
        kernel_size: Extents,
        stride: Extents | None = None,
        padding: Extents = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, 1)
        self.stride = _per_axis(stride if stride is not None else kernel_size, 1)
        self.padding = _per_axis(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class _AvgPoolDivided(_AvgPool):
    """`divisor_override` takes the place of the window's size."""

    function: Callable[..., Tensor]

    def __init__(
        self,
        kernel_size: Extents,
        stride: Extents | None = None,
        padding: Extents = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool2d(_AvgPoolDivided):
    """Mean of each window of the last two dimensions."""

    function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPoolDivided):
    """Mean of each window of the last three dimensions."""

    function = staticmethod(F.avg_pool3d)


class _LPPool(Module):
    """The `norm_type`-th root of the sum of powers of each window."""

    function: Callable[..., Tensor]

    def __init__(
        self,
        norm_type: float,
        kernel_size: Extents,
        stride: Extents | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The root of the sum of powers of each window of the last dimension."""

    function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    """The root of the sum of powers of each window of the last two dimensions."""

    function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    """The root of the sum of powers of each window of the last three dimensions."""

    function = staticmethod(F.lp_pool3d)


class _MaxUnpool(Module):
    """Puts values back where the maxima stood, zeros elsewhere."""

    rank: int
    function: Callable[..., Tensor]

    def __init__(self, kernel_size: Extents, stride: Extents | None = None, padding: Extents = 0) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, self.rank)
        self.stride = _per_axis(stride if stride is not None else kernel_size, self.rank)
        self.padding = _per_axis(padding, self.rank)

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return type(self).function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Undoes `MaxPool1d`."""

    rank = 1
    function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    """Undoes `MaxPool2d`."""

    rank = 2
    function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    """Undoes `MaxPool3d`."""

    rank = 3
    function = staticmethod(F.max_unpool3d)


class _AdaptiveAvgPool(Module):
    """Means that make `output_size` places; None keeps an extent."""

    function: Callable[..., Tensor]

    def __init__(self, output_size: Places) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Means that make `output_size` places of the last dimension."""

    function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Means that make `output_size` places of the last two dimensions."""

    function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Means that make `output_size` places of the last three dimensions."""

    function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    """Maxima that make `output_size` places, with `return_indices` also where they stand; None keeps an extent."""

    function: Callable[..., Any]

    def __init__(self, output_size: Places, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return type(self).function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Maxima that make `output_size` places of the last dimension."""

    function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Maxima that make `output_size` places of the last two dimensions."""

    function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Maxima that make `output_size` places of the last three dimensions."""

    function = staticmethod(F.adaptive_max_pool3d)


class _FractionalMaxPool(Module):
    """Maxima of windows at random places; either `output_size` or `output_ratio`, in (0, 1), says how many.

    The buffer `_random_samples`, if given, decides the places.
    """

    function: Callable[..., Any]
    rank: int

    def __init__(
        self,
        kernel_size: Extents,
        output_size: Extents | None = None,
        output_ratio: float | tuple[float, ...] | None = None,
        return_indices: bool = False,
        _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = _per_axis(kernel_size, self.rank)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else _per_axis(output_size, self.rank)
        ratios = output_ratio if isinstance(output_ratio, tuple | list) else (output_ratio,) * self.rank
        self.output_ratio = None if output_ratio is None else tuple(ratios)
        if output_size is None and output_ratio is None:
            raise InputError(f"{type(self).__name__} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise InputError("only one of output_size and output_ratio may be specified")
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):  # type: ignore[operator]
            raise InputError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return type(self).function(
            input,
            self.kernel_size,
            self.output_size,
            self.output_ratio,
            self.return_indices,
            _random_samples=self._random_samples,
        )


class FractionalMaxPool2d(_FractionalMaxPool):
    """Maxima of windows at random places of the last two dimensions."""

    function = staticmethod(F.fractional_max_pool2d)
    rank = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Maxima of windows at random places of the last three dimensions."""

    function = staticmethod(F.fractional_max_pool3d)
    rank = 3
