"""Store a value and its zero-padded copy once: whoever wants the value reads the middle of the padded one."""

from __future__ import annotations

from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass


@record(slots=False)
class SharePads(Pass):
    """Where a value has a padded copy and other readers, let those read a slice of the copy.

    The gradient of a convolution is read twice, padded by the gradient of its input and as it is by that of its
    weights; it is then written once, into the padded buffer.
    """

    name: ClassVar[str] = "share_pads"
    doc: ClassVar[str] = "read a value out of its padded copy instead of storing both"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        outputs = set(graph.outputs)
        padded: dict[Node, Node] = {}
        for node in graph.nodes:
            if node.op == "pad" and not any(node.ints("interior")):
                x = node.inputs[0]
                if x.op in ("input", "constant") or x in outputs or len(graph.users[x]) < 2:
                    continue
                best = padded.get(x)
                if best is None or node.type.size < best.type.size:
                    padded[x] = node
        if not padded:
            return graph
        return _rewrite(graph, padded)


def _rewrite(graph: Graph, padded: dict[Node, Node]) -> Graph:
    b = Builder.of(graph)
    done: dict[Node, Node] = {}
    pads = set(padded.values())

    def middle(x: Node) -> Node:
        """`x` as a slice of its padded copy."""
        pad = padded[x]
        copy = b.make(pad.op, (done[x],), pad.attrs, pad.type)
        return b.slice(copy, pad.ints("low"), x.shape, (1,) * x.type.rank)

    for node in graph.nodes:
        with b.at(node.locs):
            operands = tuple(middle(x) if x in padded and node not in pads else done[x] for x in node.inputs)
            same = operands == node.inputs
            done[node] = node if same else b.make(node.op, operands, node.attrs, node.type)
    return graph.with_outputs(tuple(done[o] for o in graph.outputs))
