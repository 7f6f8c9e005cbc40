"""A graph: input nodes and output nodes. Plain immutable data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.ir.networkx_export import to_networkx
from graphc.ir.node import Node
from graphc.ir.printer import print_graph
from graphc.ir.visit import topological, users_of

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Graph:
    """A pure function from tensors to tensors. `inputs` are `input` nodes; an output may be an input or stand twice.

    Passes are `Graph -> Graph`; a pass that changes nothing returns the same object. Compare structure with `==` on
    `str()`.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    name: str = "main"

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, inputs first (used or not), then operands before users; the order depends on structure alone."""
        seen = set(self.inputs)
        return (*self.inputs, *(n for n in topological(self.outputs) if n not in seen))

    @cached_property
    def users(self) -> dict[Node, list[Node]]:
        """For each node the nodes that use it."""
        return users_of(self.nodes)

    def with_outputs(self, outputs: tuple[Node, ...]) -> Graph:
        """The graph with other outputs; the same object when nothing changes."""
        if len(outputs) == len(self.outputs) and all(a is b for a, b in zip(outputs, self.outputs, strict=True)):
            return self
        return Graph(self.inputs, outputs, self.name)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The graph as a networkx multigraph from operands to users; see `networkx_export`."""
        return to_networkx(self.name, self.inputs, self.nodes, self.outputs)

    def __str__(self) -> str:
        return print_graph(self.name, self.inputs, self.nodes, self.outputs)
