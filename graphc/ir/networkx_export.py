"""Graphs as networkx graphs, for drawings and for graph algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.printer import value_names

if TYPE_CHECKING:
    import networkx


def to_networkx(
    name: str, inputs: Sequence[Node], nodes: Sequence[Node], outputs: Sequence[Node]
) -> networkx.MultiDiGraph:
    """A directed multigraph from operands to users, its nodes keyed by their printed names (such as `%3`).

    Nodes carry `op`, `type` (text), `attrs` (a dictionary), `locs` (sorted texts `file:line`) and `outputs` (the
    positions among the outputs); edges carry `operand`, the position among the operands.
    """
    # Loaded when asked for: importing networkx takes longer than importing graphc.
    import networkx

    names = {node: f"%{text}" for node, text in value_names(inputs, nodes).items()}
    result = networkx.MultiDiGraph(name=name)
    positions: dict[Node, list[int]] = {}
    for i, node in enumerate(outputs):
        positions.setdefault(node, []).append(i)
    for node in nodes:
        result.add_node(
            names[node],
            op=node.op,
            type=str(node.type),
            attrs=dict(node.attrs),
            locs=[str(at) for at in sorted(node.locs)],
            outputs=positions.get(node, []),
        )
    for node in nodes:
        for i, operand in enumerate(node.inputs):
            result.add_edge(names[operand], names[node], operand=i)
    return result
