"""Counting: histograms over bins and over whole numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, boolean, f64, i64
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
        raise UnsupportedError(f"\"bincount_cpu\" not implemented for '{type_name(dtype)}'")
    if minlength < 0:
        raise UsageError("minlength should be >= 0")
    values = input._array()
    if input.ndim != 1 or (values.size and values.min() < 0):
        raise UsageError("bincount only supports 1-d non-negative integral inputs.")
    if weights is not None and weights._type.shape != input._type.shape:
        raise UsageError("weights should be 1-d and have the same length as input")
    length = max(int(values.max()) + 1 if values.size else 0, minlength)
    given = [input] if weights is None else [input, weights.detach()]

    def emit(b: Builder, x: Node, *more: Node) -> Node:
        kind = i64 if not more else more[0].dtype if more[0].dtype.is_float and more[0].dtype.itemsize == 4 else f64
        zeros = b.constant(0, TensorType(kind, (length,), x.type.device))
        source = b.cast(more[0], kind) if more else b.constant(1, zeros.type.with_shape(x.shape))
        return b.apply("index_add", (zeros, b.cast(x, i64), source), {"axis": 0}) if x.type.size else zeros

    return record("NotDifferentiable", given, emit)


def _bounds(b: Builder, x: Node, low: float, high: float, from_data: bool, more: float) -> tuple[Node, Node]:
    """The ends of the range, as nodes without dimensions: those given, or those of the data (0 and 1 when there are
    none); when equal, `more` apart from their value.
    """
    type = x.type.with_shape(())
    if from_data and not x.type.size:
        low, high = 0.0, 1.0
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
        raise UnsupportedError(f"\"histogram_cpu\" not implemented for '{type_name(dtype)}'")
    if bins <= 0:
        raise UsageError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    low, high = float(plain(min)), float(plain(max))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"torch.histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise UsageError("torch.histc: max must be larger than min")

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
        raise UnsupportedError(f"\"histogramdd\" not implemented for '{type_name(dtype)}'")
    given = [input.detach()]
    if isinstance(bins, TensorBase):
        if bins._type.dtype is not dtype:
            raise DTypeError(
                "torch.histogramdd: input tensor and bins tensors should have the same dtype, but got input with dtype "
                f"{_cpp_name(dtype)} and bins for dimension 0 with dtype {_cpp_name(bins._type.dtype)}"
            )
        if bins.ndim != 1 or bins._type.size == 0:
            raise UsageError(
                f"torch.histogramdd: bins tensor should have one dimension, but got {bins.ndim} dimensions"
            )
        given.append(bins.detach())  # type: ignore[arg-type]
        count = bins._type.size - 1
    else:
        count = int(bins)
        if count <= 0:
            raise UsageError(f"torch.histogramdd(): bins must be > 0, but got {count} for dimension 0")
    low, high = (float(plain(end)) for end in range) if range is not None else (0.0, 0.0)
    if low > high:
        raise UsageError(f"torch.histogramdd: min should not exceed max, but got min {low} max {high} for dimension 0")
    if weight is not None:
        if weight._type.dtype is not dtype or weight._type.shape != input._type.shape:
            raise UsageError("torch.histogramdd: weight should have the shape and dtype of the input")
        given.append(weight.detach())

    def emit(b: Builder, x: Node, *more: Node) -> list[Node]:
        rest = list(more)
        if isinstance(bins, TensorBase):
            edges = rest.pop(0)
        else:
            edges = _edges(b, *_bounds(b, x, low, high, range is None, 0.5), count)
        flat = b.reshape(x, (x.type.size,))
        weights = b.reshape(rest[0], flat.shape) if rest else None
        place, inside = _cell(b, flat, edges)
        counts = _filled(b, flat, place, inside, weights, count)
        if density:
            total = b.broadcast(b.reshape(b.reduce_sum(counts, (0,)), (1,)), (count,))
            counts = b.div(b.div(counts, total), _widths(b, edges))
        return [counts, edges]

    return results.histogram(*record_many("NotDifferentiable", given, emit))


def _check_dimensions(input: Tensor, bins: Any) -> list[Any]:
    """The bins of each dimension: numbers or vectors of edges."""
    dtype, name = input._type.dtype, "torch.histogramdd"
    if not dtype.is_float:
        raise UnsupportedError(f"\"histogramdd\" not implemented for '{type_name(dtype)}'")
    if input.ndim < 2:
        raise ShapeError(f"{name}: input tensor should have at least 2 dimensions")
    count = input._type.shape[-1]
    wanted = [bins] * count if isinstance(bins, int) else list(bins)
    if len(wanted) != count:
        raise ShapeError("histogramdd: The size of bins must be equal to the innermost dimension of the input.")
    for place, each in enumerate(wanted):
        if not isinstance(each, TensorBase):
            if each <= 0:
                raise UsageError(f"torch.histogram(): bins must be > 0, but got {each} for dimension {place}")
            continue
        if each._type.dtype is not dtype:
            raise DTypeError(
                f"{name}: input tensor and bins tensors should have the same dtype, but got input with dtype "
                f"{_cpp_name(dtype)} and bins for dimension {place} with dtype {_cpp_name(each._type.dtype)}"
            )
        if each.ndim != 1 or not each._type.size:
            raise ShapeError(f"{name}: bins tensor should have one dimension, but got {each.ndim} dimensions")
    return wanted


def _check_range_and_weight(input: Tensor, range: Any, weight: Tensor | None) -> list[float]:
    count, name = input._type.shape[-1], "torch.histogramdd"
    ends = [] if range is None else [float(plain(end)) for end in range]
    if range is not None and len(ends) != 2 * count:
        raise ShapeError(
            f"{name}: for a {count}-dimensional histogram range should have {2 * count} elements, but got {len(ends)}"
        )
    for place, (low, high) in enumerate(zip(ends[::2], ends[1::2], strict=True)):
        if low > high:
            raise UsageError(
                f"{name}: min should not exceed max, but got min {low:g} max {high:g} for dimension {place}"
            )
    if weight is not None:
        if weight._type.shape != input._type.shape[:-1]:
            raise ShapeError(
                f"{name}: if weight tensor is provided it should have the same shape as the input tensor excluding its "
                f"innermost dimension, but got input with shape {list(input._type.shape)} and weight with shape "
                f"{list(weight._type.shape)}"
            )
        if weight._type.dtype is not input._type.dtype:
            raise DTypeError(
                f"{name}: if weight tensor is provided, input tensor and weight tensor should have the same dtype, but "
                f"got input({_cpp_name(input._type.dtype)}), and weight({_cpp_name(weight._type.dtype)})"
            )
    return ends


@out_form
def histogramdd(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None, density: bool = False
) -> Any:
    """Counts (or sums of weights) of points `[..., d]` in the cells of a grid of d dimensions, and the edges of each.

    `bins`: how many equal parts of the range (of that of the data, or of pairs `range`), for all or for each dimension,
    or the edges of each.
    """
    wanted = _check_dimensions(input, bins)
    ends = _check_range_and_weight(input, range, weight)
    given: list[Any] = [input, *(e for e in wanted if isinstance(e, TensorBase))]
    given += [] if weight is None else [weight]
    dims, axes = len(wanted), tuple(i for i, _ in enumerate(wanted))

    def emit(b: Builder, x: Node, *more: Node) -> list[Node]:
        rest = list(more)
        points = b.reshape(x, (x.type.size // dims if dims else 0, dims))
        edges: list[Node] = []
        counts: list[int] = []
        flat = b.constant(0, TensorType(i64, points.shape[:1], x.type.device))
        within = b.constant(True, flat.type.with_dtype(boolean))
        for place, each in enumerate(wanted):
            column = b.reshape(b.slice(points, (0, place), (points.shape[0], 1), (1, 1)), points.shape[:1])
            if isinstance(each, TensorBase):
                edges.append(rest.pop(0))
            else:
                low, high = ends[2 * place : 2 * place + 2] if ends else (0.0, 0.0)
                edges.append(_edges(b, *_bounds(b, column, low, high, not ends, 0.5), each))
            counts.append(edges[-1].shape[0] - 1)
            cell, inside = _cell(b, column, edges[-1])
            flat = b.add(b.mul(flat, counts[-1]), cell)
            within = b.apply("bitwise_and", (within, inside))
        weights = b.reshape(rest[0], flat.shape) if rest else None
        cells = math.prod(counts)
        sums = b.reshape(_filled(b, b.cast(flat, x.dtype), flat, within, weights, cells), tuple(counts))
        if density:
            total = b.broadcast(b.reshape(b.reduce_sum(sums, axes), (1,) * dims), sums.shape)
            sums = b.div(sums, total)
            for place, edge in enumerate(edges):
                others = tuple(i for i in axes if i != place)
                sums = b.div(sums, b.expand_dims(_widths(b, edge), others, sums.shape))
        return [sums, *edges]

    counted, *found = record_many("NotDifferentiable", [g.detach() for g in given], emit)
    return results.histogramdd(counted, tuple(found))


def _cell(b: Builder, x: Node, edges: Node) -> tuple[Node, Node]:
    """Between which edges each element lies, and whether it lies between some. The last edge is in the last cell."""
    count = edges.shape[0] - 1
    first, last = (b.broadcast(b.slice(edges, (at,), (1,), (1,)), x.shape) for at in (0, count))
    inside = b.apply("bitwise_and", (b.apply("ge", (x, first)), b.apply("le", (x, last))))
    place = b.sub(b.apply("searchsorted", (edges, x), {"right": True}), 1)
    return b.elementwise("maximum", b.elementwise("minimum", place, count - 1), 0), inside


def _widths(b: Builder, edges: Node) -> Node:
    count = edges.shape[0] - 1
    return b.sub(b.slice(edges, (1,), (count,), (1,)), b.slice(edges, (0,), (count,), (1,)))


def _cpp_name(dtype: Any) -> str:
    return {"Float": "float", "Double": "double"}.get(type_name(dtype), type_name(dtype).lower())
