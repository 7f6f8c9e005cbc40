"""Concatenations of many parts are stored, each part in its turn."""

from __future__ import annotations

import math
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import MAX_PARTS
from graphc.passes.base import PRIMITIVE, Pass, rebuild


@record(slots=False)
class WideConcats(Pass):
    """Materialize a concatenation of more than `MAX_PARTS` parts, as one of vectors where its parts lie one after the
    other in memory.

    What reads a few parts chooses among them for every element. Code for a thousand takes minutes to build.
    """

    name: ClassVar[str] = "wide_concats"
    doc: ClassVar[str] = "store concatenations of many parts"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        stored = {node.inputs[0] for node in graph.nodes if node.op == "materialize"}
        return rebuild(graph, lambda b, node: None if node in stored else _stored(b, node))


def _stored(b: Builder, node: Node) -> Node | None:
    if node.op != "concat" or len(node.inputs) <= MAX_PARTS:
        return None
    if math.prod(node.shape[: node.integer("axis")]) > 1 or node.type.rank == 1:
        return b.apply("materialize", (node,))
    flat = b.concat(tuple(b.reshape(x, (x.type.size,)) for x in node.inputs), 0)
    return b.reshape(b.apply("materialize", (flat,)), node.shape)
