"""Small matrices: operators of linear algebra that run on the host have kernels for them."""

from __future__ import annotations

from graphc.ir.node import Node

MOST_ROWS = 8  # of the matrices: a kernel holds one, or one in each lane, in registers
MOST_COLUMNS = 16  # of right sides

ELIMINATIONS = frozenset({"cholesky", "det", "inverse", "slogdet", "solve", "solve_triangular"})


def has_kernel(node: Node) -> bool:
    """Whether a kernel of the CPU computes `node`, which otherwise runs on the host."""
    if node.op not in ELIMINATIONS or node.type.device != "cpu" or not all(x.type.size for x in (node, *node.inputs)):
        return False
    return node.inputs[0].shape[-1] <= MOST_ROWS and node.inputs[-1].shape[-1] <= MOST_COLUMNS
