"""Replaces composite operators by primitive ones."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass, rebuild


@record(slots=False)
class Decompose(Pass):
    """Expand every composite operator by its record, again and again until none is left."""

    name = "decompose"
    doc = "replace composite operators by primitive ones"
    ensures = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        while True:
            result = rebuild(graph, _expand)
            if result is graph:
                return graph
            graph = result


def _expand(builder: Builder, node: Node) -> Node | None:
    decompose = OPS[node.op].decompose
    return decompose(builder, node) if decompose is not None else None
