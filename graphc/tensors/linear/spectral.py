"""What singular values tell: pseudo-inverses, least squares, ranks, condition numbers, norms of matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dtypes
from graphc.errors import DTypeError, KindError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.matrices import nothing
from graphc.ir.node import Node
from graphc.ir.types import broadcast_shapes, f32, f64, i64
from graphc.promotion import promote_types
from graphc.tensors import creation, reductions, results, shaping
from graphc.tensors.core import TensorBase, record, wrap_dim
from graphc.tensors.linear.checks import need_matrices
from graphc.tensors.linear.factorisations import eigvalsh, svdvals
from graphc.tensors.linear.solving import inv_ex
from graphc.tensors.norms import nuclear, vector_norm
from graphc.tensors.operands import combine, is_number
from graphc.tensors.out import out_form
from graphc.tensors.products import name_of, product, product_node
from graphc.tensors.writing import type_name

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


# tolerances


def _sizes(a: Tensor, hermitian: bool) -> Tensor:
    """Singular values; of symmetric matrices the sizes of eigenvalues."""
    return eigvalsh(a).abs() if hermitian else svdvals(a)


def _tolerance(a: Tensor, sizes: Tensor, atol: Any, rtol: Any) -> Tensor:
    """max(atol, rtol * the largest singular value), one for each matrix; PyTorch's defaults."""
    lead = a._type.shape[:-2]
    if rtol is None:
        default = float(np.finfo(a._type.dtype.numpy).eps) * max(a._type.shape[-2:])
        if atol is None:
            rtol = default
        elif isinstance(atol, TensorBase):
            above: Any = atol > 0  # type: ignore[operator]
            rtol = above.logical_not().to(a.dtype) * default
        else:
            rtol = 0.0 if atol > 0 else default
    atol = 0.0 if atol is None else atol
    empty = not sizes._type.shape[-1]
    largest = creation.zeros(lead, dtype=a.dtype, device=a.device) if empty else reductions.amax(sizes, -1)
    operands = (largest, rtol, atol)
    shape = broadcast_shapes(lead, *(o._type.shape for o in operands[1:] if isinstance(o, TensorBase)))
    made = combine(
        "NotDifferentiable", operands, lambda b, s, r, t: b.apply("maximum", (b.mul(s, r), t)), a._type.dtype
    )
    return shaping.expand(made, *shape)


@out_form
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """The pseudo-inverse: singular values up to max(atol, rtol * the largest) count as 0 (`rcond` is `rtol`).

    The gradient holds where the rank does not change (Golub and Pereyra 1973).
    """
    if isinstance(rcond, bool):
        rcond, hermitian = None, rcond
    if A.ndim < 2 or A._type.dtype not in (f32, f64):
        raise DTypeError(
            f"linalg.pinv({name_of(A)}{{{list(A._type.shape)}}}): expected a tensor with 2 or more dimensions of "
            "float, double, cfloat or cdouble types"
        )
    if hermitian:
        need_matrices("linalg.eigh", A, square=True)
    still = A.detach()
    least = _tolerance(still, _sizes(still, hermitian), atol, rtol if rcond is None else rcond)
    attrs: dict[str, Any] = {"hermitian": hermitian}
    lead = least._type.shape

    def emit(b: Builder, x: Node, t: Node) -> Node:
        return b.apply("pseudo_inverse", (b.broadcast(x, (*lead, *x.shape[-2:])), t), attrs)

    return record("LinalgPinvBackward0", (A, least), emit)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """As `linalg.pinv`."""
    return pinv(input, rcond)


