"""Windows of images as columns, and the columns added back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.refusing import need_float
from graphc.tensors.core import record
from graphc.tensors.learning import repeatable
from graphc.windows import Extents, pad_or_cut

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _pair(value: Extents, name: str) -> tuple[int, int]:
    given = (value,) if isinstance(value, int) else tuple(value)
    if len(given) != 2 and not isinstance(value, int):
        raise UsageError(f"It is expected {name} equals to 2, but got size {len(given)}")
    return given[0], given[-1]


def _check_numbers(size: Sequence[int], gaps: Sequence[int], pads: Sequence[int], steps: Sequence[int]) -> None:
    least = (("kernel size", "kernel", size), ("stride", "stride", steps), ("dilation", "dilation", gaps))
    for name, short, values in least:
        if min(values) < 1:
            given = f"{short}_height: {values[0]} {short}_width: {values[1]}"
            raise UsageError(f"{name} should be greater than zero, but got {given}")
    if min(pads) < 0:
        raise UsageError(f"padding should be non-negative, but got pad_height: {pads[0]} pad_width: {pads[1]}")


def _places(
    extents: Sequence[int], size: Sequence[int], gaps: Sequence[int], pads: Sequence[int], steps: Sequence[int]
) -> tuple[int, ...]:
    each = zip(extents, size, gaps, pads, steps, strict=True)
    return tuple(max((n + 2 * p - d * (k - 1) - 1) // s + 1, 0) for n, k, d, p, s in each)


@repeatable
def unfold(
    input: Tensor, kernel_size: Extents, dilation: Extents = 1, padding: Extents = 0, stride: Extents = 1
) -> Tensor:
    """Windows of (N, C, H, W) as columns: (N, C * R * S, places); also without N."""
    size, gaps = _pair(kernel_size, "kernel_size"), _pair(dilation, "dilation")
    pads, steps = _pair(padding, "padding"), _pair(stride, "stride")
    shape = input._type.shape
    _check_numbers(size, gaps, pads, steps)
    if len(shape) not in (3, 4) or 0 in shape[-3:]:
        raise ShapeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {list(shape)}"
        )
    places = _places(shape[-2:], size, gaps, pads, steps)
    if min(places) < 1:
        raise ShapeError(
            f"Given input with spatial size ({shape[-2]}, {shape[-1]}), kernel_size={size}, dilation={gaps}, "
            f"padding={pads}, calculated shape of the array of sliding blocks as {places}, but its components must be "
            "at least one."
        )
    if input._type.dtype is not boolean:
        need_float("im2col_out_cpu", input)
    front = shape[:-3]

    def emit(b: Builder, x: Node) -> Node:
        rank = len(front)
        padded = pad_or_cut(b, x, [(p, p) for p in pads])
        seen = b.window(padded, (rank + 1, rank + 2), size, steps, gaps)
        columns = b.permute(seen, (*range(rank + 1), rank + 3, rank + 4, rank + 1, rank + 2))
        return b.reshape(columns, (*front, shape[-3] * size[0] * size[1], places[0] * places[1]))

    return record("Im2ColBackward0", (input,), emit)


@repeatable
def fold(
    input: Tensor,
    output_size: Extents,
    kernel_size: Extents,
    dilation: Extents = 1,
    padding: Extents = 0,
    stride: Extents = 1,
) -> Tensor:
    """The adjoint of `unfold`: columns (N, C * R * S, places) added up in (N, C, *output_size); also without N."""
    extents = _pair(output_size, "output_size")
    size, gaps = _pair(kernel_size, "kernel_size"), _pair(dilation, "dilation")
    pads, steps = _pair(padding, "padding"), _pair(stride, "stride")
    shape = input._type.shape
    _check_numbers(size, gaps, pads, steps)
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise ShapeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
            f"input, but got: {list(shape)}"
        )
    area = size[0] * size[1]
    if shape[-2] % area:
        raise ShapeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={shape[-2]} and kernel_size={size}."
        )
    places = _places(extents, size, gaps, pads, steps)
    given = f"Given output_size={extents}, kernel_size={size}, dilation={gaps}, padding={pads}, stride={steps}, "
    if places[0] * places[1] != shape[-1]:
        raise ShapeError(
            f"{given}expected size of input's dimension 2 to match the calculated number of sliding blocks "
            f"{places[0]} * {places[1]} = {places[0] * places[1]}, but got input.size(2)={shape[-1]}."
        )
    need_float("col2im_out_cpu", input)
    front, channels = shape[:-2], shape[-2] // area

    def emit(b: Builder, x: Node) -> Node:
        columns = b.reshape(x, (*front, channels, *size, *places))
        rank = len(front)
        seen = b.permute(columns, (*range(rank + 1), rank + 3, rank + 4, rank + 1, rank + 2))
        whole = tuple(n + 2 * p for n, p in zip(extents, pads, strict=True))
        made = b.fold(seen, (*front, channels, *whole), (rank + 1, rank + 2), steps, gaps)
        return pad_or_cut(b, made, [(-p, -p) for p in pads])

    return record("Col2ImBackward0", (input,), emit)
