"""Max pooling over windows that begin at random places (Graham, "Fractional Max-Pooling", 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, InputError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import i64
from graphc.refusing import need_float
from graphc.tensors.casting import autocasts
from graphc.tensors.core import record, record_many
from graphc.tensors.sampling import rand

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

_SIDES = {2: ("height", "width"), 3: ("time", "height", "width")}
# Which of the random numbers of a channel places the windows along each axis, as in PyTorch.
_NUMBERS = {2: (1, 0), 3: (0, 1, 2)}


def _per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,) * rank


def _sizes(rank: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any) -> list[tuple[int, ...]]:
    """Extents of a window and numbers of places."""
    name = f"fractional_max_pool{rank}d"
    if output_size is None and output_ratio is None:
        raise InputError(f"{name} requires specifying either an output_size or an output_ratio")
    shape, size = input._type.shape, _per_axis(kernel_size, rank)
    if len(shape) not in (rank + 1, rank + 2):
        prefix = name if rank == 2 else f"{name}_out"
        raise ShapeError(f"{prefix}(): Expected {rank + 1}D or {rank + 2}D tensor, but got: {list(shape)}")
    if output_size is None:
        ratios = _per_axis(output_ratio, rank)
        places = tuple(int(n * ratio) for n, ratio in zip(shape[-rank:], ratios, strict=True))
    else:
        places = _per_axis(output_size, rank)
    for side, n, k, count in zip(_SIDES[rank], shape[-rank:], size, places, strict=True):
        if count + k - 1 + (rank == 3) > n:  # PyTorch leaves out the largest number in three dimensions
            prefix = name if rank == 2 else f"{name}_out"
            raise ShapeError(f"{prefix}(): pool {side} {k} too large relative to input {side} {n}")
    return [size, places]


def _check_samples(rank: int, input: Tensor, samples: Tensor) -> None:
    """PyTorch's errors for random numbers that do not belong to the input."""
    if samples._type.dtype is not input._type.dtype:
        raise DTypeError("Expect _random_samples to have the same dtype as input")
    shape = samples._type.shape
    batch, channels = (1, *input._type.shape)[-rank - 2 : -rank]
    if len(shape) != 3:
        raise ShapeError(f"Expect _random_samples to have 3 dimensions, got {len(shape)}")
    if shape[0] < batch:
        raise ShapeError("Expect _random_samples.size(0) no less then input batch size.")
    if shape[1] != channels:
        raise ShapeError("Expect _random_samples.size(1) equals to input channel size.")
    if shape[2] != rank:
        raise ShapeError(f"Expect _random_samples.size(2) equals to {rank}; got {shape[2]}.")


def _starts(b: Builder, sample: Node, extent: int, size: int, places: int) -> Node:
    """Where the windows of each channel begin, `[n, c, places]` from numbers `[n, c]`; the last one ends the axis."""
    type = sample.type.with_shape((*sample.shape, places))
    last = b.constant(extent - size, type.with_dtype(i64))
    if places == 1:
        return last
    step = (extent - size) / (places - 1)
    shift = b.expand_dims(sample, (2,), type.shape)
    moved = b.cast(b.mul(b.add(b.iota(2, type), shift), step), i64)
    start = b.sub(moved, b.cast(b.mul(shift, step), i64))
    return b.select(b.elementwise("eq", b.iota(2, last.type), places - 1), last, start)


def _window_places(
    b: Builder, samples: Node, rank: int, extents: Sequence[int], size: Sequence[int], places: Sequence[int]
) -> Node:
    """Row-major places of the elements of every window, `[n, c, *places, elements of a window]`."""
    n, c = samples.shape[:2]
    whole = samples.type.with_dtype(i64).with_shape((n, c, *places, *size))
    flat = b.constant(0, whole)
    for axis, number in enumerate(_NUMBERS[rank]):
        sample = b.reshape(b.slice(samples, (0, 0, number), (n, c, 1), (1, 1, 1)), (n, c))
        start = _starts(b, sample, extents[axis], size[axis], places[axis])
        others = tuple(i for i in range(2, 2 + 2 * rank) if i != 2 + axis)
        at = b.add(b.expand_dims(start, others, whole.shape), b.iota(2 + rank + axis, whole))
        flat = b.add(b.mul(flat, extents[axis]), at)
    return b.reshape(flat, (n, c, *places, math.prod(size)))


def _pool(
    rank: int,
    input: Tensor,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    indices: bool,
    samples: Tensor | None,
) -> Any:
    size, places = _sizes(rank, input, kernel_size, output_size, output_ratio)
    need_float(f"fractional_max_pool{rank}d_out_frame" if samples is not None else "check_uniform_bounds", input)
    shape = input._type.shape
    batch, channels = (1, *shape)[-rank - 2 : -rank]
    numbers: Tensor = (
        rand(batch, channels, rank, dtype=input.dtype, device=input.device) if samples is None else samples
    )
    _check_samples(rank, input, numbers)
    extents, made = shape[-rank:], (*shape[:-rank], *places)

    def emit(b: Builder, x: Node, drawn: Node) -> list[Node]:
        drawn = b.slice(drawn, (0, 0, 0), (batch, channels, rank), (1, 1, 1))
        at = _window_places(b, drawn, rank, extents, size, places)
        rows = b.reshape(x, (batch, channels, math.prod(extents)))
        index = b.reshape(at, (batch, channels, at.type.size // max(batch * channels, 1)))
        seen = b.reshape(b.apply("take_along", (rows, index), {"axis": 2}), at.shape)
        best = b.reduce_max(seen, (rank + 2,), "first")
        if not indices:
            return [b.reshape(best, made)]
        place = b.reshape(b.argmax(seen, (rank + 2,), i64), (*best.shape, 1))
        chosen = b.apply("take_along", (at, place), {"axis": rank + 2})
        return [b.reshape(best, made), b.reshape(chosen, made)]

    name = f"FractionalMaxPool{rank}DBackward0"
    operands = (input, numbers.detach())
    if not indices:
        return record(name, operands, lambda b, x, drawn: emit(b, x, drawn)[0])
    return tuple(record_many(name, operands, emit))


@autocasts
def fractional_max_pool2d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """The largest value of windows that begin at random places, about evenly spread over the last two dimensions.

    `output_size` or `output_ratio` says how many there are; with `return_indices` also where the values stand.
    `_random_samples` (batch, channels, 2) in [0, 1) decide the places.
    """
    return _pool(2, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


@autocasts
def fractional_max_pool3d(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> Any:
    """`fractional_max_pool2d` over the last three dimensions, with `_random_samples` (batch, channels, 3)."""
    return _pool(3, input, kernel_size, output_size, output_ratio, return_indices, _random_samples)


@autocasts
def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d` with where the values stand, whatever `return_indices` says."""
    return _pool(2, input, kernel_size, output_size, output_ratio, True, _random_samples)


@autocasts
def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Any,
    output_size: Any = None,
    output_ratio: Any = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d` with where the values stand, whatever `return_indices` says."""
    return _pool(3, input, kernel_size, output_size, output_ratio, True, _random_samples)