@out_form
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None) -> Tensor:
    """How many singular values are above max(atol, rtol * the largest); int64. `tol` is an absolute tolerance."""
    if isinstance(tol, bool):
        tol, hermitian = None, tol
    if A.ndim < 2:
        raise ShapeError("torch.linalg.matrix_rank: The input tensor input must have at least 2 dimensions.")
    if A._type.dtype not in (f32, f64):
        raise DTypeError("This function doesn't handle types other than float and double")
    still = A.detach()
    sizes = _sizes(still, hermitian)
    least = _tolerance(still, sizes, atol, rtol) if tol is None else _tolerance(still, sizes, tol, 0.0)

    def emit(b: Builder, s: Node, t: Node) -> Node:
        shape = (*t.shape, s.shape[-1])
        above = b.apply("gt", (b.broadcast(s, shape), b.broadcast(b.reshape(t, (*t.shape, 1)), shape)))
        return b.reduce_sum(b.cast(above, i64), (len(shape) - 1,))

    return record("NotDifferentiable", (sizes, least), emit)


_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@out_form
def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """The X of least norm with the least norm of A X - B; residuals, rank and singular values as far as PyTorch's
    `driver` ("gelsy" by default) gives them.
    """
    name = "torch.linalg.lstsq"
    if A.ndim < 2:
        raise ShapeError(f"{name}: input must have at least 2 dimensions.")
    if B.ndim < 1:
        raise ShapeError(f"{name}: other must have at least 1 dimension.")
    if A._type.dtype is not B._type.dtype:
        raise DTypeError(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype {name_of(A)} and other's "
            f"dtype {name_of(B)}"
        )
    if driver is not None and driver not in _DRIVERS:
        raise UsageError(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)")
    if A._type.dtype not in (f32, f64):
        raise DTypeError("This function doesn't handle types other than float and double")
    vector = A.ndim - 1 == B.ndim and A._type.shape[:-1] == B._type.shape
    right = shaping.unsqueeze(B, -1) if vector or B.ndim == 1 else B
    if A._type.shape[-2] != right._type.shape[-2]:
        raise ShapeError(f"{name}: input.size(-2) should match other.size(-2)")
    broadcast_shapes(A._type.shape[:-2], right._type.shape[:-2])
    m, n = A._type.shape[-2:]
    least = float(np.finfo(A._type.dtype.numpy).eps) * max(m, n) if rcond is None or rcond < 0 else rcond
    inverse = pinv(A, rtol=0.0 if driver == "gels" else least)
    solution = record("LinalgLstsqBackward0", (inverse, right), product_node)
    if vector or B.ndim == 1:
        solution = shaping.squeeze(solution, -1)
    values = creation.empty(0, dtype=A.dtype, device=A.device)
    rank: Any = creation.empty(0, dtype=dtypes.int64, device=A.device)
    if driver != "gels":
        rank = matrix_rank(A, rtol=least)
    # Where ranks are known, residuals are those of matrices of full rank.
    if m > n and (driver == "gels" or (driver in ("gelsd", "gelss") and bool((rank == n).all()))):
        rest = product(A, shaping.unsqueeze(solution, -1) if vector else solution) - right  # type: ignore[operator]
        residuals = reductions.sum(rest * rest, -2)
    else:
        residuals = record("LinalgLstsqBackward0", (inverse, right), lambda b, p, q: nothing(b, q))
    if driver in ("gelsd", "gelss"):
        values = svdvals(A.detach())
    return results.linalg_lstsq(solution, residuals, rank, values)


# norms


_MATRIX_NORMS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


@out_form
def linalg_vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The `ord`-norm of the elements over `dim`."""
    if not is_number(ord):
        raise KindError(f"linalg_vector_norm(): argument 'ord' (position 2) must be Number, not {type(ord).__name__}")
    return vector_norm(x, ord, dim, keepdim, dtype)


@out_form
def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A norm of the matrices in the two dimensions `dim`: "fro", "nuc", 1, -1, 2, -2, inf or -inf."""
    name = "linalg.matrix_norm"
    if A.ndim < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    given = A._type.dtype
    if not given.is_float:
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got {name_of(A)}")
    if isinstance(dim, int):
        raise KindError(f"linalg_matrix_norm(): argument 'dim' must be tuple of ints, not int; {name} wants two")
    if len(dim) != 2:
        raise ShapeError(f"{name}: dim must be a 2-tuple. Got {' '.join(map(str, dim))}")
    rows, columns = (wrap_dim(d, A.ndim) for d in dim)
    if rows == columns:
        raise ShapeError(f"{name}: dims must be different. Got ({rows}, {columns})")
    if ord not in _MATRIX_NORMS:
        raise UsageError(f"{name}: Order {ord} not supported.")
    if dtype is not None:
        wanted = dtypes.to_ir(dtype)
        if promote_types(given, wanted) is not wanted:
            raise DTypeError(
                f"{name}: the dtype of the input ({name_of(A)}) should be convertible without narrowing to the "
                f"specified dtype ({type_name(wanted)})"
            )
        A = A.to(dtype)
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim, None)
    if ord in ("nuc", 2, -2):
        return _by_singular_values(name, A, ord, rows, columns, keepdim)
    over, left = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = vector_norm(A, 1, over, keepdim, None)
    place = left if keepdim or left < over else left - 1
    return (reductions.amax if ord > 0 else reductions.amin)(sums, place, keepdim)


