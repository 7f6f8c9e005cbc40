"""Pooling to a given number of places: place i of o reads elements from i·n // o up to the ceiling of (i+1)·n / o."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError, KindError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, i32, i64
from graphc.pooling import quotient
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, record_many
from graphc.tensors.learning import repeatable

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_BRACES = {2: "{%d, %d}", 3: "{%d, %d,%d}"}


def _sizes(name: str, rank: int, input: Tensor, output_size: Any) -> tuple[int, ...]:
    """The number of places of each axis, PyTorch's errors for others; None keeps an extent."""
    shape = input._type.shape
    if rank == 1:
        given = (output_size,) if isinstance(output_size, int) else output_size
        if given is None or None in given:
            found = "not NoneType" if given is None else "but found element of type NoneType at pos 0"
            raise KindError(f"{name}(): argument 'output_size' (position 2) must be tuple of ints, {found}")
        if len(given) != 1:
            raise UsageError(f"{name}() argument 'output_size' should contain one int (got {len(given)})")
    elif isinstance(output_size, int):
        given = (output_size,) * rank
    else:
        count = len(output_size)
        if len(shape) <= count:
            raise InputError(f"Input dimension should be at least {count + 1}")
        ends = shape[len(shape) - count :]
        given = tuple(n if o is None else o for n, o in zip(ends, output_size, strict=True))
    _check_input(name, rank, shape)
    if len(given) != rank:
        internal = f"{name}(): internal error: output_size.size()" if "max" in name else f"{name}: output_size"
        raise UsageError(f"{internal} must be {rank}")
    if min(given) < 0:
        if "max" in name:
            made = [*shape[: len(shape) - rank], *((1,) if rank == 1 else ()), *given]
            raise UsageError(f"Trying to create tensor with negative dimension {min(given)}: {made}")
        pair = (1, *given) if rank == 1 else given
        shown = _BRACES[len(pair)] % tuple(pair)
        raise UsageError(
            f"adaptive_avg_pool{len(pair)}d: elements of output_size must be greater than or equal to 0 but received "
            f"{shown}"
        )
    return tuple(given)


def _check_input(name: str, rank: int, shape: Sequence[int]) -> None:
    if len(shape) not in (rank + 1, rank + 2):
        if rank == 1:
            raise ShapeError(
                f"Expected 2 to 3 dimensions, but got {len(shape)}-dimensional tensor for argument #1 'self' (while "
                f"checking arguments for {name})"
            )
        colon = ":" if "max" in name else ""
        raise ShapeError(f"{name}(): Expected {rank + 1}D or {rank + 2}D tensor, but got{colon} {list(shape)}")
    front = len(shape) - rank
    for axis in range(front, len(shape)):
        if not shape[axis]:
            raise ShapeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                f"{list(shape)} with dimension {axis} being empty"
            )


def _starts(b: Builder, type: TensorType, axis: int, extent: int, places: int) -> Node:
    """Where the place that is the index along `axis` begins."""
    return b.apply("floor_divide", (b.mul(b.iota(axis, type), extent), b.constant(places, type)))


def _ends(b: Builder, type: TensorType, axis: int, extent: int, places: int) -> Node:
    last = b.add(b.mul(b.iota(axis, type), extent), extent + places - 1)
    return b.apply("floor_divide", (last, b.constant(places, type)))


