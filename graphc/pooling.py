"""Pooling with PyTorch's signatures: padding, then one reduction over windows; and what undoes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, boolean, i64
from graphc.tensors import elementwise
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, record_many
from graphc.tensors.learning import repeatable
from graphc.tensors.plans import Plans
from graphc.windows import Extents, pad_or_cut

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_plans: Plans[tuple[Callable[..., Node], Callable[..., Any]]] = Plans()
_WORDS = {1: "one int", 2: "two ints", 3: "three ints"}
_SIDES = ("T", "H", "W")
_MAX_NAMES = {1: "SqueezeBackward1", 2: "MaxPool2DWithIndicesBackward0", 3: "MaxPool3DWithIndicesBackward0"}


@dataclass(frozen=True)
class _Windows:
    """The windows over the last axes: for each one number of places, and elements added below and above."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    places: tuple[int, ...]

    def over(self, b: Builder, x: Node, value: float) -> Node:
        """The windows of `x` padded with `value`; the places in a window are the last dimensions."""
        rank, count = x.type.rank, len(self.size)
        padded = pad_or_cut(b, x, list(zip(self.low, self.high, strict=True)), value)
        return b.window(padded, tuple(range(rank - count, rank)), self.size, self.stride, self.dilation)

    def inner(self, x: Node) -> tuple[int, ...]:
        """The dimensions of windows over `x` that are reduced."""
        return tuple(range(x.type.rank, x.type.rank + len(self.size)))


# arguments