def _by_singular_values(name: str, a: Tensor, ord: Any, rows: int, columns: int, keepdim: bool) -> Tensor:
    if a._type.dtype not in (f32, f64):
        raise DTypeError(f"{name}: Low precision dtypes not supported. Got {name_of(a)}")
    if ord == "nuc":
        return nuclear(a, (rows, columns), keepdim, None)
    values = svdvals(shaping.movedim(a, (rows, columns), (-2, -1)))
    if ord == 2 and not values._type.shape[-1]:
        made = creation.zeros(values._type.shape[:-1], dtype=a.dtype, device=a.device)
    else:
        made = (reductions.amax if ord > 0 else reductions.amin)(values, -1)
    if keepdim:
        for place in sorted((rows, columns)):
            made = shaping.unsqueeze(made, place)
    return made


@out_form
def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A vector norm over one dimension (or all, when nothing is said), a matrix norm over two."""
    if isinstance(dim, int):
        dim = (dim,)
    if dim is not None and len(dim) not in (1, 2):
        if ord is not None or len(dim) > 2:
            raise ShapeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dim)}")
        dim = None
    if dim is None and ord is not None and A.ndim not in (1, 2):
        raise ShapeError(f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D.")
    if isinstance(ord, str):
        return matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    if ord is not None and (len(dim) if dim is not None else A.ndim) == 2:
        return matrix_norm(A, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype)


@out_form
def nuclear_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The sum of the singular values of the matrices in two dimensions, the last ones by default."""
    return matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim)


@out_form
def frobenius_norm(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """The root of the sum of squares over `dim`."""
    return vector_norm(input, 2, dim, keepdim, None)


# condition


_CONDITION_NORMS = (None, "fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


@out_form
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number in the norm `p`; with None or 2 the quotient of the extreme singular values. inf for
    matrices without an inverse.
    """
    if A.ndim < 2:
        raise ShapeError("linalg.cond: The input tensor must have at least 2 dimensions.")
    if p not in _CONDITION_NORMS:
        raise UsageError(f"linalg.cond got an invalid norm type: {p}")
    lead = A._type.shape[:-2]
    if not A._type.size:
        return creation.zeros(lead, dtype=A.dtype, device=A.device)
    if p is None or p in (2, -2):
        values = svdvals(A)
        last = values._type.shape[-1] - 1
        largest, least = shaping.select(values, -1, 0), shaping.select(values, -1, last)
        return largest / least if p != -2 else least / largest  # type: ignore[operator]
    need_matrices(f"linalg.cond(ord={p})", A, square=True)
    made, info = inv_ex(A)
    singular = info != 0

    def emit(b: Builder, none: Node, x: Node, y: Node) -> Node:
        return b.select(none, math.inf, b.mul(x, y))

    known: Any = shaping.unsqueeze(shaping.unsqueeze(singular, -1), -1)
    safe = combine("WhereBackward0", (made,), lambda b, c, x: b.select(c, 0.0, x), masks=(known,))
    return combine("MulBackward0", (matrix_norm(A, p), matrix_norm(safe, p)), emit, masks=(singular,))
