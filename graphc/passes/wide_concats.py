"""Concatenations of many parts are stored, each part in its turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import MAX_PARTS
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.shown import is_joined
from graphc.passes.stored import FEW_PARTS


@record(slots=False)
class WideConcats(Pass):
    """Materialize a concatenation of more than `FEW_PARTS` parts, or `MAX_PARTS` of one shape, as one of vectors where
    its parts lie one after the other in memory. Of parts of different shapes a few are stored together, then a few of
    what that gives.

    What reads a few parts chooses among them for every element. Code for a thousand takes minutes to build.
    """

    name: ClassVar[str] = "wide_concats"
    doc: ClassVar[str] = "store concatenations of many parts"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        stored = {node.inputs[0] for node in graph.nodes if node.op == "materialize"}
        return rebuild(graph, lambda b, node: None if node in stored else _stored(b, node))


def _stored(b: Builder, node: Node) -> Node | None:
    if node.op != "concat" or len(node.inputs) <= (MAX_PARTS if is_joined(node) else FEW_PARTS):
        return None
    axis, parts = node.integer("axis"), list(node.inputs)
    is_flat = math.prod(node.shape[:axis]) == 1 and node.type.rank > 1
    if is_flat:
        axis, parts = 0, [b.reshape(x, (x.type.size,)) for x in parts]
    if not _are_alike(parts):
        while len(parts) > FEW_PARTS:
            few = [parts[first : first + FEW_PARTS] for first in range(0, len(parts), FEW_PARTS)]
            parts = [b.apply("materialize", (b.concat(tuple(xs), axis),)) if len(xs) > 1 else xs[0] for xs in few]
    whole = b.apply("materialize", (b.concat(tuple(parts), axis),))
    return b.reshape(whole, node.shape) if is_flat else whole


def _are_alike(parts: Sequence[Node]) -> bool:
    return all(x.shape == parts[0].shape for x in parts)
