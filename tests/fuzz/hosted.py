"""Bounds of the operators that run on the host, and matrices whose factorisations are well determined.

A tame matrix is twice the identity plus a part whose rows add up to at most 1/2: its singular values are in [3/2, 5/2],
no step of an elimination exchanges rows, and no result is far from its oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir import Builder, Node, TensorType
from graphc.ir.types import i32
from tests.fuzz.interval import Bound, need, rounded

LARGEST_MATRIX = 5
ROUNDINGS = 256  # of a step with matrices of at most 5 rows
# How large the elements of results are for tame matrices (and right sides of size 1), and how often an error of the
# matrix counts in them.
_SIZES = {
    "cholesky": 6.0, "inverse": 6.0, "lu": 6.0, "qr": 6.0, "svdvals": 3.0, "eigvalsh": 3.0, "pseudo_inverse": 6.0,
    "det": 120.0, "cofactors": 60.0, "slogdet": 6.0, "matrix_exp": 20.0,
}  # fmt: skip
MATRIX_OPERATORS = (*_SIZES, "solve", "solve_triangular")


def _twice_one(b: Builder, type: TensorType) -> Node:
    index = type.with_dtype(i32)
    same = b.elementwise("eq", b.iota(type.rank - 2, index), b.iota(type.rank - 1, index))
    return b.mul(b.cast(same, type.dtype), 2.0)


def tame_matrix(b: Builder, x: Node, symmetric: bool) -> Node:
    """A tame matrix from any square one, NaN and large elements replaced."""
    small = b.elementwise("le", b.elementwise("abs", x), 2.0)
    part = b.mul(b.select(small, x, 0.5), 0.125 / x.shape[-1])
    if symmetric:
        perm = (*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2)
        part = b.add(part, b.permute(part, perm))
    return b.add(part, _twice_one(b, x.type))


def _is_tame(node: Node) -> bool:
    """Whether `node` has the form that `tame_matrix` gives."""
    if node.op != "add":
        return False
    part, twice = node.inputs
    part = part.inputs[0] if part.op == "add" else part
    if part.op != "mul" or twice.op != "mul" or part.inputs[0].op != "select" or twice.inputs[0].op != "cast":
        return False
    same = twice.inputs[0].inputs[0]
    return same.op == "eq" and {i.op for i in same.inputs} == {"iota"} and part.inputs[0].inputs[0].op == "le"


def host_bound(node: Node, operands: Sequence[Bound]) -> Bound | None:
    """The bound of an operator that runs on the host; None for others. Raises Rejected."""
    rule = _RULES.get(node.op)
    if rule is not None:
        return rule(node, operands)
    if node.op not in MATRIX_OPERATORS:
        return None
    matrix = node.inputs[0]
    need(_is_tame(matrix) and matrix.shape[-1] <= LARGEST_MATRIX)
    size = 6.0 + operands[1].most if node.op.startswith("solve") else _SIZES[node.op]
    given = operands[1].error if node.op.startswith("solve") else 0.0
    error = 8 * matrix.shape[-1] * (size * operands[0].error + given) + rounded(node.dtype, ROUNDINGS, size)
    return Bound(-size, size, error)


def _exact(*operands: Bound) -> None:
    need(all(operand.error == 0 for operand in operands))


def _permutation(node: Node, operands: Sequence[Bound]) -> Bound:
    return Bound(0, max(node.integer("size") - 1, 0))


def _poisson(node: Node, operands: Sequence[Bound]) -> Bound:
    """More than 64 has no chance."""
    _exact(*operands)
    need(operands[1].lo >= 0 and operands[1].hi <= 4)
    return Bound(0, 64)


def _binomial(node: Node, operands: Sequence[Bound]) -> Bound:
    _exact(*operands)
    need(operands[1].lo >= 0 and operands[1].hi <= 64)
    return Bound(0, operands[1].hi)


def _ctc_loss(node: Node, operands: Sequence[Bound]) -> Bound:
    """A sum of at most 9 states a time, whose logarithm is below 3."""
    times, x = node.inputs[0].shape[0], operands[0]
    size = times * (x.most + 3.0)
    return Bound(-size, size, times * x.error + rounded(node.dtype, ROUNDINGS, size))


def _ctc_loss_slope(node: Node, operands: Sequence[Bound]) -> Bound:
    times, x = node.inputs[0].shape[0], operands[0]
    return Bound(-1.0, 0.0, 4 * times * x.error + rounded(node.dtype, ROUNDINGS, 1.0))


_RULES: dict[str, Callable[[Node, Sequence[Bound]], Bound]] = {
    "permutation": _permutation,
    "random_poisson": _poisson,
    "random_binomial": _binomial,
    "ctc_loss": _ctc_loss,
    "ctc_loss_slope": _ctc_loss_slope,
}
