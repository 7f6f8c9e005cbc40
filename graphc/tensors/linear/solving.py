"""Inverses, determinants and equations with PyTorch's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import KindError, ShapeError, UnsupportedError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.matrices import eye, matmul, transpose, tril, triu
from graphc.ir.node import Node
from graphc.ir.packed import top
from graphc.ir.types import f32, f64, i64
from graphc.tensors import results, shaping
from graphc.tensors.core import record, record_many
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.linear.checks import (
    SINGULAR,
    fact,
    fitting,
    need_matrices,
    raise_later,
    same_dtype,
    spread,
)
from graphc.tensors.out import out_form
from graphc.tensors.products import name_of, need_numbers, product_node

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


# inverses


def _inverse(name: str, a: Tensor) -> tuple[Tensor, Tensor]:
    need_matrices(name, a, square=True)

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("inverse", (x,))
        return [top(b, packed), fact(b, packed)]

    made, info = record_many("LinalgInvExBackward0", (a,), emit)
    return made, info


@out_form
def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """The inverse, NaN where there is none, and the number of the first zero pivot (int32, 0: none)."""
    made, info = _inverse("linalg.inv_ex", A)
    if check_errors:
        raise_later(info, "linalg.inv_ex", SINGULAR)
    return results.linalg_inv_ex(made, info)


@out_form
def inv(A: Tensor) -> Tensor:
    """The inverse; LinAlgError for a singular matrix, once a value is looked at."""
    made, info = _inverse("linalg.inv", A)
    raise_later(info, "linalg.inv", SINGULAR)
    return made


@out_form
def inverse(input: Tensor) -> Tensor:
    """As `linalg.inv`."""
    return inv(input)


@out_form
def matrix_power(A: Tensor, n: int) -> Tensor:
    """A multiplied n times; negative powers are those of the inverse, n = 0 gives ones on the diagonal."""
    name = "linalg.matrix_power"
    if not isinstance(n, int):
        raise KindError(f"linalg_matrix_power(): argument 'n' (position 2) must be int, not {type(n).__name__}")
    if A.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    rows, columns = A._type.shape[-2:]
    if rows != columns:
        raise ShapeError(f"{name}: A must be batches of square matrices, but they are {rows} by {columns} matrices")
    need_numbers("addmm_impl_cpu_", A)
    base, count = (inv(A), -n) if n < 0 else (A, n)
    if count == 1:
        return base if n < 0 else shaping.clone(base)

    def emit(b: Builder, x: Node) -> Node:
        if not count:
            return b.select(b.apply("eq", (x, x)), eye(b, x.type), eye(b, x.type))
        made: Node | None = None
        square, left = x, count
        while left:
            if left & 1:
                made = square if made is None else matmul(b, made, square)
            left >>= 1
            if left:
                square = matmul(b, square, square)
        assert made is not None
        return made

    name = "UnsafeViewBackward0" if A.ndim > 2 else "MmBackward0"
    return record(name if count else "CopyBackwards", (base,), emit)


# determinants


@out_form
def det(A: Tensor) -> Tensor:
    """The determinant. Its gradient exists for singular matrices too; the second one only for others."""
    need_matrices("linalg.det", A, square=True, kernel="lu_cpu")
    return record("LinalgDetBackward0", (A,), lambda b, x: b.apply("det", (x,)))


def _sign_and_log(b: Builder, x: Node) -> list[Node]:
    packed = b.apply("slogdet", (x,))
    rank = packed.type.rank
    size, step = (*packed.shape[:-1], 1), (1,) * rank
    parts = [b.slice(packed, (*(0,) * (rank - 1), i), size, step) for i in range(2)]
    return [b.reshape(part, packed.shape[:-1]) for part in parts]


@out_form
def linalg_slogdet_(A: Tensor) -> Any:
    """The sign of the determinant and the logarithm of its size."""
    need_matrices("linalg.slogdet", A, square=True, kernel="lu_cpu")
    return results.linalg_slogdet(*record_many("LinalgSlogdetBackward0", (A,), _sign_and_log))


@out_form
def slogdet(input: Tensor) -> Any:
    """As `linalg.slogdet`."""
    return results.slogdet(*linalg_slogdet_(input))


def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant: NaN where it is negative, -inf where it is 0."""
    need_matrices("logdet", input, square=True, kernel="lu_cpu")

    def emit(b: Builder, x: Node) -> Node:
        sign, log = _sign_and_log(b, x)
        return b.select(b.apply("lt", (sign, b.zeros_like(sign))), math.nan, log)

    return record("WhereBackward0", (input,), emit)


# equations


