"""Where masks are true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import RangeError
from graphc.ir.types import i64
from graphc.tensors.core import from_array

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def true_places(mask: Tensor, seen: Tensor, dim: int) -> list[Tensor]:
    """Positions of the true elements, one tensor per dimension; looks at the values."""
    shape = seen._type.shape
    for i, m in enumerate(mask._type.shape):
        if dim + i >= len(shape) or m != shape[dim + i]:
            raise RangeError(
                f"The shape of the mask {list(mask._type.shape)} at index {i} does not match the shape of the indexed "
                f"tensor {list(shape)} at index {dim + i}"
            )
    return [from_array(p, i64, mask._type.device) for p in nonzero_places(mask._array())]


def nonzero_places(array: np.ndarray) -> np.ndarray:
    """`numpy.nonzero` as one i64 array, a row for each dimension.

    NumPy is several times as fast with one dimension as with more: places in row-major order are cut up here.
    """
    if array.ndim == 0:
        return np.empty((0, int(bool(array))), np.int64)
    flat = np.flatnonzero(array if array.dtype == np.bool_ else array != 0)
    places = np.empty((array.ndim, len(flat)), np.int64)
    for axis in range(array.ndim - 1, 0, -1):
        n = max(1, array.shape[axis])
        before = flat // n
        np.subtract(flat, before * n, out=places[axis])
        flat = before
    places[0] = flat
    return places
