"""Variances, covariances, quantiles, modes and histograms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import bf16, boolean, f16, f32
from graphc.naming import named
from graphc.promotion import Number, as_float, promote_types
from graphc.recording import current
from graphc.tensors import elementwise
from graphc.tensors.core import record, record_many
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.reductions import Dims, axes_of, count_of, keep, mean_node, reduction
from graphc.tensors.shaping import diagonal, reshape
from graphc.tensors.widening import in_single
from graphc.tensors.writing import type_name
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def variance_node(b: Builder, x: Node, axes: tuple[int, ...], correction: float) -> Node:
    """Squared deviations from the mean over `axes`, divided by the number of elements less `correction` (at least by
    0).
    """
    narrow = x.dtype
    x = b.cast(x, f32) if narrow in (f16, bf16) else x
    count = count_of(x.shape, axes)
    middle = mean_node(b, x, axes)
    total = b.reduce_sum(squared_deviations(b, x, middle, axes), axes)
    total = b.sub(total, b.mul(own_deviation(b, middle), count))
    degrees = count - correction
    return b.cast(b.div(total, b.constant(degrees if degrees > 0 else 0, total.type)), narrow)


def squared_deviations(b: Builder, x: Node, middle: Node, axes: tuple[int, ...]) -> Node:
    """(x - mean)², where the mean is a number that no gradients flow to. See `own_deviation`."""
    off = b.sub(x, b.expand_dims(b.apply("detach", (middle,)), axes, x.shape))
    return b.mul(off, off)


def own_deviation(b: Builder, middle: Node) -> Node:
    """(mean - m)², where m is the mean as a number: 0, and so is its gradient.

    For any number m the variance is the mean of (x - m)² less this. Gradients of all orders are those of the variance,
    and the first one has no sum of deviations from the mean, which is 0, in it.
    """
    off = b.sub(middle, b.apply("detach", (middle,)))
    return b.mul(off, off)


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
            raise KindError(f"{name}() received an invalid combination of arguments: unbiased is given twice")
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise KindError(f"{name}() received an invalid combination of arguments: unbiased and correction")
    if not input._type.dtype.is_float:
        what = "std and var" if name in ("std", "var") else name
        raise DTypeError(f"{what} only support floating point and complex dtypes")
    axes = axes_of(dim, input.ndim, name)
    less = float(correction) if correction is not None else float(unbiased is not False)
    if count_of(input._type.shape, axes) - less <= 0:
        warn(
            f"{name}(): degrees of freedom is <= 0. Correction should be strictly less than the reduction factor "
            "(input numel divided by output numel).",
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

    about = f"{doc} over `dim`; divided by n - 1 (n when not `unbiased`), or by n - correction."
    return reduction(named(function, name, about))


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

    return reduction(named(function, name, f"{doc} and mean over `dim`; see `var`."))


var_mean = _spread_and_mean("var_mean", variance_node, "Variance")
std_mean = _spread_and_mean("std_mean", deviation_node, "Standard deviation")


# covariance


def _observations(name: str, input: Tensor) -> Tensor:
    """The input as a matrix: a row for each variable, a column for each observation."""
    if input.ndim > 2:
        raise UsageError(
            f"{name}(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    if input._type.dtype is boolean:
        raise DTypeError(f"{name}(): bool dtype is not supported for input")
    return input if input.ndim == 2 else reshape(input, 1, -1)


def _checked_weights(weights: Tensor, count: int, name: str, integral: bool) -> None:
    if weights.ndim > 1:
        raise UsageError(
            f"cov(): expected {name} to have one or fewer dimensions but got {name} with {weights.ndim} dimensions"
        )
    if weights._type.dtype.is_integer != integral:
        kind = "integral" if integral else "floating point"
        raise DTypeError(
            f"cov(): expected {name} to have {kind} dtype but got {name} with {type_name(weights._type.dtype)} dtype"
        )
    if weights._type.size != count:
        raise UsageError(
            f"cov(): expected {name} to have the same numel as there are observations in the input but got "
            f"{weights._type.size} != {count}"
        )
    if current().capture is None and weights._type.size and weights._array().min() < 0:
        raise UsageError(f"cov(): {name} cannot be negative")


@kinds_checked
def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Covariances of variables (rows) over observations (columns), with frequencies and weights of observations."""
    table = _observations("cov", input)
    count = table._type.shape[1]
    given = [table]
    for weights, name in ((fweights, "fweights"), (aweights, "aweights")):
        if weights is not None:
            _checked_weights(weights, count, name, name == "fweights")
            given.append(weights)
    dtype = as_float(table._type.dtype if aweights is None else promote_types(table._type.dtype, aweights._type.dtype))

    def emit(b: Builder, x: Node, *weights: Node) -> Node:
        x = b.cast(x, dtype)
        variables = x.shape[0]
        scalar = x.type.with_shape(())
        factors = [b.reshape(b.cast(w, x.dtype), (count,)) for w in weights]
        if not factors:
            weight, total = None, b.constant(count, scalar)
        else:
            weight = factors[0] if len(factors) == 1 else b.mul(*factors)
            total = b.reduce_sum(weight, (0,))
        spread = None if weight is None else b.broadcast(weight, x.shape)
        sums = b.reduce_sum(x if spread is None else b.mul(x, spread), (1,))
        middle = b.div(sums, b.broadcast(total, sums.shape))
        degrees = b.sub(total, float(correction))
        if aweights is not None and weight is not None and correction:
            squares = b.reduce_sum(b.mul(weight, factors[-1]), (0,))
            degrees = b.sub(total, b.div(b.mul(squares, float(correction)), total))
        off = b.sub(x, b.expand_dims(middle, (1,), x.shape))
        products = b.contract(off if spread is None else b.mul(off, spread), off, "i k, j k -> i j")
        low = b.apply("lt", (degrees, b.zeros_like(degrees)))
        made = b.div(products, b.broadcast(b.select(low, 0.0, degrees), products.shape))
        return b.reshape(made, ()) if variables == 1 else made

    if count - correction <= 0 and fweights is None and aweights is None:
        warn(
            "cov(): degrees of freedom is <= 0. Correction should be strictly less than the number of observations.",
        )
    return record("SqueezeBackward0", given, emit)


@kinds_checked
@in_single
def corrcoef(input: Tensor) -> Tensor:
    """Correlations of variables (rows) over observations (columns), in [-1, 1]."""
    _observations("corrcoef", input)
    products = cov(input)
    if products.ndim == 0:
        return elementwise.div(products, products)
    rows = products._type.shape[0]
    deviations = elementwise.sqrt(diagonal(products))
    scaled = elementwise.div(elementwise.div(products, reshape(deviations, rows, 1)), deviations)
    return elementwise.clamp(scaled, -1, 1)