def _longest(extent: int, places: int) -> int:
    return max((-(-(i + 1) * extent // places) - i * extent // places for i in range(places)), default=1)


def _is_even(extents: Sequence[int], places: Sequence[int]) -> bool:
    """Whether all places of an axis have equally many elements, none of them two have."""
    return all(o and n % o == 0 for n, o in zip(extents, places, strict=True))


def _windows(b: Builder, x: Node, places: Sequence[int]) -> Node:
    """[..., n, ...] as [..., o, ..., k, ...], where k divides n."""
    rank = len(places)
    front = x.type.rank - rank
    size = tuple(n // o for n, o in zip(x.shape[front:], places, strict=True))
    return b.window(x, tuple(range(front, front + rank)), size, size, (1,) * rank)


def _elements(b: Builder, x: Node, axis: int, places: int) -> Node:
    """For each place of an axis, in a row, its elements; where there are fewer than in others, the last one again."""
    n = x.shape[axis]
    type = TensorType(i64, (places, _longest(n, places)), x.type.device)
    index = b.add(_starts(b, type, 0, n, places), b.iota(1, type))
    return b.apply("minimum", (index, b.sub(_ends(b, type, 0, n, places), 1)))


def _part(b: Builder, x: Node, axis: int, places: int, filler: float | None) -> Node:
    """[..., n, ...] as [..., o, ..., k] for one axis: for each place its elements. Where there are fewer than k, there
    is the last one again, or `filler`.
    """
    index = _elements(b, x, axis, places)
    k = index.shape[1]
    seen = b.apply("gather", (x, index), {"axis": axis})
    seen = b.permute(seen, (*(d for d in range(seen.type.rank) if d != axis + 1), axis + 1))
    if filler is None:
        return seen
    shape = tuple(places if d == axis else k if d == seen.type.rank - 1 else 1 for d in range(seen.type.rank))
    end = _ends(b, index.type, 0, x.shape[axis], places)
    index = b.add(_starts(b, index.type, 0, x.shape[axis], places), b.iota(1, index.type))
    inside = b.broadcast(b.reshape(b.apply("lt", (index, end)), shape), seen.shape)
    return b.select(inside, seen, b.constant(filler, seen.type))


def _winners(b: Builder, x: Node, places: Sequence[int]) -> Node:
    """Where the largest elements stand, in row-major order of the last axes: the first of equal ones."""
    front = x.type.rank - len(places)
    dtype = i32 if math.prod(x.shape[front:]) < 2**31 else i64
    best, found = b.apply("detach", (x,)), dict[int, Node]()
    # The last axis first: of equal elements the first in row-major order is that of the first row that has one.
    for axis in reversed(range(front, x.type.rank)):
        o = places[axis - front]
        seen = _part(b, best, axis, o, None)
        within = b.argmax(seen, (x.type.rank,), dtype)
        start = b.slice(_elements(b, best, axis, o), (0, 0), (o, 1), (1, 1))
        start = b.reshape(start, tuple(o if d == axis else 1 for d in range(within.type.rank)))
        row = b.add(b.cast(b.broadcast(start, within.shape), dtype), within)
        found = {d: b.apply("take_along", (at, row), {"axis": axis}) for d, at in found.items()}
        found[axis] = row
        best = b.reduce_max(seen, (x.type.rank,))
    flat = found[front]
    for axis in range(front + 1, x.type.rank):
        flat = b.add(b.mul(flat, x.shape[axis]), found[axis])
    return flat


def _taken(b: Builder, x: Node, flat: Node, rank: int) -> Node:
    """The elements of `x` at row-major places in its last axes."""
    front = x.shape[: x.type.rank - rank]
    rows = b.reshape(x, (*front, math.prod(x.shape[len(front) :])))
    index = b.reshape(flat, (*front, math.prod(flat.shape[len(front) :])))
    return b.reshape(b.apply("take_along", (rows, index), {"axis": len(front)}), flat.shape)


def _counts(b: Builder, type: TensorType, extents: Sequence[int], places: Sequence[int]) -> Node:
    front = type.rank - len(places)
    count = b.constant(1, type)
    for axis, (n, o) in enumerate(zip(extents, places, strict=True), front):
        count = b.mul(count, b.sub(_ends(b, type, axis, n, o), _starts(b, type, axis, n, o)))
    return count


def _inner(rank: int, count: int) -> tuple[int, ...]:
    return tuple(range(rank, rank + count))


def _average(rank: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{rank}d"
    places = _sizes(name, rank, input, output_size)
    need_float("adaptive_avg_pool3d_cpu" if rank == 3 else "adaptive_avg_pool2d", input)

    def emit(b: Builder, x: Node) -> Node:
        extents, total = x.shape[-rank:], x
        if _is_even(extents, places):
            total = b.reduce_sum(_windows(b, x, places), _inner(x.type.rank, rank))
        else:
            for axis, o in enumerate(places, x.type.rank - rank):
                total = b.reduce_sum(_part(b, total, axis, o, 0), (x.type.rank,))
        return quotient(b, total, _counts(b, total.type.with_dtype(i64), extents, places))

    whole = rank > 1 and set(places) == {1}
    gradient = "SqueezeBackward1" if rank == 1 else "MeanBackward1" if whole else f"AdaptiveAvgPool{rank}DBackward0"
    return record(gradient, (input,), emit)


def _maximum(rank: int, input: Tensor, output_size: Any, indices: bool) -> Any:
    name = f"adaptive_max_pool{rank}d"
    places = _sizes(name, rank, input, output_size)
    need_float("adaptive_max_pool3d_cpu" if rank == 3 else "adaptive_max_pool2d", input)

    def largest(b: Builder, x: Node) -> Node:
        if _is_even(x.shape[-rank:], places):
            return b.reduce_max(_windows(b, x, places), _inner(x.type.rank, rank), "first")
        return _taken(b, x, _winners(b, x, places), rank)

    def both(b: Builder, x: Node) -> tuple[Node, Node]:
        best = _winners(b, x, places)
        return _taken(b, x, best, rank), b.cast(best, i64)

    gradient = "SqueezeBackward1" if rank == 1 else f"AdaptiveMaxPool{rank}DBackward0"
    return tuple(record_many(gradient, (input,), both)) if indices else record(gradient, (input,), largest)


@repeatable
def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places of the last dimension."""
    return _average(1, input, output_size)


@repeatable
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places (one number, or a pair, with None for an extent as it is)."""
    return _average(2, input, output_size)


@autocasts
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places of the last three dimensions."""
    return _average(3, input, output_size)


@repeatable
def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places of the last dimension, with `return_indices` also where they stand."""
    return _maximum(1, input, output_size, return_indices)


@repeatable
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places, with `return_indices` also where they stand, in row-major order."""
    return _maximum(2, input, output_size, return_indices)


@autocasts
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places of the last three dimensions, with `return_indices` also where."""
    return _maximum(3, input, output_size, return_indices)


@repeatable
def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool1d` with the places, in any case."""
    return _maximum(1, input, output_size, True)


@repeatable
def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` with the places, in any case."""
    return _maximum(2, input, output_size, True)


@autocasts
def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool3d` with the places, in any case."""
    return _maximum(3, input, output_size, True)
