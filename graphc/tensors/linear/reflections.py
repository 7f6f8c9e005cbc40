"""Householder's reflections as LAPACK packs them, L D L^T of symmetric matrices, and decompositions of low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, InputError, RangeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.matrices import block, transpose
from graphc.ir.node import Node
from graphc.ir.packed import last_row, top
from graphc.ir.types import broadcast_shapes, f32, f64, i32, i64
from graphc.tensors import results
from graphc.tensors.calling import not_implemented
from graphc.tensors.core import record, record_many
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.linear.checks import fact, need_matrices, raise_later, spread
from graphc.tensors.linear.factorisations import eigh, linalg_cholesky, linalg_qr_, linalg_svd_
from graphc.tensors.linear.solving import reflected, solve_triangular
from graphc.tensors.out import out_form
from graphc.tensors.products import matmul, name_of
from graphc.tensors.rearranging import flip
from graphc.tensors.reductions import mean
from graphc.tensors.sampling import randn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor

# reflections


@out_form
def geqrf(input: Tensor) -> Any:
    """The QR factorisation as LAPACK packs it: R and, below its diagonal, the vectors of the reflections without their
    ones; and their scales. For `orgqr` and `ormqr`.
    """
    name = "torch.geqrf"
    if input.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    if input._type.dtype not in (f32, f64):
        raise not_implemented("geqrf_cpu", input._type.dtype)
    k = min(input._type.shape[-2:])

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("geqrf", (x,))
        scales = last_row(b, packed)
        rank = scales.type.rank
        return [top(b, packed), b.slice(scales, (0,) * rank, (*scales.shape[:-1], k), (1,) * rank)]

    return results.geqrf(*record_many("GeqrfBackward0", (input,), emit))


def _check_reflections(input: Tensor, tau: Tensor, other: Tensor, left: bool) -> None:
    name = "torch.ormqr"
    for what, tensor in (("input", input), ("other", other)):
        if tensor.ndim < 2:
            raise ShapeError(f"{name}: {what} must have at least 2 dimensions.")
    x, t, y = input._type.shape, tau._type.shape, other._type.shape
    side = "-2" if left else "-1"
    rows = y[int(side)]
    if x[-1] < t[-1]:
        raise ShapeError(f"{name}: tau.shape[-1] must be equal to min(other.shape[{side}], input.shape[-1])")
    if rows != x[-2]:
        raise ShapeError(f"{name}: other.shape[{side}] must be equal to input.shape[-2]")
    if t[-1] != min(rows, x[-1]):
        raise ShapeError(f"{name}: tau.shape[-1] must be equal to min(other.shape[{side}], input.shape[-1])")
    for what, tensor, rank in (("tau", tau, input.ndim - 1), ("other", other, input.ndim)):
        if tensor.ndim != rank:
            less = " plus one" if what == "tau" else ""
            raise ShapeError(
                f"{name}: Expected {what} to have the same number of dimensions as input{less}, but got {what}.ndim "
                f"equal to {tensor.ndim} and input.ndim is equal to {input.ndim}"
            )
        lead = tensor._type.shape[: input.ndim - 2]
        if lead != x[:-2]:
            raise ShapeError(f"{name}: Expected batch dimensions of {what} to be equal to input.shape[:-2], got {lead}")
        if tensor._type.dtype is not input._type.dtype:
            raise DTypeError(
                f"{name}: Expected input and {what} to have the same dtype, but input has dtype {name_of(input)} and "
                f"{what} has dtype {name_of(tensor)}"
            )
    if input._type.dtype not in (f32, f64):
        raise not_implemented("ormqr_cpu", input._type.dtype)


@out_form
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """Q times a matrix (or the matrix times Q unless `left`), Q transposed on demand, for the Q whose reflections
    `geqrf` gave. Q itself is not made.
    """
    _check_reflections(input, tau, other, left)

    def emit(b: Builder, x: Node, t: Node, y: Node) -> Node:
        if left:
            return reflected(b, x, t, y, transpose)
        return _turned(b, reflected(b, x, t, _turned(b, y), not transpose))

    return record("OrmqrBackward0", (input, tau, other), emit)


_turned = transpose


# symmetric matrices


def _ldl(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    need_matrices("torch.linalg.ldl_factor_ex", A, square=True, kernel="ldl_factor_kernel_cpu")
    n = A._type.shape[-1]

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("ldl", (x,))
        upper = top(b, packed)
        pivots = b.cast(b.apply("detach", (last_row(b, upper),)), i32)
        return [block(b, upper, (0, n), (0, n)), pivots, fact(b, packed)]

    factors, pivots, info = record_many("NotImplemented", (A,), emit)
    return factors, pivots, info


@out_form
def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """A symmetric matrix, by its lower triangle, as L D L^T with blocks of size 1 and 2 in D (Bunch and Kaufman, 1977):
    both in one matrix, the pivots (int32, from 1, negative for blocks of 2), and the number of the first zero block.

    `hermitian` has no effect: numbers are real.
    """
    factors, pivots, info = _ldl(A)
    if check_errors:
        raise_later(info, "torch.linalg.ldl_factor_ex", _ZERO)
    return results.linalg_ldl_factor_ex(factors, pivots, info)


_ZERO = "The diagonal block {0} of D is zero, so the factorization cannot be used to solve equations."


@out_form
def ldl_factor(A: Tensor, *, hermitian: bool = False) -> Any:
    """As `ldl_factor_ex`, but LinAlgError for a block of zeros, once a value is looked at."""
    factors, pivots, info = _ldl(A)
    raise_later(info, "torch.linalg.ldl_factor", _ZERO)
    return results.linalg_ldl_factor(factors, pivots)


@out_form
def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, for the A that `ldl_factor` gave."""
    name = "torch.linalg.ldl_solve"
    need_matrices(name, LD, square=True, kernel="ldl_solve_cpu")
    factors, right = LD._type, B._type
    if B.ndim < 2:
        raise RangeError(
            f"Dimension out of range (expected to be in range of [-1, 0], but got -2): {name}: B is {right}"
        )
    if right.dtype is not factors.dtype:
        raise DTypeError(
            f"Expected b and A to have the same dtype, but found b of type {name_of(B)} and A of type {name_of(LD)} "
            "instead."
        )
    if pivots._type.shape != factors.shape[:-1]:
        raise ShapeError(
            f"{name}: Expected LD.shape[:-1] and pivots.shape to be the same, but got pivots with shape "
            f"{list(pivots._type.shape)} instead"
        )
    if pivots._type.dtype not in (i32, i64):
        raise DTypeError(f"{name}: Expected pivots to be integers. Got {name_of(pivots)}")
    if right.shape[-2] != factors.shape[-1]:
        raise ShapeError(
            f"Incompatible matrix sizes for {name}: each A matrix is {factors.shape[-1]} by {factors.shape[-1]} but "
            f"each b matrix is {right.shape[-2]} by {right.shape[-1]}"
        )
    lead = broadcast_shapes(factors.shape[:-2], right.shape[:-2])

    def emit(b: Builder, x: Node, p: Node, y: Node) -> Node:
        order = b.broadcast(b.cast(p, i32), (*lead, x.shape[-1]))
        return b.apply("ldl_solve", (spread(b, x, lead), order, spread(b, y, lead)))

    return record("NotImplemented", (LD, pivots, B), emit)


