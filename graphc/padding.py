"""`pad`: elements added at the ends of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.tensors.core import record
from graphc.tensors.shaping import slice_view

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements added at the ends, last dimension first: (left, right, top, bottom, ...). Negative numbers cut off."""
    amounts = list(pad)
    if len(amounts) % 2 or len(amounts) > 2 * input.ndim:
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(amounts)} "
            f"and input of dimension {input.ndim}"
        )
    if mode != "constant":
        raise NotImplementedError(f"pad: mode {mode!r} is not supported, only 'constant'")
    rank = input.ndim
    low, high = [0] * rank, [0] * rank
    for place in range(len(amounts) // 2):
        low[rank - 1 - place], high[rank - 1 - place] = amounts[2 * place], amounts[2 * place + 1]
    seen = input
    for axis in range(rank):
        cut_low, cut_high = max(-low[axis], 0), max(-high[axis], 0)
        left = seen._type.shape[axis] - cut_low - cut_high
        if left < 0:
            raise RuntimeError(f"pad: dimension {axis} of {list(input._type.shape)} would get a negative size")
        if cut_low or cut_high:
            seen = slice_view(seen, axis, cut_low, left, 1)
    below, above = tuple(max(n, 0) for n in low), tuple(max(n, 0) for n in high)
    filler = 0 if value is None else value
    return record("ConstantPadNdBackward0", (seen,), lambda b, x: b.pad(x, below, above, None, filler))
