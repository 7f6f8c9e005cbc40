"""What undoes max pooling: each element goes back to where the maximum stood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import DTypeError, InputError, ShapeError, UsageError
from graphc.ir.node import Node
from graphc.ir.types import i64
from graphc.loss_reduction import check_values
from graphc.recording import current
from graphc.tensors.casting import autocasts
from graphc.tensors.core import finish, read, wants_grad
from graphc.tensors.writing import type_name
from graphc.windows import Extents

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _each(value: Extents, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _sizes(
    input: Tensor,
    rank: int,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    output_size: Sequence[int] | None,
) -> list[int]:
    """The extents of the result: `output_size`, where it is less than a stride away from what the windows say."""
    size, pads = _each(kernel_size, rank), _each(padding, rank)
    steps = size if stride is None else _each(stride, rank)
    shape = input._type.shape
    usual = [
        (n - 1) * s + k - 2 * p
        for n, s, k, p in zip(shape[max(len(shape) - rank, 0) :], steps, size, pads, strict=False)
    ]
    if output_size is None:
        return usual
    wanted = list(output_size)
    if len(wanted) == rank + 2:
        wanted = wanted[2:]
    if len(wanted) != rank:
        raise InputError(
            f"output_size should be a sequence containing {rank} or {rank + 2} elements, but it has a length of "
            f"'{len(wanted)}'"
        )
    for d, (have, want, step) in enumerate(zip(usual, wanted, steps, strict=True)):
        if not have - step < want < have + step:
            raise InputError(
                f'invalid output_size "{tuple(wanted)}" (dim {d} must be between {have - step} and {have + step})'
            )
    return wanted


def _max_unpool(
    rank: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Extents,
    stride: Extents | None,
    padding: Extents,
    output_size: Sequence[int] | None,
) -> Tensor:
    sizes = _sizes(input, rank, kernel_size, stride, padding, output_size)
    shape, planes = input._type.shape, max(rank, 2)
    if indices._type.dtype is not i64:
        raise DTypeError(f"elements in indices should be type int64 but got: {type_name(indices._type.dtype)}")
    if len(shape) not in (rank + 1, rank + 2):
        raise ShapeError(
            f"Input to max_unpooling{planes}d should be a {planes + 1}d or {planes + 2}d Tensor, but got a tensor with "
            f"{len(shape) + planes - rank} dimensions."
        )
    if indices._type.shape != shape:
        raise ShapeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(shape)}) but got indices tensor "
            f"with shape: {list(indices._type.shape)}"
        )
    volume = "x".join(map(str, sizes if rank > 1 else (*sizes, 1)))
    error = UsageError(f"Found an invalid max index: one is outside (output volumes are of size {volume})")
    front = shape[: len(shape) - rank]
    lines, room = math.prod(front), math.prod(sizes)
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        grad = wants_grad((input,))
        x, keep = read(recorder, input, grad)
        index, keep_index = read(recorder, indices, False)
        low = b.apply("lt", (index, b.zeros_like(index)))
        high = b.apply("ge", (index, b.constant(room, index.type)))
        check_values(recorder, b.apply("bitwise_or", (low, high)), keep_index, error)
        made: Node = b.constant(0, x.type.with_shape((lines, room)))
        if x.type.size:
            flat = (lines, math.prod(shape[len(front) :]))
            made = b.apply("scatter_set", (made, b.reshape(index, flat), b.reshape(x, flat)), {"axis": 1})
        made = b.reshape(made, (*front, *sizes))
        name = "SqueezeBackward1" if rank == 1 else f"MaxUnpool{rank}DBackward0"
        return finish(recorder, made, (keep, keep_index), name, grad)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros but for the elements of `input` at `indices`, which `max_pool1d` gave. RuntimeError, when looked at, for
    indices outside the result."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


@autocasts
def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros but for the elements of `input` at `indices`, which `max_pool2d` gave."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


@autocasts
def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Extents,
    stride: Extents | None = None,
    padding: Extents = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Zeros but for the elements of `input` at `indices`, which `max_pool3d` gave."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)
