"""Views by strides: a flat tensor seen with any strides under which rows lie inside rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.tensors.core import alias
from graphc.tensors.shaping import expand, permute, select, view_
from graphc.tensors.views import Ints

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def memory_of(shape: Ints, strides: Ints) -> int:
    """Elements of memory from the first element of a strided tensor to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def strided_view(flat: Tensor, shape: Ints, strides: Ints, offset: int) -> Tensor | None:
    """The memory of the vector `flat` from element `offset` on as `shape` with `strides`, without the gradient side.

    None when the strides do not nest (each a multiple of the next smaller one, which its whole row fits into), or when
    the enclosing rows do not fit into the memory.
    """
    count = flat._type.size
    walked = sorted(
        (i for i, n in enumerate(shape) if n > 1 and strides[i]), key=lambda i: (-strides[i], i)
    )  # dimensions from the outermost in memory
    if 0 in shape:
        return alias(view_(flat[:0], shape))
    # Rows: the extents of the memory as an array in which every walked dimension is a slice of one axis.
    rows: list[int] = []
    for outer, inner in zip([None, *walked], walked, strict=False):
        if outer is None:
            rows.append(shape[inner])
        elif strides[outer] % strides[inner] or strides[outer] < strides[inner] * shape[inner]:
            return None
        else:
            rows.append(strides[outer] // strides[inner])
    unit = strides[walked[-1]] if walked else 1
    needed = rows[0] * strides[walked[0]] if walked else 1
    start = min(offset, count - needed)
    if start < 0:
        return None
    seen = flat[start : start + needed].view(*rows, unit)
    rest = offset - start
    for axis, i in enumerate(walked):
        digit, rest = (0, rest) if axis == 0 else divmod(rest, strides[i])
        if digit + shape[i] > rows[axis]:
            return None
        if rows[axis] != shape[i]:
            seen = seen.narrow(axis, digit, shape[i])
    seen = select(seen, -1, rest) if unit > 1 else view_(seen, *seen._type.shape[:-1])
    by_place = sorted(range(len(walked)), key=lambda k: walked[k])
    if by_place != list(range(len(walked))):
        seen = permute(seen, *by_place)
    kept = tuple(n if i in walked else 1 for i, n in enumerate(shape))
    if seen._type.shape != kept:
        seen = view_(seen, *kept)
    made = alias(expand(seen, *shape) if kept != shape else seen)
    made._strides = strides
    return made