def _solve(name: str, a: Tensor, y: Tensor, left: bool) -> tuple[Tensor, Tensor]:
    need_matrices(name, a, square=True)
    same_dtype(name, a, y)
    vector = y.ndim == 1 or (a.ndim - 1 == y.ndim and y._type.shape == a._type.shape[:-1])
    right = (*y._type.shape, 1) if vector else y._type.shape
    lead = fitting(name, a._type.shape, right, left or vector)

    def emit(b: Builder, p: Node, q: Node) -> list[Node]:
        p, q = spread(b, p, lead), spread(b, b.reshape(q, right), lead)
        if not (left or vector):
            p, q = transpose(b, p), transpose(b, q)
        packed = b.apply("solve", (p, q))
        made = top(b, packed)
        if not (left or vector):
            made = transpose(b, made)
        return [b.reshape(made, made.shape[:-1]) if vector else made, fact(b, packed)]

    made, info = record_many("LinalgSolveExBackward0", (a, y), emit)
    return made, info


_UNSOLVED = "The solver failed because the input matrix is singular."


@out_form
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """X with A X = B (X A = B unless `left`), NaN where A is singular, and the number of its first zero pivot."""
    made, info = _solve("linalg.solve", A, B, left)
    if check_errors:
        raise_later(info, "torch.linalg.solve_ex", _UNSOLVED)
    return results.linalg_solve_ex(made, info)


@out_form
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (X A = B unless `left`); B may be vectors. LinAlgError for singular A, once a value is wanted."""
    made, info = _solve("linalg.solve", A, B, left)
    raise_later(info, "torch.linalg.solve", _UNSOLVED)
    return made


def _need_right_side(name: str, y: Tensor) -> None:
    if y.ndim < 2:
        raise ShapeError(f"{name}: The input tensor B must have at least 2 dimensions.")


@out_form
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """X with A X = B (X A = B unless `left`) for triangular A, of which only that triangle is read."""
    name = "linalg.solve_triangular"
    need_matrices(name, A, square=True, kernel="triangular_solve_cpu", any_dtype=True)
    _need_right_side(name, B)
    lead = fitting(name, A._type.shape, B._type.shape, left)
    dtype = A._type.dtype

    def emit(b: Builder, p: Node, q: Node) -> Node:
        return _substituted(b, spread(b, p, lead), spread(b, b.cast(q, dtype), lead), upper, left, unitriangular)

    return record("LinalgSolveTriangularBackward0", (A, B), emit)


def _substituted(b: Builder, p: Node, q: Node, upper: bool, left: bool, unit: bool) -> Node:
    if left:
        return b.apply("solve_triangular", (p, q), {"upper": upper, "unit": unit})
    attrs: dict[str, Any] = {"upper": not upper, "unit": unit}
    return transpose(b, b.apply("solve_triangular", (transpose(b, p), transpose(b, q)), attrs))


@out_form
def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """X with A X = b (A^T X = b with `transpose`) for triangular A, and a copy of A."""
    for name, tensor in (("b", b), ("A", A)):
        if tensor.ndim < 2:
            raise ShapeError(
                f"torch.triangular_solve: Expected {name} to have at least 2 dimensions, but it has {tensor.ndim} "
                "dimensions instead"
            )
    rows, right = A._type.shape[-2:], b._type.shape[-2:]
    if rows[1] != right[0]:
        raise ShapeError(
            f"Incompatible matrix sizes for triangular_solve: each A matrix is {rows[0]} by {rows[1]} but each b "
            f"matrix is {right[0]} by {right[1]}"
        )
    need_matrices("triangular_solve", A, square=True, kernel="triangular_solve_cpu", any_dtype=True)
    same_dtype("triangular_solve", A, b)
    lead = fitting("triangular_solve", A._type.shape, b._type.shape, True)

    def emit(builder: Builder, p: Node, q: Node) -> list[Node]:
        p, q = spread(builder, p, lead), spread(builder, q, lead)
        turned = _turned(builder, p) if transpose else p
        return [_substituted(builder, turned, q, upper != transpose, True, unitriangular), p]

    return results.triangular_solve(*record_many("TriangularSolveBackward0", (A, b), emit))


_turned = transpose


@out_form
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with L L^T X = B (U^T U X = B with `upper`)."""
    for name, tensor in (("b", B), ("u", L)):
        if tensor.ndim < 2:
            raise ShapeError(f"{name} should have at least 2 dimensions, but has {tensor.ndim} dimensions instead")
    n, m = L._type.shape[-1], B._type.shape[-2]
    if n != m:
        raise ShapeError(
            f"Incompatible matrix sizes for cholesky_solve: each A matrix is {n} by {n} but each b matrix is {m} by "
            f"{B._type.shape[-1]}"
        )
    need_matrices("cholesky_solve", L, square=True, kernel="cholesky_solve_cpu", any_dtype=True)
    same_dtype("cholesky_solve", L, B)
    lead = fitting("cholesky_solve", L._type.shape, B._type.shape, True)

    def emit(b: Builder, q: Node, p: Node) -> Node:
        q, p = spread(b, q, lead), spread(b, p, lead)
        lower = transpose(b, p) if upper else p
        inner = _substituted(b, lower, q, False, True, False)
        return _substituted(b, transpose(b, lower), inner, True, True, False)

    return record("CholeskySolveBackward0", (B, L), emit)


