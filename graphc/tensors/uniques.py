"""Unique elements and rows. The number of results depends on the values, so these look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import UsageError
from graphc.ir.types import bf16, i64
from graphc.tensors import viewing
from graphc.tensors.calling import want_tensor
from graphc.tensors.core import from_array, wrap_dim
from graphc.tensors.sorting import sort

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _rows(input: Tensor, dim: int | None) -> tuple[np.ndarray, int]:
    """A row for each element (or for each index of `dim`), and the axis."""
    array = input._array()
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


def _in_order(input: Tensor, rows: np.ndarray, with_places: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows in ascending order, equal ones in theirs, and where each was: None for single elements whose places
    nobody asks for.
    """
    if rows.shape[1] > 1:
        order = np.lexsort(rows.T[::-1])
        return rows[order], order
    flat = viewing.reshape(input.detach(), -1)
    if not with_places:
        return sort(flat)[0]._array()[:, None], None
    ordered, order = sort(flat, stable=True)
    return ordered._array()[:, None], order._array()


def _grouped(input: Tensor, dim: int | None, inverse: bool, counts: bool, consecutive: bool) -> Any:
    rows, axis = _rows(input, dim)
    n = len(rows)
    if consecutive or not rows.size:
        ordered, order = rows, np.arange(n)
    else:
        ordered, order = _in_order(input, rows, inverse or dim is not None)
    compared = ordered.astype(np.float32) if input._type.dtype is bf16 else ordered
    new = np.ones(n, bool)
    new[1:] = (compared[1:] != compared[:-1]).any(1) if rows.size else False
    source, type = input._array(), input._type
    if order is None:
        made = [from_array(ordered[new, 0], type.dtype, type.device)]
    else:
        flat = source.reshape(-1) if dim is None or not source.ndim else source
        made = [from_array(np.take(flat, order[new], axis), type.dtype, type.device)]
    if inverse and order is not None:
        places = np.empty(n, np.int64)
        places[order] = np.cumsum(new) - 1
        made.append(from_array(places.reshape(source.shape) if dim is None else places, i64, type.device))
    if counts:
        made.append(from_array(np.diff(np.append(np.flatnonzero(new), n)), i64, type.device))
    return made[0] if len(made) == 1 else tuple(made)


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
    want_tensor("unique", input)
    return _grouped(input, dim, return_inverse, return_counts, False)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first element (or slice along `dim`) of each run of equal ones; see `unique`."""
    want_tensor("unique_consecutive", input)
    return _grouped(input, dim, return_inverse, return_counts, True)
