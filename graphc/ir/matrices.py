"""Matrices in the last two dimensions, as nodes: products, transposes, triangles, diagonals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.types import TensorType, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder


def matmul(b: Builder, x: Node, y: Node) -> Node:
    """Products of matrices; the leading dimensions of both are the same."""
    lead = "".join(f"b{i} " for i in range(x.type.rank - 2))
    return b.contract(x, y, f"{lead}m k, {lead}k n -> {lead}m n")


def transpose(b: Builder, x: Node) -> Node:
    """The last two dimensions exchanged."""
    rank = x.type.rank
    return b.permute(x, (*range(rank - 2), rank - 1, rank - 2))


def block(b: Builder, x: Node, rows: tuple[int, int], columns: tuple[int, int]) -> Node:
    """Rows and columns from the first number up to, not including, the second."""
    lead = x.shape[:-2]
    zeros, ones = (0,) * len(lead), (1,) * (len(lead) + 2)
    size = (*lead, rows[1] - rows[0], columns[1] - columns[0])
    if size == x.shape:
        return x
    start = zeros + ((0, 0) if 0 in size else (rows[0], columns[0]))
    return b.slice(x, start, size, ones)


def padded(b: Builder, x: Node, rows: int, columns: int) -> Node:
    """`x` in the upper left corner of matrices of zeros."""
    lead = (0,) * (x.type.rank - 2)
    return b.pad(x, (*lead, 0, 0), (*lead, rows - x.shape[-2], columns - x.shape[-1]))


def _offsets(b: Builder, type: TensorType) -> tuple[Node, Node]:
    whole = type.with_dtype(i64)
    return b.iota(type.rank - 2, whole), b.iota(type.rank - 1, whole)


def tril(b: Builder, x: Node, diagonal: int = 0) -> Node:
    """Zeros where the column is more than `diagonal` above the row."""
    rows, columns = _offsets(b, x.type)
    return b.select(b.apply("le", (columns, b.add(rows, diagonal))), x, b.zeros_like(x))


def triu(b: Builder, x: Node, diagonal: int = 0) -> Node:
    """Zeros where the column is less than `diagonal` above the row."""
    rows, columns = _offsets(b, x.type)
    return b.select(b.apply("ge", (columns, b.add(rows, diagonal))), x, b.zeros_like(x))


def on_diagonal(b: Builder, x: Node) -> Node:
    """The matrices' own diagonals, zeros elsewhere."""
    rows, columns = _offsets(b, x.type)
    return b.select(b.apply("eq", (rows, columns)), x, b.zeros_like(x))


def eye(b: Builder, type: TensorType) -> Node:
    """Ones on the diagonal."""
    return on_diagonal(b, b.constant(1, type))


def diagonal(b: Builder, x: Node) -> Node:
    """The elements on the diagonals, as the last dimension."""
    n = min(x.shape[-2:])
    return b.reduce_sum(on_diagonal(b, block(b, x, (0, n), (0, n))), (x.type.rank - 1,))


def diagonal_matrix(b: Builder, v: Node) -> Node:
    """Matrices with the last dimension of `v` on the diagonal."""
    return on_diagonal(b, rows_of(b, v, v.shape[-1]))


def rows_of(b: Builder, v: Node, count: int) -> Node:
    """`count` rows, each the last dimension of `v`: multiplies columns."""
    lead, n = v.shape[:-1], v.shape[-1]
    return b.broadcast(b.reshape(v, (*lead, 1, n)), (*lead, count, n))


def columns_of(b: Builder, v: Node, count: int) -> Node:
    """`count` columns, each the last dimension of `v`: multiplies rows."""
    lead, n = v.shape[:-1], v.shape[-1]
    return b.broadcast(b.reshape(v, (*lead, n, 1)), (*lead, n, count))


def nothing(b: Builder, x: Node) -> Node:
    """A vector without elements, cut out of x."""
    rank = x.type.rank
    return b.reshape(b.slice(x, (0,) * rank, (0,) * rank, (1,) * rank), (0,))
