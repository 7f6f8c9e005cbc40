"""What single values show of others: facts that the passes which place values in memory share."""

from __future__ import annotations

from graphc.ir.demand import base_of, is_zero_pad
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_PARTS

SOURCES = frozenset({"input", "constant", "iota"})
MOVEMENT = frozenset({"reshape", "permute", "broadcast", "slice", "window"})  # index maps without arithmetic


def movement_base(node: Node, movement: frozenset[str] = MOVEMENT) -> Node:
    """The value whose elements `node` shows at other indices, by the operators `movement`."""
    while node.op in movement:
        node = node.inputs[0]
    return node


def is_joined(node: Node) -> bool:
    """Whether the node is a concatenation of parts of one shape, few enough for one kernel that stores them all."""
    if node.op != "concat" or not 1 < len(node.inputs) <= MAX_PARTS or not node.type.size:
        return False
    return all(x.shape == node.inputs[0].shape for x in node.inputs)


def joined_in(fold: Node) -> Node | None:
    """The concatenation of parts whose elements `fold` interleaves, each at a place of its own and none left out."""
    x = base_of(fold.inputs[0])
    return x if is_joined(x) and x.type.size == fold.type.size and is_scatter(fold) else None


def is_scatter(node: Node) -> bool:
    """Whether each element of the operand goes to one place of its own in the result, and there are some."""
    if not node.inputs or not node.inputs[0].type.size:
        return False
    if node.op == "pad":
        return is_zero_pad(node)
    if node.op != "fold":
        return False
    rank = node.type.rank
    size = node.inputs[0].shape[rank:]
    return all(s >= d * (n - 1) + 1 for s, d, n in zip(node.ints("stride"), node.ints("dilation"), size, strict=True))


def is_cut(node: Node) -> bool:
    """Whether the node is a slice that keeps the beginning of each dimension, and most elements."""
    if node.op != "slice" or any(node.ints("start")) or any(step != 1 for step in node.ints("step")):
        return False
    return 2 * node.type.size > node.inputs[0].type.size
