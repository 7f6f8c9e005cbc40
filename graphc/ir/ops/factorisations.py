"""Factorisations of matrices in the last two dimensions, on the host by NumPy's LAPACK.

None of them raises: where an algorithm fails, its result says so in a row of facts at the end, or is NaN, and the front
end adds a check that raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.opdef import Attr, Attrs, Evaluate, OpDef, Vjp, register
from graphc.ir.ops import factorisations_vjp as gradients
from graphc.ir.ops import lapack, reflections
from graphc.ir.ops.checks import check_arity, check_device, check_same_dtype
from graphc.ir.types import TensorType, f32, f64, i32, i64

Shape = tuple[int, ...]


def _matrix(op: str, type: TensorType, square: bool) -> None:
    if type.dtype not in (f32, f64):
        raise DTypeError(f"{op}: matrices have dtype f32 or f64, got {type}")
    if type.rank < 2 or (square and type.shape[-1] != type.shape[-2]):
        raise ShapeError(f"{op}: wants {'square matrices' if square else 'matrices'}, got {type}")


def _of_one(op: str, square: bool, shape: Callable[[Shape, int, int, Attrs], Shape]) -> Callable[..., TensorType]:
    """The type rule of an operator of one matrix: `shape(lead, m, n, attrs)`."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(op, types, 1)
        _matrix(op, types[0], square)
        *lead, m, n = types[0].shape
        return types[0].with_shape(shape(tuple(lead), m, n, attrs))

    return infer


def _of_two(op: str, more: int) -> Callable[..., TensorType]:
    """The type rule of an equation's solution; it has `more` rows of facts."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        check_arity(op, types, 2)
        check_device(op, types)
        check_same_dtype(op, types)
        a, y = types
        _matrix(op, a, True)
        if y.rank != a.rank or y.shape[:-1] != a.shape[:-1]:
            raise ShapeError(f"{op}: the right side {y} does not fit {a}")
        return y.with_shape((*y.shape[:-2], y.shape[-2] + more, y.shape[-1]))

    return infer


def _infer_pseudo_inverse(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("pseudo_inverse", types, 2)
    check_device("pseudo_inverse", types)
    check_same_dtype("pseudo_inverse", types)
    x, tolerance = types
    _matrix("pseudo_inverse", x, attrs["hermitian"])
    if tolerance.shape != x.shape[:-2]:
        raise ShapeError(f"pseudo_inverse: wants one tolerance for each matrix of {x}, got {tolerance}")
    return x.with_shape((*x.shape[:-2], x.shape[-1], x.shape[-2]))


def _infer_permutation(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("permutation", types, 1)
    (pivots,) = types
    if pivots.dtype is not i32 or not pivots.rank or pivots.shape[-1] > attrs["size"]:
        raise ShapeError(f"permutation: wants at most {attrs['size']} pivots of dtype i32, got {pivots}")
    return TensorType(i64, (*pivots.shape[:-1], attrs["size"]), pivots.device)


def _infer_ldl_solve(types: Sequence[TensorType], attrs: Attrs) -> TensorType:
    check_arity("ldl_solve", types, 3)
    check_device("ldl_solve", types)
    factors, pivots, right = types
    made = _of_two("ldl_solve", 0)((factors, right), attrs)
    if pivots.dtype is not i32 or pivots.shape != factors.shape[:-1]:
        raise ShapeError(f"ldl_solve: wants i32 pivots, one for each row of {factors}, got {pivots}")
    return made


def _full(lead: Shape, m: int, n: int, attrs: Attrs) -> Shape:
    return (*lead, m + 1 + n, max(m, n) if attrs["full"] else min(m, n))


def _qr_shape(lead: Shape, m: int, n: int, attrs: Attrs) -> Shape:
    k = m if attrs["complete"] else min(m, n)
    return (*lead, m + k, max(k, n))


def _host(
    name: str,
    infer: Callable[..., TensorType],
    evaluate: Evaluate,
    vjp: Vjp | None,
    doc: str,
    *attrs: Attr,
    arity: int = 1,
    why: str = "",
) -> OpDef:
    why = "" if vjp is not None else why or "zero: an order of rows does not change"
    return register(OpDef(name, "host", arity, doc, infer, _typed(evaluate), attrs, vjp, why))


def _typed(evaluate: Evaluate) -> Evaluate:
    """`evaluate` with a result of exactly the node's type."""

    def typed(arrays: Sequence[np.ndarray], attrs: Attrs, type: TensorType) -> np.ndarray:
        return np.asarray(evaluate(arrays, attrs, type), type.dtype.numpy).reshape(type.shape)

    return typed


_UPPER = Attr("upper", "bool")
_NONE = "undefined: PyTorch has none"

