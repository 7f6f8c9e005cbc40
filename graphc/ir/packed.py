"""Results of factorisations that are packed into one array: a matrix over a row of facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ir.matrices import block
from graphc.ir.node import Node
from graphc.ir.types import i32

if TYPE_CHECKING:
    from graphc.ir.builder import Builder


def top(b: Builder, packed: Node) -> Node:
    """The result without its last row."""
    rows, columns = packed.shape[-2:]
    return block(b, packed, (0, rows - 1), (0, columns))


def last_row(b: Builder, packed: Node) -> Node:
    """The last row, as the last dimension."""
    rows, columns = packed.shape[-2:]
    return b.reshape(block(b, packed, (rows - 1, rows), (0, columns)), (*packed.shape[:-2], columns))


def row_order(b: Builder, packed_lu: Node, m: int) -> Node:
    """The order of `m` rows (i64) by the pivots in the last row of an `lu`."""
    pivots = last_row(b, packed_lu)
    k = min(m, pivots.shape[-1])
    if k < pivots.shape[-1]:
        lead = pivots.shape[:-1]
        pivots = b.slice(pivots, (0,) * (len(lead) + 1), (*lead, k), (1,) * (len(lead) + 1))
    return b.apply("permutation", (b.cast(b.apply("detach", (pivots,)), i32),), {"size": m})
