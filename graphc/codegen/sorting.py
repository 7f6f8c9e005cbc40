"""Kernels that give the order of the elements of each row, or a part of it; equal elements keep their order."""

from __future__ import annotations

from graphc.codegen.lowered import Lowered
from graphc.codegen.sort_chunks import Chunks
from graphc.codegen.sort_counting import Counting
from graphc.codegen.sort_leading import Leading
from graphc.codegen.sort_network import Network
from graphc.codegen.sort_radix import Radix, Selection
from graphc.codegen.target import Target
from graphc.ir.node import Node

COUNTED = 20  # vectors of i32: rows of up to so many are sorted by counting
SELECTED = 512  # of rows from this length on, only elements that may belong to the wanted part are sorted
LONG = 1 << 16  # rows from this length on are cut into chunks when there are fewer rows than cores


def lower_sort(node: Node, name: str, target: Target) -> tuple[Lowered, ...]:
    """The kernels of one `argsort`, `sort` or `argselect`, in the order in which they run."""
    x, axis = node.inputs[0].type, node.integer("axis")
    n = x.shape[axis]
    rows = x.size // n
    if node.op == "sort":
        network = Network(node, target)
        if network.fits and network.pays:
            return (network.kernel(name),)
    if n <= COUNTED * target.lanes(4):
        return (Counting(node, target).kernel(name),)
    if node.op == "argselect" and n >= SELECTED:
        leading = Leading(node, target)
        if leading.fits:
            return (leading.kernel(name),)
        return (Selection(node, target).kernel(name),)
    if node.op != "argselect" and rows < target.cores and n >= LONG:
        return Chunks(node, target).kernels(name)
    return (Radix(node, target).kernel(name),)
