"""`pad`: elements added at the ends of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.errors import KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean
from graphc.tensors.arguments import tensor_argument
from graphc.tensors.casting import OPEN, cast_call
from graphc.tensors.core import record
from graphc.tensors.learning import repeatable
from graphc.tensors.operands import fit
from graphc.windows import pad_or_cut

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

Pads = list[tuple[int, int]]
_NAMES = {"reflect": "Reflection", "replicate": "Replication"}
_KERNELS = {"reflect": "reflection_pad", "replicate": "replication_pad"}


@repeatable
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements added at the ends, last dimension first: (left, right, top, bottom, ...). Negative numbers cut off.

    `mode`: "constant" adds `value` (0); for the last 1 to 3 dimensions, of an input with one or two more, "reflect"
    mirrors without the edge, "replicate" repeats the edge, "circular" goes on at the other end.
    """
    amounts = _amounts(pad)
    if len(amounts) % 2:
        raise UsageError("Padding length must be divisible by 2")
    if len(amounts) > 2 * input.ndim:
        raise UsageError(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(amounts)} and input of dimension {input.ndim}"
        )
    pads = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1]
    if mode == "constant":
        return _constant(input, pads, 0 if value is None else value)
    if value is not None and value != 0:
        raise UsageError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode not in ("reflect", "replicate", "circular"):
        raise UnsupportedError(f"Unrecognised padding mode {mode}")
    count = len(pads)
    if count not in (1, 2, 3) or input.ndim not in (count + 1, count + 2):
        raise UnsupportedError(
            f"Padding size {len(amounts)} is not supported for {input.ndim}D input tensor. Only 2D, 3D, 4D, 5D "
            "padding with non-constant padding are supported for now"
        )
    if mode == "circular":
        _check_circular(input._type.shape, pads)
        return record("CopySlices", (input,), lambda b, x: _around(b, x, pads))
    _check_mirrored(input, pads, mode)

    def mirrored(input: Tensor) -> Tensor:
        return record(f"{_NAMES[mode]}Pad{count}DBackward0", (input,), lambda b, x: _mirrored(b, x, pads, mode))

    if OPEN and (mode == "replicate" or count < 3):
        return cast_call(mirrored, "mirrored_pad", (input,), {})
    return mirrored(input)


@repeatable
def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """Elements `value` added at the ends, last dimension first: (left, right, top, bottom, ...). Negative numbers cut
    off.
    """
    given = tensor_argument("constant_pad_nd", input)
    amounts = _amounts(pad)
    if len(amounts) % 2:
        raise ShapeError(f"Length of pad must be even but instead it equals {len(amounts)}")
    if len(amounts) > 2 * given.ndim:
        raise ShapeError(
            "Length of pad should be no more than twice the number of dimensions of the input. Pad length is "
            f"{len(amounts)}while the input has {given.ndim}dimensions."
        )
    return _constant(given, [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1], value)


def _amounts(pad: Sequence[int]) -> list[int]:
    if isinstance(pad, int):
        raise KindError("pad(): argument 'pad' (position 2) must be tuple of ints, not int")
    for place, amount in enumerate(pad):
        if isinstance(amount, float):
            raise KindError(
                "pad(): argument 'pad' (position 2) must be tuple of ints, but found element of type float at pos "
                f"{place}"
            )
    return [int(amount) for amount in pad]


def _constant(input: Tensor, pads: Pads, value: float) -> Tensor:
    for n, (low, high) in zip(input._type.shape[input.ndim - len(pads) :], pads, strict=True):
        if n + low + high < 0 or n + min(low, 0) + min(high, 0) < 0:
            raise ShapeError(
                f"pad: narrow(): length must be non-negative: {list(input._type.shape)} with {low} and {high} elements "
                f"added to a dimension of {n}"
            )
    filler = fit(value, input._type.dtype)
    return record("ConstantPadNdBackward0", (input,), lambda b, x: pad_or_cut(b, x, pads, filler))


