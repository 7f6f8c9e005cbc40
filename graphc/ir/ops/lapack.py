"""Factorisations of stacks of matrices by NumPy's LAPACK, and what it does not offer; they never raise.

A matrix for which an algorithm fails gives NaN. Results are packed into one array where an operator has several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.ir.opdef import Attrs
from graphc.ir.types import TensorType

PANEL = 64  # columns that are factorised one after the other
FEW, SOLVED = 8, 64  # rows that are substituted one after the other, and by one call of LAPACK


def stacked(x: np.ndarray) -> np.ndarray:
    """The matrices one after the other."""
    return x.reshape(-1, *x.shape[-2:]) if x.size else np.zeros((0, *x.shape[-2:]), x.dtype)


def each(
    x: np.ndarray, whole: Callable[[np.ndarray], np.ndarray], one: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """`whole(x)`, or, when LAPACK fails for some matrix, `one` of each matrix."""
    try:
        return whole(x)
    except np.linalg.LinAlgError:
        made = [one(m) for m in stacked(x)]
        return np.stack(made).reshape(*x.shape[:-2], *made[0].shape)


def or_nan(function: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """`function` of one matrix, NaN of `shape` where it fails."""

    def one(m: np.ndarray) -> np.ndarray:
        try:
            return function(m)
        except np.linalg.LinAlgError:
            return np.full(shape, np.nan, m.dtype)

    return one


def with_facts(x: np.ndarray, facts: np.ndarray | int) -> np.ndarray:
    """`x` with one more row whose first element is a fact about the matrix."""
    row = np.zeros((*x.shape[:-2], 1, x.shape[-1]), x.dtype)
    row[..., 0, :1] = np.asarray(facts)[..., None]
    return np.concatenate([x, row], -2)


def cholesky(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    (x,) = arrays

    def one(m: np.ndarray) -> np.ndarray:
        made = np.zeros_like(m)
        for j in range(len(m)):
            left = m[j, j] - made[j, :j] @ made[j, :j]
            if not left > 0:
                made[j:, j:] = np.tril(m[j:, j:])
                return with_facts(made, j + 1)
            made[j, j] = np.sqrt(left)
            made[j + 1 :, j] = (m[j + 1 :, j] - made[j + 1 :, :j] @ made[j, :j]) / made[j, j]
        return with_facts(made, 0)

    def whole(x: np.ndarray) -> np.ndarray:
        made = np.linalg.cholesky(x)
        if np.isnan(made).any():
            raise np.linalg.LinAlgError
        return with_facts(made, 0)

    return each(x, whole, one)


def lu_of(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L below the diagonal and U above it, with partial pivoting, and for each row the one (from 1) it changed with.

    By halves of the columns, so that most of the work is products: S. Toledo, "Locality of reference in LU
    decomposition with partial pivoting" (1997).
    """
    made = m.copy()
    return made, _factorise(made) + 1


def _factorise(m: np.ndarray) -> np.ndarray:
    """Turn a matrix into its factors in place; gives for each row (from 0) the one it changed with."""
    rows, columns = m.shape
    if columns <= PANEL or rows <= PANEL:
        return _factorise_columns(m)
    half = min(rows, columns) // 2
    left, right = m[:, :half], m[:, half:]
    pivots = _factorise(left)
    _exchange(right, pivots)
    right[:half] = _substituted(left[:half], right[:half], upper=False, unit=True)
    right[half:] -= left[half:] @ right[:half]
    later = _factorise(right[half:])
    _exchange(left[half:], later)
    return np.concatenate([pivots, later + half])


def _factorise_columns(m: np.ndarray) -> np.ndarray:
    """`_factorise`, one column after the other."""
    pivots = np.arange(min(m.shape))
    for j in range(len(pivots)):
        best = j + int(np.argmax(np.abs(m[j:, j])))
        pivots[j] = best
        if best != j:
            _exchange_two(m, j, best)
        if m[j, j] != 0:
            m[j + 1 :, j] /= m[j, j]
        m[j + 1 :, j + 1 :] -= np.outer(m[j + 1 :, j], m[j, j + 1 :])
    return pivots


def _exchange(m: np.ndarray, pivots: np.ndarray) -> None:
    """Change the rows of `m` as a factorisation changed its own, one after the other."""
    for i in np.flatnonzero(pivots != np.arange(len(pivots))):
        _exchange_two(m, int(i), int(pivots[i]))