CHOLESKY = _host(
    "cholesky",
    _of_one("cholesky", True, lambda lead, m, n, attrs: (*lead, n + 1, n)),
    lapack.cholesky,
    gradients.cholesky,
    "The lower triangular L with L L^T = x, by the lower triangle of x, over a row that begins with the order of the "
    "first leading minor that is not positive (0: none).",
)
INVERSE = _host(
    "inverse",
    _of_one("inverse", True, lambda lead, m, n, attrs: (*lead, n + 1, n)),
    lapack.inverse,
    gradients.inverse,
    "The inverse, over a row that begins with the number of the first zero pivot (0: none; then NaN).",
)
SOLVE = _host(
    "solve",
    _of_two("solve", 1),
    lapack.solve,
    gradients.solve,
    "The matrix X with x X = y, over a row that begins with the number of the first zero pivot (0: none; then NaN).",
    arity=2,
)
SOLVE_TRIANGULAR = _host(
    "solve_triangular",
    _of_two("solve_triangular", 0),
    lapack.solve_triangular,
    gradients.solve_triangular,
    "The matrix X with x X = y for triangular x, of which only that triangle is read (`unit`: ones on its diagonal).",
    _UPPER,
    Attr("unit", "bool"),
    arity=2,
)
LU = _host(
    "lu",
    _of_one("lu", False, lambda lead, m, n, attrs: (*lead, m + 1, n)),
    lapack.lu,
    gradients.lu,
    "L (unit, below the diagonal) and U of x with rows exchanged, over a row with the pivots, from 1.",
)
PERMUTATION = _host(
    "permutation",
    _infer_permutation,
    lapack.permutation,
    None,
    "The order of `size` rows (i64) after exchanging row i with row pivots[i] - 1, for each i in turn.",
    Attr("size", "int"),
)
QR = _host(
    "qr",
    _of_one("qr", False, _qr_shape),
    lapack.qr,
    gradients.qr,
    "Orthogonal Q over upper triangular R, with zeros at their right; `complete`: Q is square.",
    Attr("complete", "bool"),
)
GEQRF = _host(
    "geqrf",
    _of_one("geqrf", False, lambda lead, m, n, attrs: (*lead, m + 1, n)),
    reflections.geqrf,
    None,
    "R and, below it, the vectors of Householder's reflections without their ones, over their scales.",
    why=_NONE,
)
LDL = _host(
    "ldl",
    _of_one("ldl", True, lambda lead, m, n, attrs: (*lead, n + 2, n)),
    reflections.ldl,
    None,
    "D and, below it, L of symmetric x = L D L^T, over the pivots (from 1, negative for blocks of two), over a row "
    "that begins with the number of the first zero block (0: none); the lower triangle of x is read.",
    why=_NONE,
)
LDL_SOLVE = _host(
    "ldl_solve",
    _infer_ldl_solve,
    reflections.ldl_solve,
    None,
    "The matrix X with L D L^T X = z, for the factors x and pivots y (i32) of an `ldl`.",
    arity=3,
    why=_NONE,
)
SVD = _host(
    "svd",
    _of_one("svd", False, _full),
    lapack.svd,
    gradients.svd,
    "U over the singular values (descending) over V, with zeros at their right; `full`: U and V are square.",
    Attr("full", "bool"),
)
SVDVALS = _host(
    "svdvals",
    _of_one("svdvals", False, lambda lead, m, n, attrs: (*lead, min(m, n))),
    lapack.svdvals,
    gradients.svdvals,
    "The singular values, descending.",
)
EIGH = _host(
    "eigh",
    _of_one("eigh", True, lambda lead, m, n, attrs: (*lead, n + 1, n)),
    lapack.eigh,
    gradients.eigh,
    "The eigenvectors, as columns, of symmetric x over the eigenvalues (ascending); one triangle of x is read.",
    _UPPER,
)
EIGVALSH = _host(
    "eigvalsh",
    _of_one("eigvalsh", True, lambda lead, m, n, attrs: (*lead, n)),
    lapack.eigvalsh,
    gradients.eigvalsh,
    "The eigenvalues of symmetric x, ascending; one triangle of x is read.",
    _UPPER,
)
PSEUDO_INVERSE = _host(
    "pseudo_inverse",
    _infer_pseudo_inverse,
    lapack.pseudo_inverse,
    gradients.pseudo_inverse,
    "The inverse on the singular vectors whose singular value is above y; `hermitian`: x is symmetric.",
    Attr("hermitian", "bool"),
    arity=2,
)
DET = _host(
    "det",
    _of_one("det", True, lambda lead, m, n, attrs: lead),
    lapack.det,
    gradients.det,
    "The determinant.",
)
COFACTORS = _host(
    "cofactors",
    _of_one("cofactors", True, lambda lead, m, n, attrs: (*lead, m, n)),
    lapack.cofactors,
    gradients.cofactors,
    "The gradient of the determinant; its own gradient wants an inverse.",
)
SLOGDET = _host(
    "slogdet",
    _of_one("slogdet", True, lambda lead, m, n, attrs: (*lead, 2)),
    lapack.slogdet,
    gradients.slogdet,
    "The sign of the determinant and the logarithm of its size.",
)
MATRIX_EXP = _host(
    "matrix_exp",
    _of_one("matrix_exp", True, lambda lead, m, n, attrs: (*lead, m, n)),
    lapack.matrix_exp,
    gradients.matrix_exp,
    "The matrix exponential.",
)
