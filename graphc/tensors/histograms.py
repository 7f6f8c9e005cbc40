"""Counting: histograms over bins and over whole numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f64, i64
from graphc.tensors import results
from graphc.tensors.core import TensorBase, record, record_many
from graphc.tensors.operands import plain
from graphc.tensors.out import out_form
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


@out_form
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each whole number stands in a vector, or the sum of its weights. Looks at the values for the length."""
    dtype = input._type.dtype
    if not dtype.is_integer:
        raise NotImplementedError(f"\"bincount_cpu\" not implemented for '{type_name(dtype)}'")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    values = input._array()
    if input.ndim != 1 or (values.size and values.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is not None and weights._type.shape != input._type.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    length = max(int(values.max()) + 1 if values.size else 0, minlength)
    given = [input] if weights is None else [input, weights.detach()]

    def emit(b: Builder, x: Node, *more: Node) -> Node:
        kind = i64 if not more else more[0].dtype if more[0].dtype.is_float and more[0].dtype.itemsize == 4 else f64
        zeros = b.constant(0, TensorType(kind, (length,)))
        source = b.cast(more[0], kind) if more else b.constant(1, zeros.type.with_shape(x.shape))
        return b.apply("index_add", (zeros, b.cast(x, i64), source), {"axis": 0}) if x.type.size else zeros

    return record("NotDifferentiable", given, emit)


def _bounds(b: Builder, x: Node, low: float, high: float, from_data: bool, more: float) -> tuple[Node, Node]:
    """The ends of the range, as nodes without dimensions: those given, or those of the data; when equal, `more`
    apart from their value.
    """
    type = x.type.with_shape(())
    first, last = b.constant(low, type), b.constant(high, type)
    if from_data and x.type.size:
        axes = tuple(range(x.type.rank))
        first = b.apply("reduce_min", (x,), {"axes": axes, "ties": "even"}) if axes else x
        last = b.apply("reduce_max", (x,), {"axes": axes, "ties": "even"}) if axes else x
    same = b.apply("eq", (first, last))
    return b.select(same, b.sub(first, more), first), b.select(same, b.add(last, more), last)


def _filled(b: Builder, x: Node, place: Node, inside: Node, weight: Node | None, bins: int) -> Node:
    """Weights (ones) added up at `place`, but for those not `inside`."""
    zeros = b.constant(0, x.type.with_shape((bins,)))
    ones = b.constant(1, x.type) if weight is None else weight
    source = b.select(inside, ones, b.zeros_like(ones))
    if not x.type.size:
        return zeros
    at = b.elementwise("maximum", b.elementwise("minimum", place, bins - 1), 0)
    return b.apply("index_add", (zeros, at, source), {"axis": 0})


@out_form
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts of elements in `bins` equal parts of [min, max], or of the range of the data when both are 0."""
    dtype = input._type.dtype
    if not dtype.is_float:
        raise NotImplementedError(f"\"histogram_cpu\" not implemented for '{type_name(dtype)}'")
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    low, high = float(plain(min)), float(plain(max))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")

    def emit(b: Builder, x: Node) -> Node:
        flat = b.reshape(x, (x.type.size,))
        first, last = (b.broadcast(n, flat.shape) for n in _bounds(b, x, low, high, low == high, 1.0))
        inside = b.apply("bitwise_and", (b.apply("ge", (flat, first)), b.apply("le", (flat, last))))
        place = b.mul(b.div(b.sub(flat, first), b.sub(last, first)), float(bins))
        return _filled(b, flat, b.cast(b.select(inside, place, 0.0), i64), inside, None, bins)

    return record("NotDifferentiable", (input.detach(),), emit)


def _edges(b: Builder, first: Node, last: Node, bins: int) -> Node:
    """bins + 1 edges, each counted from the nearer end, as `linspace` does."""
    type = first.type.with_shape((bins + 1,))
    index = b.iota(0, type)
    step = b.broadcast(b.div(b.sub(last, first), float(bins)), type.shape)
    up = b.add(b.broadcast(first, type.shape), b.mul(step, index))
    down = b.sub(b.broadcast(last, type.shape), b.mul(step, b.sub(float(bins), index)))
    return b.select(b.elementwise("lt", index, float((bins + 1) // 2)), up, down)


@out_form
def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Counts (or sums of weights) between edges, and the edges: those given, or `bins` equal parts of the range."""
    dtype = input._type.dtype
    if not dtype.is_float:
        raise NotImplementedError(f"\"histogramdd\" not implemented for '{type_name(dtype)}'")
    given = [input.detach()]
    if isinstance(bins, TensorBase):
        if bins._type.dtype is not dtype:
            raise DTypeError(
                "torch.histogramdd: input tensor and bins tensors should have the same dtype, but got input with dtype "
                f"{_cpp_name(dtype)} and bins for dimension 0 with dtype {_cpp_name(bins._type.dtype)}"
            )
        if bins.ndim != 1 or bins._type.size == 0:
            raise RuntimeError(
                f"torch.histogramdd: bins tensor should have one dimension, but got {bins.ndim} dimensions"
            )
        given.append(bins.detach())  # type: ignore[arg-type]
        count = bins._type.size - 1
    else:
        count = int(bins)
        if count <= 0:
            raise RuntimeError(f"torch.histogramdd(): bins must be > 0, but got {count} for dimension 0")
    low, high = (float(plain(end)) for end in range) if range is not None else (0.0, 0.0)
    if low > high:
        raise RuntimeError(
            f"torch.histogramdd: min should not exceed max, but got min {low} max {high} for dimension 0"
        )
    if weight is not None:
        if weight._type.dtype is not dtype or weight._type.shape != input._type.shape:
            raise RuntimeError("torch.histogramdd: weight should have the shape and dtype of the input")
        given.append(weight.detach())

    def emit(b: Builder, x: Node, *more: Node) -> list[Node]:
        rest = list(more)
        if isinstance(bins, TensorBase):
            edges = rest.pop(0)
        else:
            edges = _edges(b, *_bounds(b, x, low, high, range is None, 0.5), count)
        flat = b.reshape(x, (x.type.size,))
        weights = b.reshape(rest[0], flat.shape) if rest else None
        ends = [b.broadcast(b.slice(edges, (at,), (1,), (1,)), flat.shape) for at in (0, count)]
        inside = b.apply("bitwise_and", (b.apply("ge", (flat, ends[0])), b.apply("le", (flat, ends[1]))))
        place = b.sub(b.apply("searchsorted", (edges, flat), {"right": True}), 1)
        counts = _filled(b, flat, place, inside, weights, count)
        if density:
            widths = b.sub(b.slice(edges, (1,), (count,), (1,)), b.slice(edges, (0,), (count,), (1,)))
            total = b.broadcast(b.reshape(b.reduce_sum(counts, (0,)), (1,)), (count,))
            counts = b.div(b.div(counts, total), widths)
        return [counts, edges]

    return results.histogram(*record_many("NotDifferentiable", given, emit))


def _cpp_name(dtype: Any) -> str:
    return {"Float": "float", "Double": "double"}.get(type_name(dtype), type_name(dtype).lower())