def _exchange_two(m: np.ndarray, i: int, j: int) -> None:
    row = m[i].copy()
    m[i] = m[j]
    m[j] = row


def lu(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    result = np.zeros(type.shape, type.dtype.numpy)
    for place, m in zip(stacked(result), stacked(arrays[0]), strict=False):
        made, pivots = lu_of(m)
        place[:-1], place[-1, : len(pivots)] = made, pivots
    return result


def zero_pivot(m: np.ndarray) -> int:
    """Which diagonal element of U (from 1) is the first that is zero; 0 for none."""
    zeros = np.flatnonzero(np.diagonal(lu_of(m)[0]) == 0)
    return int(zeros[0]) + 1 if len(zeros) else 0


def inverse(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    (x,) = arrays

    def one(m: np.ndarray) -> np.ndarray:
        try:
            return with_facts(np.linalg.inv(m), 0)
        except np.linalg.LinAlgError:
            return with_facts(np.full_like(m, np.nan), zero_pivot(m) or len(m))

    return each(x, lambda x: with_facts(np.linalg.inv(x), 0), one)


def solve(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    a, y = arrays
    try:
        return with_facts(np.linalg.solve(a, y), 0)
    except np.linalg.LinAlgError:
        made = []
        for m, right in zip(stacked(a), stacked(y), strict=True):
            try:
                made.append(with_facts(np.linalg.solve(m, right), 0))
            except np.linalg.LinAlgError:
                made.append(with_facts(np.full_like(right, np.nan), zero_pivot(m) or len(m)))
        return np.stack(made).reshape(type.shape)


def solve_triangular(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """By substitution, as LAPACK's trtrs is not in NumPy; a zero on the diagonal gives infinities and NaN."""
    a, y = arrays
    return _substituted(a, y, bool(attrs["upper"]), bool(attrs["unit"]))


def _substituted(a: np.ndarray, y: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """Substitution by blocks on the diagonal, from the last one of an upper triangle on.

    LAPACK's gesv exchanges and eliminates nothing in an upper triangle and so substitutes too, but has zeros below the
    diagonal times what it divides: blocks that are not finite, or are singular, go row by row.
    """
    if not upper:  # backwards it is an upper triangle
        return _substituted(a[..., ::-1, ::-1], y[..., ::-1, :], True, unit)[..., ::-1, :]
    n, made = a.shape[-1], np.array(y)
    for end in range(n, 0, -SOLVED):
        start = max(0, end - SOLVED)
        block, rest = a[..., start:end, start:end], made[..., start:end, :]
        if end < n:
            rest -= a[..., start:end, end:] @ made[..., end:, :]
        if end - start > FEW:
            block = np.triu(block, int(unit)) + (np.eye(end - start, dtype=a.dtype) if unit else 0)
            least = np.abs(np.einsum("...ii->...i", block)).min(initial=1)
            if least >= np.finfo(a.dtype).tiny and np.isfinite(block).all() and np.isfinite(rest).all():
                made[..., start:end, :] = np.linalg.solve(block, rest)
                continue
        for i in reversed(range(end - start)):
            rest[..., i, :] -= (block[..., i, None, i + 1 :] @ rest[..., i + 1 :, :])[..., 0, :]
            if not unit:
                rest[..., i, :] /= block[..., i, i, None]
    return made


def permutation(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """Rows in their order after the exchanges that `pivots` (from 1) ask for; what is out of range is left out."""
    pivots, size = arrays[0], attrs["size"]
    result = np.empty(type.shape, np.int64)
    result[...] = np.arange(size)
    if not pivots.size:
        return result
    for order, row in zip(result.reshape(-1, size), pivots.reshape(-1, pivots.shape[-1]), strict=True):
        for i, pivot in enumerate(row):
            if 1 <= pivot <= size:
                order[[i, pivot - 1]] = order[[pivot - 1, i]]
    return result


def qr(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    (x,) = arrays
    result = np.zeros(type.shape, type.dtype.numpy)
    m, n = x.shape[-2:]
    if 0 in x.shape:
        if attrs["complete"] and m:
            result[..., :m, :m] = np.eye(m)
        return result
    q, r = np.linalg.qr(x, "complete" if attrs["complete"] else "reduced")
    result[..., :m, : q.shape[-1]] = q
    result[..., m:, :n] = r
    return result


def svd(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    (x,) = arrays
    m, n = x.shape[-2:]
    if 0 in x.shape:
        result = np.zeros(type.shape, type.dtype.numpy)
        if attrs["full"]:
            result[..., :m, :m] = np.eye(m)
            result[..., m + 1 :, :n] = np.eye(n)
        return result

    def packed(x: np.ndarray) -> np.ndarray:
        u, s, vh = np.linalg.svd(x, attrs["full"])
        made = np.zeros((*x.shape[:-2], *type.shape[-2:]), x.dtype)
        made[..., :m, : u.shape[-1]] = u
        made[..., m, : s.shape[-1]] = s
        made[..., m + 1 :, : vh.shape[-2]] = np.swapaxes(vh, -1, -2)
        return made

    return each(x, packed, or_nan(packed, type.shape[-2:]))


def svdvals(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    def values(x: np.ndarray) -> np.ndarray:
        return np.linalg.svd(x, compute_uv=False)

    return each(arrays[0], values, or_nan(values, type.shape[-1:])) if type.size else np.zeros(type.shape)


def eigh(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    def packed(x: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(x, "U" if attrs["upper"] else "L")
        return np.concatenate([vectors, values[..., None, :]], -2)

    return each(arrays[0], packed, or_nan(packed, type.shape[-2:])) if type.size else np.zeros(type.shape)


def eigvalsh(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    def values(x: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(x, "U" if attrs["upper"] else "L")

    return each(arrays[0], values, or_nan(values, type.shape[-1:])) if type.size else np.zeros(type.shape)


def pseudo_inverse(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """By singular values above the tolerance (by eigenvalues, whose size counts, for symmetric matrices)."""
    x, least = arrays[0], arrays[1].reshape(-1)
    result = np.zeros(type.shape, type.dtype.numpy)
    for place, m, tolerance in zip(stacked(result), stacked(x), least, strict=False):
        try:
            if attrs["hermitian"]:
                s, u = np.linalg.eigh(m)
                v = u
            else:
                u, s, vh = np.linalg.svd(m, full_matrices=False)
                v = vh.T
        except np.linalg.LinAlgError:
            place[...] = np.nan
            continue
        kept = np.abs(s) > tolerance
        place[...] = (v * np.where(kept, 1 / np.where(kept, s, 1), 0)) @ u.T
    return result


def det(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.linalg.det(arrays[0])


def cofactors(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    """det(U V) U diag(the products of all other singular values) V^T: exists for singular matrices too."""
    (x,) = arrays
    n = x.shape[-1]
    if not x.size:
        return np.zeros(type.shape)

    def made(x: np.ndarray) -> np.ndarray:
        u, s, vh = np.linalg.svd(x)
        others = np.where(np.eye(n, dtype=bool), 1, s[..., None, :]).prod(-1)
        sign = np.round(np.linalg.det(u) * np.linalg.det(vh))
        return sign[..., None, None] * ((u * others[..., None, :]) @ vh)

    return each(x, made, or_nan(made, (n, n)))


def slogdet(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    return np.stack(np.linalg.slogdet(arrays[0]), -1)


# Coefficients of the numerator of the Padé approximant of degree 13 of exp, and the norm up to which it is exact to
# double precision: Higham, "The scaling and squaring method for the matrix exponential revisited" (2005).
_PADE = (
    64764752532480000,
    32382376266240000,
    7771770303897600,
    1187353796428800,
    129060195264000,
    10559470521600,
    670442572800,
    33522128640,
    1323241920,
    40840800,
    960960,
    16380,
    182,
    1,
)
_PADE_NORM = 5.371920351148152


def matrix_exp(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
    x = arrays[0].astype(np.float64)
    n = x.shape[-1]
    norm = np.abs(x).sum(-2).max(initial=0)
    if not np.isfinite(norm):
        return np.full(type.shape, np.nan)
    if not norm:
        return np.broadcast_to(np.eye(n), type.shape)
    halvings = max(int(np.ceil(np.log2(norm / _PADE_NORM))), 0)
    x = x / 2.0**halvings
    c, one = _PADE, np.eye(n)
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    odd = x @ (x6 @ (c[13] * x6 + c[11] * x4 + c[9] * x2) + c[7] * x6 + c[5] * x4 + c[3] * x2 + c[1] * one)
    even = x6 @ (c[12] * x6 + c[10] * x4 + c[8] * x2) + c[6] * x6 + c[4] * x4 + c[2] * x2 + c[0] * one
    made = np.linalg.solve(even - odd, even + odd)
    for _ in range(halvings):
        made = made @ made
    return made
