"""Small matrices: operators of linear algebra that run on the host have kernels for them."""

from __future__ import annotations

from graphc.ir.node import Node

MOST_ROWS = 8  # of the matrices: a kernel holds one, or one in each lane, in registers
MOST_COLUMNS = 16  # of right sides
MOST_BYTES = 704  # of a matrix and its right sides on a GPU: with more, threads run out of registers

ELIMINATIONS = frozenset({"cholesky", "det", "inverse", "slogdet", "solve", "solve_triangular"})


def has_kernel(node: Node, on_gpu: bool = False) -> bool:
    """Whether a kernel computes `node`, which otherwise runs on the host. The graph of a program for a GPU does not say
    that it is `on_gpu`.
    """
    if node.op not in ELIMINATIONS or not all(x.type.size for x in (node, *node.inputs)):
        return False
    rows, columns = node.inputs[0].shape[-1], node.inputs[-1].shape[-1]
    if (on_gpu or node.type.device != "cpu") and rows * (rows + columns) * node.dtype.itemsize > MOST_BYTES:
        return False
    return rows <= MOST_ROWS and columns <= MOST_COLUMNS