def _check_mirrored(input: Tensor, pads: Pads, mode: str) -> None:
    shape, count = input._type.shape, len(pads)
    front = len(shape) - count
    if 0 in shape[front - 1 :]:
        raise ShapeError(
            f"Expected {count + 1}D or {count + 2}D (batch mode) tensor with possibly 0 batch size and other non-zero "
            f"dimensions for input, but got: {list(shape)}"
        )
    for axis, (low, high) in enumerate(pads, front):
        if mode == "reflect" and max(low, high) >= shape[axis]:
            raise ShapeError(
                f"Argument #{4 + 2 * (len(shape) - 1 - axis)}: Padding size should be less than the corresponding "
                f"input dimension, but got: padding ({low}, {high}) at dimension {axis} of input {list(shape)}"
            )
    names = ("D", "H", "W")[-count:]
    outs = [n + low + high for n, (low, high) in zip(shape[front:], pads, strict=True)]
    if min(outs) < 1:
        given = " ".join(f"{name}: {n}" for name, n in zip(names, shape[front:], strict=True))
        made = " ".join(f"{name}: {n}" for name, n in zip(names, outs, strict=True))
        raise ShapeError(f"input ({given}) is too small. Calculated output {made}")
    if input._type.dtype is boolean:
        raise UnsupportedError(f"\"{_KERNELS[mode]}{count}d\" not implemented for 'Bool'")


def _check_circular(shape: Sequence[int], pads: Pads) -> None:
    for n, (low, high) in zip(shape[len(shape) - len(pads) :], pads, strict=True):
        if max(low, high) > n + min(low, high, 0):
            raise ShapeError(
                f"Padding value causes wrapping around more than once: {low} and {high} elements added to a dimension "
                f"of {n} in {list(shape)}"
            )
        if n + low + high < 0:
            raise ShapeError(
                f"Negative padding value is resulting in an empty dimension: {low} and {high} added to {n}"
            )


def _part(b: Builder, x: Node, axis: int, start: int, size: int, step: int = 1) -> Node:
    """`size` elements along `axis` from `start` on."""
    rank = x.type.rank
    return b.slice(
        x,
        tuple(start if i == axis else 0 for i in range(rank)),
        tuple(size if i == axis else n for i, n in enumerate(x.shape)),
        tuple(step if i == axis else 1 for i in range(rank)),
    )


def _joined(b: Builder, x: Node, axis: int, low: Node | None, high: Node | None) -> Node:
    return b.concat(tuple(part for part in (low, x, high) if part is not None), axis)


def _mirrored(b: Builder, x: Node, pads: Pads, mode: str) -> Node:
    """What "reflect" and "replicate" add, then what negative numbers cut off."""
    front = x.type.rank - len(pads)
    for axis, (low, high) in enumerate(pads, front):
        n = x.shape[axis]
        ends: list[Node | None] = []
        for count, reflected, edge in ((low, low, 0), (high, n - 2, n - 1)):
            if count <= 0:
                ends.append(None)
            elif mode == "reflect":
                ends.append(_part(b, x, axis, reflected, count, -1))
            else:
                wide = tuple(count if i == axis else size for i, size in enumerate(x.shape))
                ends.append(b.broadcast(_part(b, x, axis, edge, 1), wide))
        x = _joined(b, x, axis, ends[0], ends[1])
    return pad_or_cut(b, x, [(min(low, 0), min(high, 0)) for low, high in pads])


def _around(b: Builder, x: Node, pads: Pads) -> Node:
    x = pad_or_cut(b, x, [(min(low, 0), min(high, 0)) for low, high in pads])
    for axis, (low, high) in enumerate(pads, x.type.rank - len(pads)):
        before = _part(b, x, axis, x.shape[axis] - low, low) if low > 0 else None
        after = _part(b, x, axis, 0, high) if high > 0 else None
        x = _joined(b, x, axis, before, after)
    return x
