"""Variances, covariances, quantiles, modes and histograms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import bf16, f16, f32
from graphc.promotion import Number
from graphc.tensors.core import record, record_many
from graphc.tensors.reductions import Dims, axes_of, count_of, keep, mean_node, reduction

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def variance_node(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """Squared deviations from the mean over `axes`, divided by the number of elements less `correction` (at least by
    0).
    """
    narrow = x.dtype
    x = b.cast(x, f32) if narrow in (f16, bf16) else x
    off = b.sub(x, b.expand_dims(mean_node(b, x, axes), axes, x.shape))
    total = b.reduce_sum(b.mul(off, off), axes)
    degrees = count_of(x.shape, axes) - correction
    return b.cast(b.div(total, b.constant(degrees if degrees > 0 else 0, total.type)), narrow)


def deviation_node(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """Square root of the variance; where that is 0 its gradient is 0."""
    variance = variance_node(b, x, axes, correction)
    zero = b.apply("eq", (variance, b.zeros_like(variance)))
    return b.select(zero, 0.0, b.apply("sqrt", (b.select(zero, 1.0, variance),)))


def _spread_arguments(
    name: str, input: Tensor, dim: Any, unbiased: bool | None, correction: Number | None
) -> tuple[tuple[int, ...], float]:
    """The axes and the correction that the overloads (dim, unbiased), (unbiased) and (dim, correction) mean."""
    if isinstance(dim, bool):
        if unbiased is not None:
            raise TypeError(f"{name}() received an invalid combination of arguments: unbiased is given twice")
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"{name}() received an invalid combination of arguments: unbiased and correction")
    if not input._type.dtype.is_float:
        what = "std and var" if name in ("std", "var") else name
        raise DTypeError(f"{what} only support floating point and complex dtypes")
    axes = axes_of(dim, input.ndim, name)
    less = float(correction) if correction is not None else float(unbiased is not False)
    if count_of(input._type.shape, axes) - less <= 0:
        warnings.warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor "
            "(input numel divided by output numel).",
            stacklevel=4,
        )
    return axes, less


def _spread(name: str, node: Callable[..., Node], doc: str) -> Callable[..., Any]:
    def function(
        input: Tensor,
        dim: Dims = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: Number | None = None,
    ) -> Tensor:
        axes, less = _spread_arguments(name, input, dim, unbiased, correction)
        return record(
            f"{name.capitalize()}Backward0",
            (input,),
            lambda b, x: keep(b, node(b, x, axes, less), axes, x.shape, keepdim),
        )

    function.__name__ = name
    function.__doc__ = f"{doc} over `dim`; divided by n - 1 (n when not `unbiased`), or by n - correction."
    return reduction(function)


var = _spread("var", variance_node, "Variance")
std = _spread("std", deviation_node, "Standard deviation")


def _spread_and_mean(name: str, node: Callable[..., Node], doc: str) -> Callable[..., Any]:
    def function(
        input: Tensor,
        dim: Dims = None,
        unbiased: bool | None = None,
        keepdim: bool = False,
        *,
        correction: Number | None = None,
    ) -> tuple[Tensor, Tensor]:
        axes, less = _spread_arguments(name, input, dim, unbiased, correction)
        first, middle = record_many(
            "".join(part.capitalize() for part in name.split("_")) + "Backward0",
            (input,),
            lambda b, x: [
                keep(b, made, axes, x.shape, keepdim) for made in (node(b, x, axes, less), mean_node(b, x, axes))
            ],
        )
        return first, middle

    function.__name__ = name
    function.__doc__ = f"{doc} and mean over `dim`; see `var`."
    return reduction(function)


var_mean = _spread_and_mean("var_mean", variance_node, "Variance")
std_mean = _spread_and_mean("std_mean", deviation_node, "Standard deviation")
