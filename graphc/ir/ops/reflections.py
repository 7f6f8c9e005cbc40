"""Factorisations that LAPACK has and NumPy does not offer: Householder's reflections as such, and L D L^T of symmetric
matrices (Bunch and Kaufman, 1977; Golub and Van Loan, "Matrix Computations", 4.4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.opdef import Attrs
from graphc.ir.ops.lapack import stacked
from graphc.ir.types import TensorType

_GROWTH = (1 + 17**0.5) / 8  # bounds the growth of elements best


def geqrf(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """R and, below it, the reflections' vectors without their ones, over their scales."""
    (x,) = arrays
    result = np.zeros(type.shape, type.dtype.numpy)
    if not x.size:
        return result
    made, scales = np.linalg.qr(x, "raw")
    result[..., :-1, :] = np.swapaxes(made, -1, -2)
    result[..., -1, : scales.shape[-1]] = scales
    return result


def ldl(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """D and, below it, L without its ones, over the pivots and over the number of the first block of zeros."""
    (x,) = arrays
    result = np.zeros(type.shape, type.dtype.numpy)
    for place, m in zip(stacked(result), stacked(x), strict=False):
        factors = np.tril(m)
        pivots, info = _ldl_of(factors)
        place[:-2], place[-2] = factors, pivots
        place[-1, :1] = info
    return result


def _exchange(a: np.ndarray, k: int, p: int) -> None:
    """Exchange rows and columns k < p of the symmetric matrix from k on, whose lower triangle is kept."""
    a[p + 1 :, [k, p]] = a[p + 1 :, [p, k]]
    column, row = a[k + 1 : p, k].copy(), a[p, k + 1 : p].copy()
    a[k + 1 : p, k], a[p, k + 1 : p] = row, column
    a[[k, p], [k, p]] = a[[p, k], [p, k]]


def _pivot(a: np.ndarray, k: int) -> tuple[int, int]:
    """Which row comes next, and whether its block has size 1 or 2; (-1, 1) for a column of zeros."""
    n = len(a)
    here = abs(a[k, k])
    if k == n - 1:
        return (k if here > 0 else -1), 1
    largest = k + 1 + int(np.argmax(np.abs(a[k + 1 :, k])))
    column = abs(a[largest, k])
    if not max(here, column) > 0:
        return -1, 1
    if here >= _GROWTH * column:
        return k, 1
    row = max(np.abs(a[largest, k:largest]).max(), np.abs(a[largest + 1 :, largest]).max(initial=0))
    if here >= _GROWTH * column * (column / row):
        return k, 1
    return (largest, 1) if abs(a[largest, largest]) >= _GROWTH * row else (largest, 2)


def _ldl_of(a: np.ndarray) -> tuple[np.ndarray, int]:
    """Factorise the lower triangle in place; the pivots, from 1, negative for blocks of size 2, and the fact."""
    n = len(a)
    pivots, info, k = np.zeros(n), 0, 0
    while k < n:
        row, size = _pivot(a, k)
        if row < 0:
            info = info or k + 1
            pivots[k] = k + 1
            k += 1
            continue
        last = k + size - 1
        if row != last:
            _exchange(a, last, row)
            if size == 2:
                a[[k + 1, row], k] = a[[row, k + 1], k]
        rest = slice(k + size, n)
        if size == 1:
            left = a[rest, k] / a[k, k]
            a[rest, rest] -= np.tril(np.outer(left, a[rest, k]))
            a[rest, k] = left
            pivots[k] = row + 1
        else:
            block = np.array([[a[k, k], a[k + 1, k]], [a[k + 1, k], a[k + 1, k + 1]]])
            left = a[rest, k : k + 2] @ np.linalg.inv(block)
            a[rest, rest] -= np.tril(left @ a[rest, k : k + 2].T)
            a[rest, k : k + 2] = left
            pivots[k : k + 2] = -(row + 1)
        k += size
    return pivots, info


def ldl_solve(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """X with L D L^T X = B, from factors, pivots (i32) and B."""
    factors, pivots, right = arrays
    made = right.copy()
    orders = pivots.reshape(-1, pivots.shape[-1]) if pivots.size else np.zeros((0, pivots.shape[-1]), pivots.dtype)
    for x, a, order in zip(stacked(made), stacked(factors), orders, strict=False):
        _solve_one(a, order, x)
    return made


def _swap(x: np.ndarray, i: int, pivot: int) -> None:
    other = abs(pivot) - 1
    if 0 <= other < len(x) and other != i:
        x[[i, other]] = x[[other, i]]


def _solve_one(a: np.ndarray, pivots: np.ndarray, x: np.ndarray) -> None:
    n = len(a)
    starts, k = [], 0
    while k < n:
        size = 2 if pivots[k] < 0 and k + 1 < n else 1
        starts.append((k, size))
        _swap(x, k + size - 1, int(pivots[k]))
        part, rest = slice(k, k + size), slice(k + size, n)
        x[rest] -= a[rest, part] @ x[part]
        block = np.tril(a[part, part])
        block = block + np.tril(block, -1).T
        if size == 1:
            x[k] /= block[0, 0]
        else:
            x[part] = np.linalg.inv(block) @ x[part] if np.linalg.det(block) else np.nan
        k += size
    for k, size in reversed(starts):
        part, rest = slice(k, k + size), slice(k + size, n)
        x[part] -= a[rest, part].T @ x[rest]
        _swap(x, k + size - 1, int(pivots[k]))
