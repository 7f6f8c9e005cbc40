"""Factorisations with PyTorch's names: Cholesky, QR, singular values, eigenvalues of symmetric matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.matrices import block, transpose
from graphc.ir.node import Node
from graphc.ir.packed import last_row, top
from graphc.ir.types import i32
from graphc.tensors import creation, results
from graphc.tensors.core import record, record_many
from graphc.tensors.linear.checks import NOT_POSITIVE, fact, need_matrices, raise_later
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


_NOT_FINITE = "The algorithm failed to converge because the input matrix contained non-finite values."


# Cholesky


def _cholesky(name: str, grad_name: str, a: Tensor, upper: bool) -> tuple[Tensor, Tensor]:
    need_matrices(name, a, square=True, kernel="cholesky_cpu")

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("cholesky", (transpose(b, x) if upper else x,))
        factor = top(b, packed)
        return [transpose(b, factor) if upper else factor, fact(b, packed)]

    factor, info = record_many(grad_name, (a,), emit)
    return factor, info


@out_form
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """L with L L^T = A (or the upper U with U^T U = A), and the order of the first minor that is not positive."""
    factor, info = _cholesky("linalg.cholesky_ex", "LinalgCholeskyExBackward0", A, upper)
    if check_errors:
        raise_later(info, "linalg.cholesky_ex", NOT_POSITIVE)
    return results.linalg_cholesky_ex(factor, info)


@out_form
def linalg_cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with L L^T = A, for symmetric positive definite A; LinAlgError for others, once a value is looked at."""
    factor, info = _cholesky("linalg.cholesky", "LinalgCholeskyExBackward0", A, upper)
    raise_later(info, "linalg.cholesky", NOT_POSITIVE)
    return factor


@out_form
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """As `linalg.cholesky`."""
    factor, info = _cholesky("cholesky", "CholeskyBackward0", input, upper)
    raise_later(info, "cholesky", NOT_POSITIVE)
    return factor


# QR


def _qr(a: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    need_matrices("linalg.qr", a, kernel="geqrf_cpu")
    if mode not in ("reduced", "complete", "r"):
        raise UsageError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    m, n = a._type.shape[-2:]
    k = m if mode == "complete" else min(m, n)

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("qr", (x,), {"complete": mode == "complete"})
        return [block(b, packed, (0, m), (0, k)), block(b, packed, (m, m + k), (0, n))]

    q, r = record_many("LinalgQrBackward0", (a,), emit)
    return (creation.empty(0, dtype=a.dtype, device=a.device) if mode == "r" else q), r


@out_form
def linalg_qr_(A: Tensor, mode: str = "reduced") -> Any:
    """Q with orthonormal columns and upper triangular R, A = Q R; "complete" has a square Q, "r" no Q.

    There is no gradient for mode "complete" and more rows than columns.
    """
    return results.linalg_qr(*_qr(A, mode))


@out_form
def qr(input: Tensor, some: bool = True) -> Any:
    """As `linalg.qr`; `some`: the reduced form."""
    return results.qr(*_qr(input, "reduced" if some else "complete"))


# singular values


def _check_finite(values: Tensor) -> None:
    """LinAlgError when a matrix has NaN for its singular values."""

    def emit(b: Builder, s: Node) -> Node:
        if not s.shape[-1]:
            return b.constant(0, s.type.with_shape(s.shape[:-1]).with_dtype(i32))
        wrong = b.cast(b.apply("ne", (s, s)), i32)
        return b.apply("reduce_max", (wrong,), {"axes": (s.type.rank - 1,), "ties": "even"})

    raise_later(record("NotDifferentiable", (values,), emit), "linalg.svd", _NOT_FINITE)


def _svd(a: Tensor, full: bool) -> tuple[Tensor, Tensor, Tensor]:
    need_matrices("linalg.svd", a, kernel="svd_cpu")
    m, n = a._type.shape[-2:]
    k = min(m, n)
    rows, columns = (m, n) if full else (k, k)

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("svd", (x,), {"full": full})
        values = b.reshape(block(b, packed, (m, m + 1), (0, k)), (*x.shape[:-2], k))
        turned = transpose(b, block(b, packed, (m + 1, m + 1 + n), (0, columns)))
        return [block(b, packed, (0, m), (0, rows)), values, turned]

    u, s, vh = record_many("LinalgSvdBackward0", (a,), emit)
    _check_finite(s)
    return u, s, vh


def _no_driver(driver: object) -> None:
    if driver is not None:
        raise UsageError(
            "torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with cuSOLVER backend."
        )


@out_form
def linalg_svd_(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """A = U diag(S) Vh with S descending; U and Vh are square unless `full_matrices` is false.

    Gradients through U and Vh hold for functions that do not depend on the signs of the singular vectors.
    """
    _no_driver(driver)
    return results.linalg_svd(*_svd(A, full_matrices))


@out_form
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """As `linalg.svd`, with V instead of its transpose; without `compute_uv`, U and V are square zeros."""
    if not compute_uv:
        need_matrices("linalg.svd", input, kernel="svd_cpu")
        *lead, m, n = input._type.shape
        u, v = (creation.zeros(*lead, size, size, dtype=input.dtype, device=input.device) for size in (m, n))
        return results.svd(u, svdvals(input), v)
    u, s, vh = _svd(input, not some)
    return results.svd(u, s, record("TransposeBackward0", (vh,), transpose))


@out_form
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values, descending."""
    _no_driver(driver)
    need_matrices("linalg.svd", A, kernel="svd_cpu")
    values = record("LinalgSvdBackward0", (A,), lambda b, x: b.apply("svdvals", (x,)))
    _check_finite(values)
    return values


# eigenvalues


def _is_upper(a: Tensor, triangle: str) -> bool:
    need_matrices("linalg.eigh", a, square=True, kernel="linalg_eigh_cpu", any_dtype=True)
    if triangle.upper() not in ("L", "U"):
        raise UsageError(f"Expected UPLO argument to be 'L' or 'U', but got {triangle}")
    return triangle.upper() == "U"


@out_form
def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Eigenvalues, ascending, and eigenvectors, as columns, of symmetric A, of which one triangle is read.

    Gradients through eigenvectors hold for functions that do not depend on their signs.
    """
    upper = _is_upper(A, UPLO)

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("eigh", (x,), {"upper": upper})
        return [last_row(b, packed), top(b, packed)]

    return results.linalg_eigh(*record_many("LinalgEighBackward0", (A,), emit))


@out_form
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Eigenvalues of symmetric A, ascending; one triangle of A is read."""
    upper = _is_upper(A, UPLO)
    return record("LinalgEighBackward0", (A,), lambda b, x: b.apply("eigvalsh", (x,), {"upper": upper}))


def _no_complex(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"linalg.{name}: eigenvalues of general matrices are complex, and graphc has no complex dtypes; for symmetric "
        "matrices use linalg.eigh or linalg.eigvalsh"
    )


def eig(A: Tensor) -> Any:
    """Not available: its results are complex."""
    need_matrices("linalg.eig", A, square=True)
    raise _no_complex("eig")


def eigvals(A: Tensor) -> Any:
    """Not available: its results are complex."""
    need_matrices("linalg.eigvals", A, square=True)
    raise _no_complex("eigvals")
