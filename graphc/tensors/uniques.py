"""Unique elements and rows. The number of results depends on the values, so these look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import UsageError
from graphc.ir.types import bf16, i64
from graphc.tensors.core import from_array, wrap_dim

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _rows(input: Tensor, dim: int | None) -> tuple[np.ndarray, int]:
    """A row for each element (or for each index of `dim`), and the axis."""
    array = input._array()
    if input._type.dtype is bf16:
        array = array.astype(np.float32)
    if dim is None:
        return array.reshape(-1, 1), 0
    axis = wrap_dim(dim, input.ndim)
    if not input.ndim:
        return array.reshape(1, 1), 0
    zeros = [i for i, n in enumerate(array.shape) if n == 0]
    if len(zeros) > 1:
        raise UsageError("Number of zero sized dimensions is more than one, so unique cannot be applied ")
    if zeros and zeros != [axis]:
        raise UsageError("There are 0 sized dimensions, and they aren't selected, so unique cannot be applied")
    moved = np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1 if moved.size else 1), axis


def _grouped(input: Tensor, dim: int | None, inverse: bool, counts: bool, consecutive: bool) -> Any:
    if dim is None and not inverse and not consecutive and input._type.dtype is not bf16:
        return _sorted(input, counts)
    rows, axis = _rows(input, dim)
    n = len(rows)
    order = np.arange(n) if consecutive else np.lexsort(rows.T[::-1]) if rows.size else np.arange(n)
    ordered = rows[order] if rows.size else rows
    new = np.ones(n, bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1) if rows.size else False
    firsts = np.flatnonzero(new)
    source, device = input._array(), input._type.device
    chosen = order[firsts]
    flat = source.reshape(-1) if dim is None or not source.ndim else source
    made = [from_array(np.take(flat, chosen, axis), input._type.dtype, device)]
    if inverse:
        places = np.empty(n, np.int64)
        places[order] = np.cumsum(new) - 1
        made.append(from_array(places.reshape(source.shape) if dim is None else places, i64, device))
    if counts:
        made.append(from_array(np.diff(np.append(firsts, n)), i64, device))
    return made[0] if len(made) == 1 else tuple(made)


def _sorted(input: Tensor, counts: bool) -> Any:
    """The different elements, whose places nobody asks for: they are sorted by themselves, which takes a third of the
    time.
    """
    ordered, device = np.sort(input._array(), axis=None), input._type.device
    new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    made = from_array(ordered[new], input._type.dtype, device)
    if not counts:
        return made
    return made, from_array(np.diff(np.append(np.flatnonzero(new), len(ordered))), i64, device)


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements (or slices along `dim`) in order; also where each element went, and how many there are.

    No gradient flows, as in PyTorch. NaN differs from NaN.
    """
    return _grouped(input, dim, return_inverse, return_counts, False)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first element (or slice along `dim`) of each run of equal ones; see `unique`."""
    return _grouped(input, dim, return_inverse, return_counts, True)