# low rank


@kinds_checked
def svd_lowrank(
    A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of the q largest singular values of A (of A - M), about: by products with random vectors, refined
    `niter` times (Halko, Martinsson and Tropp, 2009, algorithms 4.4 and 5.1).
    """
    rank, rounds = 6 if q is None else q, 2 if niter is None else niter
    x = A if M is None else A - M
    wide = x._type.shape[-2] < x._type.shape[-1]
    if wide:
        x = x.mT
    basis = linalg_qr_(matmul(x, randn(x._type.shape[-1], rank, dtype=x.dtype, device=x.device)))[0]
    for _ in range(rounds):
        basis = linalg_qr_(matmul(x.mT, basis))[0]
        basis = linalg_qr_(matmul(x, basis))[0]
    u, values, vh = linalg_svd_(matmul(basis.mT, x), full_matrices=False)
    u, v = matmul(basis, u), vh.mT
    return (v, values, u) if wide else (u, values, v)


@kinds_checked
def pca_lowrank(
    A: Tensor, q: int | None = None, center: bool = True, niter: int = 2
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Principal components: `svd_lowrank` of A with the mean of each column taken off (`center`)."""
    least = min(A._type.shape[-2:])
    wanted = min(6, least) if q is None else q
    if not 0 <= wanted <= least:
        raise InputError(f"q(={wanted}) must be non-negative integer and not greater than min(m, n)={least}")
    if niter < 0:
        raise InputError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(A, wanted, niter, mean(A, -2, keepdim=True) if center else None)


@kinds_checked
def lobpcg(
    A: Tensor,
    k: int | None = None,
    B: Tensor | None = None,
    X: Tensor | None = None,
    n: int | None = None,
    iK: Tensor | None = None,
    niter: int | None = None,
    tol: float | None = None,
    largest: bool | None = None,
    method: str | None = None,
    tracker: None = None,
    ortho_iparams: dict[str, int] | None = None,
    ortho_fparams: dict[str, float] | None = None,
    ortho_bparams: dict[str, bool] | None = None,
) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) eigenvalues of A x = E B x for symmetric A and positive definite B, and eigenvectors
    with x^T B x = 1.

    All eigenvalues are computed, to full precision, so nothing is iterated: `iK`, `niter`, `tol`, `method`, `tracker`,
    the parameters of orthogonalisation and the values of `X` have no effect; its width says k.
    """
    rows = A._type.shape[-2]
    count = (1 if X is None else X._type.shape[-1]) if k is None else k
    if rows < 3 * count:
        raise InputError(
            f"LOBPCG algorithm is not applicable when the number of A rows (={rows}) is smaller than 3 x the number of "
            f"requested eigenpairs (={count})"
        )
    if B is None:
        values, vectors = eigh(A)
    else:
        lower = linalg_cholesky(B)
        inner = solve_triangular(lower, solve_triangular(lower, A, upper=False).mT, upper=False)
        values, vectors = eigh(inner)
        vectors = solve_triangular(lower.mT, vectors, upper=True)
    if largest is None or largest:
        values, vectors = flip(values, (-1,)), flip(vectors, (-1,))
    return values[..., :count], vectors[..., :count]
