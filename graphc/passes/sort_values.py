"""Elements taken at the places that sort them, where nobody wants the places, are sorted without them."""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import Pass


@record(slots=False)
class SortValues(Pass):
    """Turn `take_along x, (argsort x)` into `sort x` where the order has no other reader.

    Half the memory moves: keys need not carry indices, and nothing is read at random places afterwards.
    """

    name = "sort_values"
    doc = "sort elements without their indices where only the elements are wanted"

    def run(self, graph: Graph) -> Graph:
        if not any(node.op == "argsort" for node in graph.nodes):
            return graph
        builder = Builder.of(graph)
        outputs = set(graph.outputs)
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            with builder.at(node.locs):
                operands = tuple(done[operand] for operand in node.inputs)
                if _takes_in_order(graph, node, outputs):
                    done[node] = builder.apply("sort", operands[:1], dict(node.inputs[1].attrs))
                else:
                    done[node] = (
                        node if operands == node.inputs else builder.make(node.op, operands, node.attrs, node.type)
                    )
        return graph.with_outputs(tuple(done[node] for node in graph.outputs))


def _takes_in_order(graph: Graph, node: Node, outputs: set[Node]) -> bool:
    """Whether `node` takes the elements of a value at the places that sort it, and is all that reads these."""
    if node.op != "take_along":
        return False
    x, places = node.inputs
    return (
        places.op == "argsort"
        and places.inputs[0] is x
        and places.attr("axis") == node.attr("axis")
        and places not in outputs
        and len(graph.users[places]) == 1
    )
