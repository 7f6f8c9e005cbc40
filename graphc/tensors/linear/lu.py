"""The LU factorisation with PyTorch's names, and what is made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, LinAlgError, ShapeError, UsageError
from graphc.ir.builder import Builder
from graphc.ir.matrices import block, columns_of, diagonal, nothing, on_diagonal, rows_of, transpose, tril, triu
from graphc.ir.node import Node
from graphc.ir.packed import last_row, row_order, top
from graphc.ir.types import i32, u8
from graphc.recording import current
from graphc.storage import Value
from graphc.tensors import creation, results
from graphc.tensors.core import TensorBase, read, record, record_many
from graphc.tensors.linear.checks import fitting, need_matrices, raise_later, same_dtype, spread
from graphc.tensors.out import out_form

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def _need_pivot(pivot: bool) -> None:
    if not pivot:
        raise UsageError("linalg.lu_factor: LU without pivoting is not implemented on the CPU")


def _pivots(b: Builder, packed: Node, m: int, n: int) -> Node:
    row = b.cast(b.apply("detach", (last_row(b, packed),)), i32)
    lead, k = row.shape[:-1], min(m, n)
    return row if k == n else b.slice(row, (0,) * row.type.rank, (*lead, k), (1,) * row.type.rank)


def _zero_pivot(b: Builder, factors: Node) -> Node:
    """The number of the first zero on U's diagonal, 0 for none; i32."""
    lead = factors.shape[:-2]
    if not min(factors.shape[-2:]):
        return b.constant(0, factors.type.with_shape(lead).with_dtype(i32))
    pivots = diagonal(b, b.apply("detach", (factors,)))
    zero = b.cast(b.apply("eq", (pivots, b.zeros_like(pivots))), u8)
    axis = (zero.type.rank - 1,)
    first = b.add(b.argmax(zero, axis, i32), 1)
    some = b.apply("reduce_max", (zero,), {"axes": axis, "ties": "even"})
    return b.select(b.apply("ne", (some, b.zeros_like(some))), first, 0)


def _factor(a: Tensor, pivot: bool) -> tuple[Tensor, Tensor, Tensor]:
    need_matrices("linalg.lu_factor", a, kernel="lu_cpu", any_dtype=True)
    _need_pivot(pivot)
    m, n = a._type.shape[-2:]

    def emit(b: Builder, x: Node) -> list[Node]:
        packed = b.apply("lu", (x,))
        factors = top(b, packed)
        return [factors, _pivots(b, packed, m, n), _zero_pivot(b, factors)]

    factors, pivots, info = record_many("LinalgLuFactorExBackward0", (a,), emit)
    return factors, pivots, info


@out_form
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """L (without its ones) and U in one matrix, the pivots (int32, from 1), and the number of the first zero pivot."""
    factors, pivots, info = _factor(A, pivot)
    if check_errors:
        _check_pivots(info, "torch.linalg.lu_factor_ex")
    return results.linalg_lu_factor_ex(factors, pivots, info)


def _check_pivots(info: Tensor, name: str) -> None:
    raise_later(
        info,
        name,
        "U[{0},{0}] is zero and using it on lu_solve would result in a division by zero. If you still want to perform "
        "the factorization, consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)",
    )


@out_form
def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """As `lu_factor_ex`, but LinAlgError for a zero pivot, once a value is looked at."""
    factors, pivots, info = _factor(A, pivot)
    _check_pivots(info, "torch.linalg.lu_factor")
    return results.linalg_lu_factor(factors, pivots)


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """The factors in one matrix and the pivots; with `get_infos`, also the numbers of zero pivots."""
    factors, pivots, info = _factor(A, pivot)
    return results.linalg_lu_factor_ex(factors, pivots, info) if get_infos else (factors, pivots)


def _lower(b: Builder, factors: Node) -> Node:
    m, n = factors.shape[-2:]
    square = tril(b, block(b, factors, (0, m), (0, min(m, n))), -1)
    return b.add(square, on_diagonal(b, b.constant(1, square.type)))


def _upper(b: Builder, factors: Node) -> Node:
    m, n = factors.shape[-2:]
    return triu(b, block(b, factors, (0, min(m, n)), (0, n)))


def _permutation_matrix(b: Builder, order: Node, like: Node) -> Node:
    """P with P[order[i], i] = 1."""
    m = order.shape[-1]
    wide = rows_of(b, order, m)
    rows = b.iota(wide.type.rank - 2, wide.type)
    return b.cast(b.apply("eq", (rows, wide)), like.dtype)


@out_form
def linalg_lu_(A: Tensor, *, pivot: bool = True) -> Any:
    """A = P L U: a permutation, a lower triangle with ones on its diagonal, an upper triangle."""
    need_matrices("linalg.lu", A, kernel="lu_cpu", any_dtype=True)
    _need_pivot(pivot)
    m = A._type.shape[-2]

    def permutation(b: Builder, x: Node) -> Node:
        return _permutation_matrix(b, row_order(b, b.apply("lu", (x,)), m), x)

    def factors(b: Builder, x: Node) -> list[Node]:
        made = top(b, b.apply("lu", (x,)))
        return [_lower(b, made), _upper(b, made)]

    order = record("NotDifferentiable", (A.detach(),), permutation)
    return results.linalg_lu(order, *record_many("LinalgLuBackward0", (A,), factors))


