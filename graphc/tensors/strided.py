"""Views by strides: a flat tensor seen with any strides under which rows lie inside rows."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from graphc.tensors.core import alias
from graphc.tensors.shaping import expand, permute, view_
from graphc.tensors.views import Ints

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


_MOST_STEPS = 1_000  # rows that a slice of the outermost axis may pass over


def memory_of(shape: Ints, strides: Ints) -> int:
    """Elements of memory from the first element of a strided tensor to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def strided_view(flat: Tensor, shape: Ints, strides: Ints, offset: int) -> Tensor | None:
    """The memory of the vector `flat` from element `offset` on as `shape` with `strides`, without the gradient side.

    None when the strides do not nest: the elements must be slices of the axes of some array that fills the memory.
    """
    if 0 in shape:
        return alias(view_(flat[:0], shape))
    walked = sorted((i for i, n in enumerate(shape) if n > 1 and strides[i]), key=lambda i: -strides[i])
    seen = _nested(flat, [shape[i] for i in walked], [strides[i] for i in walked], offset)
    if seen is None:
        return None
    by_place = sorted(range(len(walked)), key=lambda k: walked[k])
    if by_place != list(range(len(walked))):
        seen = permute(seen, *by_place)
    kept = tuple(n if i in walked else 1 for i, n in enumerate(shape))
    if seen._type.shape != kept:
        seen = view_(seen, *kept)
    made = alias(expand(seen, *shape) if kept != shape else seen)
    made._strides = strides
    return made


def _nested(flat: Tensor, sizes: list[int], strides: list[int], offset: int) -> Tensor | None:
    """`strided_view` for strides in falling order and sizes above 1."""
    count = flat._type.size
    if not sizes:
        return view_(flat[offset : offset + 1], ())
    for step in range(1, min(strides[0], _MOST_STEPS) + 1):
        if strides[0] % step:
            continue
        # The memory as an array: rows of `units[0]` elements, of which every `step`-th counts, in them rows of
        # `units[1]`, and so on.
        units = [strides[0] // step]
        for stride in strides[1:]:
            units.append(math.gcd(stride, units[-1]))
        rows = (sizes[0] - 1) * step + 1
        start = min(offset, count - rows * units[0])
        if start < 0:
            continue
        cut = _cuts(sizes, strides, units, rows, offset - start)
        if cut is not None:
            extents = [rows, *(a // b for a, b in pairwise(units)), units[-1]]
            seen = view_(flat[start : start + rows * units[0]], *extents)[tuple(cut)]
            return view_(seen, *sizes)
    return None


def _cuts(sizes: list[int], strides: list[int], units: list[int], rows: int, rest: int) -> list[slice] | None:
    """The slice of each axis, or None when one would leave its axis."""
    cut: list[slice] = []
    extent = rows
    for axis, (size, stride, unit) in enumerate(zip(sizes, strides, units, strict=True)):
        first, rest = divmod(rest, unit)
        last = first + (size - 1) * (stride // unit) + 1
        if last > extent:
            return None
        cut.append(slice(first, last, stride // unit))
        extent = unit // units[axis + 1] if axis + 1 < len(units) else unit
    return [*cut, slice(rest, rest + 1)]
