"""Pooling to a given number of places: place i of o reads elements from i·n // o up to the ceiling of (i+1)·n / o."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError, KindError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import TensorType, i64
from graphc.pooling import least, quotient
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, record_many

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


def _parts(b: Builder, x: Node, places: Sequence[int], filler: float) -> Node:
    """[..., n, ...] as [..., o, ..., k, ...]: for each place its elements, `filler` where there are fewer than k."""
    rank = len(places)
    front = x.type.rank - rank
    extents = x.shape[front:]
    if all(o and n % o == 0 for n, o in zip(extents, places, strict=True)):
        size = tuple(n // o for n, o in zip(extents, places, strict=True))
        return b.window(x, tuple(range(front, front + rank)), size, size, (1,) * rank)
    for i, (n, o) in enumerate(zip(extents, places, strict=True)):
        axis, k = front + i, _longest(n, o)
        type = TensorType(i64, (o, k), x.type.device)
        start, end = _starts(b, type, 0, n, o), _ends(b, type, 0, n, o)
        index = b.add(start, b.iota(1, type))
        seen = b.apply("gather", (x, b.apply("minimum", (index, b.sub(end, 1)))), {"axis": axis})
        seen = b.permute(seen, (*(d for d in range(seen.type.rank) if d != axis + 1), axis + 1))
        inside = b.apply("lt", (index, end))
        shape = tuple(o if d == axis else k if d == seen.type.rank - 1 else 1 for d in range(seen.type.rank))
        x = b.select(b.broadcast(b.reshape(inside, shape), seen.shape), seen, b.constant(filler, seen.type))
    return x


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
        total = b.reduce_sum(_parts(b, x, places, 0), _inner(x.type.rank, rank))
        return quotient(b, total, _counts(b, total.type.with_dtype(i64), x.shape[-rank:], places))

    whole = rank > 1 and set(places) == {1}
    gradient = "SqueezeBackward1" if rank == 1 else "MeanBackward1" if whole else f"AdaptiveAvgPool{rank}DBackward0"
    return record(gradient, (input,), emit)


def _maximum(rank: int, input: Tensor, output_size: Any, indices: bool) -> Any:
    name = f"adaptive_max_pool{rank}d"
    places = _sizes(name, rank, input, output_size)
    need_float("adaptive_max_pool3d_cpu" if rank == 3 else "adaptive_max_pool2d", input)

    def parts(b: Builder, x: Node) -> Node:
        return _parts(b, x, places, least(x.dtype))

    def largest(b: Builder, x: Node) -> Node:
        return b.reduce_max(parts(b, x), _inner(x.type.rank, rank), "first")

    def both(b: Builder, x: Node) -> tuple[Node, Node]:
        seen = parts(b, x)
        best = b.argmax(seen, _inner(x.type.rank, rank), i64)
        size, flat, type = seen.shape[-rank:], b.zeros_like(best), best.type
        for i, (n, o) in enumerate(zip(x.shape[-rank:], places, strict=True)):
            within = b.apply("floor_divide", (best, b.constant(math.prod(size[i + 1 :]), type)))
            within = b.apply("remainder", (within, b.constant(size[i], type)))
            start = _starts(b, type, type.rank - rank + i, n, o)
            flat = b.add(b.mul(flat, n), b.add(start, within))
        return largest(b, x), flat

    gradient = "SqueezeBackward1" if rank == 1 else f"AdaptiveMaxPool{rank}DBackward0"
    return tuple(record_many(gradient, (input,), both)) if indices else record(gradient, (input,), largest)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places of the last dimension."""
    return _average(1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places (one number, or a pair, with None for an extent as it is)."""
    return _average(2, input, output_size)


@autocasts
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means that make `output_size` places of the last three dimensions."""
    return _average(3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places of the last dimension, with `return_indices` also where they stand."""
    return _maximum(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places, with `return_indices` also where they stand, in row-major order."""
    return _maximum(2, input, output_size, return_indices)


@autocasts
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima that make `output_size` places of the last three dimensions, with `return_indices` also where."""
    return _maximum(3, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool1d` with the places, in any case."""
    return _maximum(1, input, output_size, True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool2d` with the places, in any case."""
    return _maximum(2, input, output_size, True)


@autocasts
def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """`adaptive_max_pool3d` with the places, in any case."""
    return _maximum(3, input, output_size, True)