@out_form
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of L L^T (of U^T U with `upper`)."""
    need_matrices("cholesky_inverse", L, square=True, kernel="cholesky_inverse_out_cpu")

    def emit(b: Builder, p: Node) -> Node:
        lower = transpose(b, p) if upper else p
        inner = _substituted(b, lower, eye(b, p.type), False, True, False)
        return matmul(b, transpose(b, inner), inner)

    return record("CholeskyInverseBackward0", (L,), emit)


# tensors as matrices


@kinds_checked
def tensorinv(A: Tensor, ind: int = 2, *, out: Any = None) -> Tensor:
    """The inverse of A seen as a matrix of its first `ind` dimensions by the others."""
    if ind <= 0:
        raise UsageError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    shape = A._type.shape
    rows, columns = math.prod(shape[:ind]), math.prod(shape[ind:])
    if rows != columns:
        raise ShapeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
            f"{columns} != {rows}"
        )
    made = inv(shaping.reshape(A, rows, columns))
    made = shaping.reshape(made, *shape[ind:], *shape[:ind])
    return made if out is None else out.copy_(made)


@out_form
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; `dims` of A are moved to its end first."""
    if dims is not None:
        A = shaping.movedim(A, tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    rest = A._type.shape[B.ndim :]
    if math.prod(rest) != B._type.size:
        raise ShapeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {math.prod(rest)} != {B._type.size}"
        )
    size = math.prod(rest)
    return shaping.reshape(solve(shaping.reshape(A, size, size), shaping.reshape(B, size)), *rest)


# functions of matrices


@kinds_checked
def matrix_exp(A: Tensor) -> Tensor:
    """The matrix exponential, by scaling and squaring."""
    name = "linalg.matrix_exp"
    need_matrices(name, A if A._type.dtype.is_float is False or A._type.dtype in (f32, f64) else A.float(), square=True)
    dtype = A._type.dtype

    def emit(b: Builder, x: Node) -> Node:
        return b.cast(b.apply("matrix_exp", (x if dtype is f64 else b.cast(x, f32),)), dtype)

    return record("LinalgMatrixExpBackward0", (A,), emit)


@out_form
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """First columns of the product of reflections 1 - tau[i] v v^T; v is column i of A below the diagonal, 1 on it."""
    name = "torch.linalg.householder_product"
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    m, n = A._type.shape[-2:]
    k = tau._type.shape[-1]
    if m < n:
        raise ShapeError(f"{name}: input.shape[-2] must be greater than or equal to input.shape[-1]")
    if n < k:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    if tau._type.shape[:-1] != A._type.shape[:-2]:
        raise ShapeError(
            f"{name}: Expected batch dimensions of tau to be equal to input.shape[:-2], but got "
            f"{list(tau._type.shape[:-1])}"
        )
    if A._type.dtype is not tau._type.dtype:
        raise UnsupportedError(f"{name}: tau of dtype {name_of(tau)} for input of dtype {name_of(A)}; convert one")
    need_matrices(name, A, kernel="orgqr_cpu", any_dtype=True)

    return record("LinalgHouseholderProductBackward0", (A, tau), lambda b, x, t: reflected(b, x, t, eye(b, x.type)))


def reflected(b: Builder, x: Node, t: Node, made: Node, reverse: bool = False) -> Node:
    """The product of the reflections of `x` with scales `t`, in order or in reverse, times the matrices `made`."""
    vectors = tril(b, x, -1)
    vectors = b.add(vectors, triu(b, tril(b, b.constant(1, x.type))))
    rank, count = x.type.rank, t.shape[-1]
    for i in range(count) if reverse else reversed(range(count)):
        start = (*(0,) * (rank - 1), i)
        v = b.slice(vectors, start, (*x.shape[:-1], 1), (1,) * rank)
        scale = b.slice(t, start[1:], (*t.shape[:-1], 1), (1,) * (rank - 1))
        row = matmul(b, transpose(b, v), made)
        scaled = b.mul(row, b.broadcast(b.reshape(scale, (*scale.shape, 1)), row.shape))
        made = b.sub(made, product_node(b, v, scaled))
    return made


orgqr = householder_product


def linalg_vander(x: Tensor, N: int | None = None) -> Tensor:
    """Columns of powers 0 to N - 1 of the elements of x; those of integers are int64."""
    count = x._type.shape[-1] if N is None and x.ndim else N if N is not None else 0
    if count <= 1:
        raise UsageError("N must be greater than 1.")
    if x._type.dtype.kind == "bool":
        raise UsageError("linalg.vander supports floating point, complex, and integer tensors, but got Bool")
    return record("CatBackward0", (x,), lambda b, v: _powers(b, v, count))


def _powers(b: Builder, v: Node, count: int) -> Node:
    v = b.cast(b.reshape(v, v.shape or (1,)), v.dtype if v.dtype.is_float else i64)
    powers = [b.constant(1, v.type), v]
    while len(powers) < count:
        powers.append(b.mul(powers[-1], v))
    return b.concat(tuple(b.reshape(p, (*v.shape, 1)) for p in powers), v.type.rank)
