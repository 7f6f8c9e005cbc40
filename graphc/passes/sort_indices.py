"""On a GPU many elements that go to places are sorted by these first (`index_add`, and its like by rows).

What goes to one place is combined by one thread then, in the order of the elements, or by a block, whose threads take
them in turn (`codegen/segments.py`). Without that each element is compared with all others, some thousands at a time
(`codegen/gpu_accumulate.py`).
"""

from __future__ import annotations

import math

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import TensorType, i32, i64
from graphc.passes.base import Pass
from graphc.passes.rules.rows import row_index

MANY = 1 << 13  # elements that are sorted; fewer are compared at once
LINES = 1 << 13  # elements side by side, from which on few are sorted too: else threads go through all of them
FEW = 64
_MOST = (1 << 31) - 2  # rows: places are sorted as i32
_SORTED = frozenset({"index_add", "scatter_add", "scatter_reduce"})


@record(slots=False)
class SortIndices(Pass):
    """Turn `index_add`, `scatter_add` and `scatter_reduce` of many elements by rows into `segment_reduce`."""

    name = "sort_indices"
    doc = "sort many elements by the places to which they go, of a GPU"

    def run(self, graph: Graph) -> Graph:
        if not any(node.op in _SORTED for node in graph.nodes):
            return graph
        builder = Builder.of(graph)
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            with builder.at(node.locs):
                operands = tuple(done[operand] for operand in node.inputs)
                same = node if operands == node.inputs else builder.make(node.op, operands, node.attrs, node.type)
                done[node] = _segments(builder, same) or same
        return graph.with_outputs(tuple(done[node] for node in graph.outputs))


def _segments(b: Builder, node: Node) -> Node | None:
    """The reduction of segments that does what `node` does; None where it is not to be."""
    if node.op not in _SORTED:
        return None
    x, index, source = node.inputs
    axis = node.integer("axis")
    if node.op != "index_add":
        rows = row_index(b, node)
        if rows is None:
            return None
        index = rows
    count, extent = index.type.size, x.shape[axis]
    before, after = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    if count <= (FEW if before * after >= LINES else MANY) or not 0 < extent <= _MOST or not x.type.size:
        return None
    flat = b.reshape(index, (count,))
    inside = b.elementwise("minimum", b.elementwise("maximum", flat, 0), extent - 1)
    keys = b.cast(inside, i32)
    order = b.apply("argsort", (keys,), {"axis": 0, "descending": False})
    in_order = b.apply("gather", (keys, order), {"axis": 0})
    places = b.iota(0, TensorType(i32, (extent + 1,)))
    starts = b.apply("searchsorted", (in_order, places), {"right": False})
    lines = b.reshape(source, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    mode = node.text("mode") if node.op == "scatter_reduce" else "add"
    assert order.dtype is starts.dtype is i64
    return b.apply("segment_reduce", (x, order, starts, lines), {"axis": axis, "mode": mode})