@out_form
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """The matrices P, L and U from what `lu_factor` gives; what is not asked for is empty."""
    if LU_pivots._type.dtype is not i32:
        raise DTypeError(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype.\nNote: this "
            "function is intended to be used with the output produced by torch.linalg.lu_factor"
        )
    m = LU_data._type.shape[-2]
    p = creation.empty(0, dtype=LU_data.dtype, device=LU_data.device)

    def parts(b: Builder, x: Node) -> list[Node]:
        return [_lower(b, x), _upper(b, x)] if unpack_data else [nothing(b, x)] * 2

    lower, upper = record_many("LuUnpackBackward0", (LU_data,), parts)
    if unpack_pivots:
        text = "pivots passed to lu_unpack must be between 1 and LU.size(-2) inclusive."
        _check_range(LU_pivots, m, f"{text}Did you properly pass the result of lu_factor?")

        def emit(b: Builder, x: Node, pivots: Node) -> Node:
            return _permutation_matrix(b, b.apply("permutation", (pivots,), {"size": m}), x)

        p = record("NotDifferentiable", (LU_data.detach(), LU_pivots), emit)
    return results.lu_unpack(p, lower, upper)


def _check_range(pivots: Tensor, size: int, text: str) -> None:
    """RuntimeError at the next flush when a pivot is outside 1 to `size`."""
    if not pivots._type.size:
        return
    recorder = current()
    with recorder.lock:
        b = recorder.begin()
        node, keep = read(recorder, pivots, False)
        low = b.apply("lt", (node, b.constant(1, node.type)))
        high = b.apply("gt", (node, b.constant(size, node.type)))
        wrong = b.apply("bitwise_or", (low, high))
        axes = tuple(range(wrong.type.rank))
        flag = b.apply("reduce_max", (wrong,), {"axes": axes, "ties": "even"})
        recorder.check(flag, Value(flag, (keep,)), LinAlgError(text))


def _solved(b: Builder, factors: Node, pivots: Node, y: Node, transposed: bool) -> Node:
    """X with A X = y (A^T X = y), where A has these factors."""
    n, columns = y.shape[-2:]
    axis: dict[str, Any] = {"axis": y.type.rank - 2}
    order = b.apply("permutation", (pivots,), {"size": n})
    if not transposed:
        y = b.apply("take_along", (y, columns_of(b, order, columns)), axis)
        y = b.apply("solve_triangular", (factors, y), {"upper": False, "unit": True})
        return b.apply("solve_triangular", (factors, y), {"upper": True, "unit": False})
    turned = transpose(b, factors)
    y = b.apply("solve_triangular", (turned, y), {"upper": False, "unit": False})
    y = b.apply("solve_triangular", (turned, y), {"upper": True, "unit": True})
    places = b.apply("argsort", (order,), {"axis": order.type.rank - 1, "descending": False})
    return b.apply("take_along", (y, columns_of(b, places, columns)), axis)


@out_form
def linalg_lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """X with A X = B (X A = B unless `left`), for the A that `lu_factor` gave; `adjoint`: for its transpose."""
    name = "linalg.lu_solve"
    for a, argument in ((LU, "LU"), (pivots, "pivots"), (B, "B")):
        if not isinstance(a, TensorBase):
            raise KindError(f"linalg_lu_solve(): argument '{argument}' must be Tensor, not {type(a).__name__}")
    need_matrices(name, LU, square=True, kernel="lu_solve_cpu")
    if pivots._type.dtype is not i32:
        raise DTypeError(f"{name}: pivots should be a Tensor of scalar type torch.int32")
    same_dtype(name, LU, B)
    n = LU._type.shape[-1]
    if B.ndim < 2:
        raise ShapeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    lead = fitting(name, LU._type.shape, B._type.shape, left)
    if pivots._type.shape[-1:] != (n,):
        raise ShapeError(f"{name}: Number of pivots per batch should be same as the dimension of the matrix")
    _check_range(
        pivots,
        n,
        "Pivots given to lu_solve must all be smaller or equal to LU.size(-2). Did you properly pass the result of "
        "lu_factor?",
    )

    def emit(b: Builder, factors: Node, order: Node, y: Node) -> Node:
        factors, y = spread(b, factors, lead), spread(b, y, lead)
        order = b.broadcast(order, (*lead, n))
        if left:
            return _solved(b, factors, order, y, adjoint)
        return transpose(b, _solved(b, factors, order, transpose(b, y), not adjoint))

    return record("LinalgLuSolveBackward0", (LU, pivots, B), emit)


@out_form
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = b, for the A that `lu_factor` gave."""
    return linalg_lu_solve(LU_data, LU_pivots, b)
