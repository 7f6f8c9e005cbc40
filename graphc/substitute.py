"""Replacing nodes inside a graph: the same values with other leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.visit import topological


def substitute(b: Builder, outputs: Sequence[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """`outputs` with each node of `mapping` replaced; what does not depend on them stays the same object."""
    new: dict[Node, Node] = dict(mapping)
    for node in topological(outputs, mapping.__contains__):
        if node in new:
            continue
        inputs = tuple(new[i] for i in node.inputs)
        if all(x is y for x, y in zip(inputs, node.inputs, strict=True)):
            new[node] = node
        else:
            with b.at(node.locs):
                new[node] = b.make(node.op, inputs, node.attrs, node.type)
    return [new[node] for node in outputs]