def _numbers(name: str, what: str, value: Extents, rank: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * rank
    given = tuple(value)
    if len(given) == 1:
        return given * rank
    if len(given) == rank:
        return given
    if name == "max_pool1d":
        none = "" if what in ("kernel_size", "dilation") else "None, " if what == "stride" else ""
        comma = "" if what in ("kernel_size", "dilation") else ","
        raise UsageError(
            f"max_pool1d() {what} must be {none}an int, list of ints{comma} or tuple of ints of size 1 but got size "
            f"{len(given)}"
        )
    if rank == 1:
        raise UsageError(f"{name}() argument '{what}' should contain one int (got {len(given)})")
    either = "" if name == "avg_pool3d" else "be either " if what == "dilation" else "either "
    be = "" if either.startswith("be") else "be "
    omitted = "omitted, " if what == "stride" else ""
    raise UsageError(f"{name}: {what} must {either}{be}{omitted}a single int, or a tuple of {_WORDS[rank]}")


def _check_shape(name: str, input: Tensor, rank: int) -> None:
    shape = list(input._type.shape)
    good = len(shape) in (rank + 1, rank + 2)
    if name == "avg_pool1d" and not good:
        raise ShapeError(
            f"Expected 2 to 3 dimensions, but got {len(shape)}-dimensional tensor for argument #1 'self' (while "
            "checking arguments for avg_pool1d)"
        )
    if good and 0 not in shape[-rank - 1 :]:
        return
    if name == "max_pool1d":
        raise ShapeError(
            "max_pool1d: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, but got:"
            f"{shape}"
        )
    if rank == 3 and good:
        place = shape[-4:].index(0)
        raise ShapeError(
            f"{name}(): Expected input's non-batch dimensions to have positive length, but input has a shape of "
            f"{shape} and non-batch dimension {place} has length zero!"
        )
    ranks = f"{rank + 1}D or {rank + 2}D (batch mode)"
    if good or name == "avg_pool2d":
        raise ShapeError(f"Expected {ranks} tensor with optional 0 dim batch size for input, but got:{shape}")
    raise ShapeError(f"non-empty {ranks} tensor expected for input; {name} got size {shape}")


def _check_numbers(
    name: str, size: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> None:
    """PyTorch's errors for windows that make no sense; those of max_pool1d have their own words."""
    if name == "max_pool1d":
        for what, (value,) in (("kernel_size", size), ("stride", stride)):
            if value <= 0:
                raise UsageError(f"max_pool1d() {what} must be greater than zero, but got {value}")
        if padding[0] < 0:
            raise UsageError(f"max_pool1d() padding must be non-negative, but got {padding[0]}")
        if padding[0] > size[0] // 2:
            raise UsageError(
                f"max_pool1d() padding should be at most half of kernel size, but got padding={padding[0]} and "
                f"kernel_size={size[0]}"
            )
        if dilation[0] <= 0:
            raise UsageError(f"max_pool1d() dilation must be greater than zero, but got {dilation[0]}")
        return
    if min(*size, *stride) <= 0:
        raise UsageError(f"stride should not be zero, nor the kernel size; got {list(stride)} and {list(size)}")
    if min(dilation) <= 0:
        given = " ".join(f"dilation{s}: {d}" for s, d in zip(_SIDES[-len(dilation) :], dilation, strict=True))
        raise UsageError(f"dilation should be greater than zero, but got {given}")
    for k, p, d in zip(size, padding, dilation, strict=True):
        if p < 0:
            raise UsageError(f"pad must be non-negative, but got pad: {p}")
        if p > (d * (k - 1) + 1) // 2:
            raise UsageError(
                f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )


def _windows(
    name: str,
    rank: int,
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    dilation: Extents,
    ceil_mode: bool,
) -> _Windows:
    size = _numbers(name, "kernel_size", kernel_size, rank)
    omitted = stride is None or (not isinstance(stride, int) and not len(stride))
    steps = size if omitted else _numbers(name, "stride", stride, rank)  # type: ignore[arg-type]
    pads, gaps = _numbers(name, "padding", padding, rank), _numbers(name, "dilation", dilation, rank)
    _check_shape(name, input, rank)
    _check_numbers(name, size, steps, pads, gaps)
    shape = input._type.shape
    places: list[int] = []
    high: list[int] = []
    for n, k, s, p, d in zip(shape[-rank:], size, steps, pads, gaps, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1  # the last window would begin in the padding
        places.append(count)
        high.append((count - 1) * s + d * (k - 1) + 1 - n - p)
    if min(places) < 1:
        raise ShapeError(_too_small(name, shape[-rank - 1 :], size, places))
    return _Windows(size, steps, gaps, pads, tuple(high), tuple(places))


def _too_small(name: str, shape: Sequence[int], size: Sequence[int], places: Sequence[int]) -> str:
    if name == "max_pool1d":
        return f"max_pool1d() Invalid computed output size: {places[0]}"
    if name == "avg_pool3d":
        given = " ".join(f"{s}: {n}" for s, n in zip(_SIDES, shape[1:], strict=True))
        wanted = " ".join(f"k{s}: {n}" for s, n in zip(_SIDES, size, strict=True))
        return f"input image ({given}) smaller than kernel size ({wanted})"
    one = (1,) if len(size) == 1 else ()
    before = "x".join(map(str, (shape[0], *one, *shape[1:])))
    after = "x".join(map(str, (shape[0], *one, *places)))
    return f"Given input size: ({before}). Calculated output size: ({after}). Output size is too small"


def _refuse_bool(kernel: str, input: Tensor) -> None:
    if input._type.dtype is boolean:
        raise UnsupportedError(f"\"{kernel}\" not implemented for 'Bool'")


# maximum


def least(dtype: DType) -> float:
    """What no element is smaller than."""
    return -math.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)


def _places(b: Builder, seen: Node, windows: _Windows, extents: Sequence[int]) -> Node:
    """The row-major place, among the last axes of the input, of the largest element of each window."""
    rank = len(windows.size)
    best = b.argmax(seen, tuple(range(seen.type.rank - rank, seen.type.rank)), i64)
    flat = b.zeros_like(best)
    for i in range(rank):
        within, inner = best, math.prod(windows.size[i + 1 :])
        if inner > 1:
            within = b.apply("floor_divide", (within, b.constant(inner, best.type)))
        if i:
            within = b.apply("remainder", (within, b.constant(windows.size[i], best.type)))
        start = b.mul(b.iota(best.type.rank - rank + i, best.type), windows.stride[i])
        start = b.sub(start, windows.low[i])
        gap = windows.dilation[i]
        if windows.low[i]:
            # A window of nothing but -inf: its first element that is no padding.
            before = b.apply("floor_divide", (b.sub(gap - 1, start), b.constant(gap, best.type)))
            within = b.apply("maximum", (within, before))
        flat = b.add(b.mul(flat, extents[i]), b.add(start, b.mul(within, gap)))
    return flat


def _max_pool(
    name: str,
    rank: int,
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    dilation: Extents,
    ceil_mode: bool,
    indices: bool,
) -> Any:
    same = (name, input._type, id(kernel_size), id(stride), id(padding), id(dilation), id(ceil_mode))
    found = _plans.same.get(same)
    if found is not None and not indices:
        return record(_MAX_NAMES[rank], (input,), found[0][0], True)
    key = _plans.key(name, input, kernel_size, stride, padding, dilation, ceil_mode)
    plan = _plans.get(key)
    if plan is None:
        windows = _windows(name, rank, input, kernel_size, stride, padding, dilation, ceil_mode)
        if rank == 1 and not input._type.dtype.is_float:
            raise UnsupportedError(f'"max_pool1d_impl" not implemented for {input._type}')
        _refuse_bool(name, input)
        plan = _plans.keep(key, _max_emitters(input._type, rank, windows))
    _plans.keep_same(same, plan, (kernel_size, stride, padding, dilation, ceil_mode))
    if indices:
        return tuple(record_many(_MAX_NAMES[rank], (input,), plan[1]))
    return record(_MAX_NAMES[rank], (input,), plan[0], True)


def _max_emitters(type: TensorType, rank: int, windows: _Windows) -> tuple[Callable[..., Node], Callable[..., Any]]:
    """What makes the largest elements of windows, and what makes these and their places."""
    value = least(type.dtype)
    extents = type.shape[-rank:]

    def largest(b: Builder, x: Node) -> Node:
        return b.reduce_max(windows.over(b, x, value), windows.inner(x), "first")

    def both(b: Builder, x: Node) -> tuple[Node, Node]:
        return largest(b, x), _places(b, windows.over(b, x, value), windows, extents)

    return largest, both


@repeatable
def max_pool1d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of the last dimension, with `return_indices` also its place (int64)."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@repeatable
def max_pool2d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of the last two dimensions; the first of equal ones gets the gradient.

    With `return_indices` also its row-major place in these dimensions (int64).
    """
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@autocasts
def max_pool3d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest element of each window of the last three dimensions, with `return_indices` also its place (int64)."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool1d` with the places, in any case."""
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool2d` with the places, in any case."""
    return max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    dilation: Extents = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """`max_pool3d` with the places, in any case."""
    return max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


# mean


def quotient(b: Builder, total: Node, count: Node) -> Node:
    """`total / count` for positive counts; of integers rounded towards zero."""
    if total.dtype.is_float:
        return b.div(total, b.cast(count, total.dtype))
    size = b.apply("floor_divide", (b.apply("abs", (total,)), b.cast(count, total.dtype)))
    return b.mul(b.apply("sign", (total,)), size)


def _count(b: Builder, made: Node, windows: _Windows, extents: Sequence[int], padding: bool) -> Node:
    """How many elements, with or without the padding, each window has; what `ceil_mode` adds never counts."""
    rank = len(extents)
    type = made.type.with_dtype(i64)
    count = b.constant(1, type)
    for i, n in enumerate(extents):
        k, p = windows.size[i], windows.low[i]
        start = b.sub(b.mul(b.iota(type.rank - rank + i, type), windows.stride[i]), p)
        end = b.apply("minimum", (b.add(start, k), b.constant(n + (p if padding else 0), type)))
        if not padding:
            start = b.apply("maximum", (start, b.constant(0, type)))
        count = b.mul(count, b.sub(end, start))
    return count


def _avg_pool(
    name: str,
    rank: int,
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    windows = _windows(name, rank, input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor == 0:
        raise UsageError("divisor must be not zero")
    _refuse_bool("avg_pool3d_out_frame" if rank == 3 else "avg_pool2d", input)
    whole = all(h <= 0 for h in windows.high) and not any(windows.low)

    def emit(b: Builder, x: Node) -> Node:
        total = b.reduce_sum(windows.over(b, x, 0), windows.inner(x))
        type = total.type.with_dtype(i64)
        if divisor is not None and divisor < 0:
            return b.neg(quotient(b, total, b.constant(-divisor, type)))
        if divisor is not None or whole:
            return quotient(b, total, b.constant(divisor or math.prod(windows.size), type))
        return quotient(b, total, _count(b, total, windows, x.shape[-rank:], count_include_pad))

    return record("SqueezeBackward1" if rank == 1 else f"AvgPool{rank}DBackward0", (input,), emit)


@repeatable
def avg_pool1d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of the last dimension; padding counts as zeros if `count_include_pad`."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@repeatable
def avg_pool2d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of the last two dimensions, or its sum over `divisor_override`."""
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@autocasts
def avg_pool3d(
    input: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window of the last three dimensions, or its sum over `divisor_override`."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


# norms


def _lp_pool(
    mean: Callable[..., Tensor],
    rank: int,
    input: Tensor,
    norm_type: float,
    kernel_size: Extents,
    stride: Extents | None,
    ceil_mode: bool,
) -> Tensor:
    powers = mean(elementwise.pow(input, norm_type), kernel_size, stride, 0, ceil_mode)
    # As PyTorch: where the sum is zero, the gradient is too.
    size = math.prod(_numbers(f"lp_pool{rank}d", "kernel_size", kernel_size, rank))
    kept = elementwise.mul(elementwise.sign(powers), elementwise.relu(elementwise.abs(powers)))
    return elementwise.pow(elementwise.mul(kept, size), 1.0 / norm_type)


def lp_pool1d(
    input: Tensor, norm_type: float, kernel_size: int, stride: Extents | None = None, ceil_mode: bool = False
) -> Tensor:
    """The `norm_type`-th root of the sum of powers of each window of the last dimension."""
    return _lp_pool(avg_pool1d, 1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor, norm_type: float, kernel_size: Extents, stride: Extents | None = None, ceil_mode: bool = False
) -> Tensor:
    """The `norm_type`-th root of the sum of powers of each window of the last two dimensions."""
    return _lp_pool(avg_pool2d, 2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor, norm_type: float, kernel_size: Extents, stride: Extents | None = None, ceil_mode: bool = False
) -> Tensor:
    """The `norm_type`-th root of the sum of powers of each window of the last three dimensions."""
    return _lp_pool(avg_pool3d, 3, input, norm_type, kernel_size, stride, ceil_mode)
