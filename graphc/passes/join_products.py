"""Sums of many contractions by one formula become one contraction over their operands side by side.

The gradient of a weight that every step of a recurrence reads is such a sum. Term by term, each of them is written and
read again; together they are one long sum in registers.
"""

from __future__ import annotations

from functools import reduce

from graphc.ir.builder import Builder
from graphc.ir.contraction import is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.narrow import concatenated
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import MAX_PARTS
from graphc.passes.base import Pass

MIN_TERMS = 4  # fewer products are added up as they stand


@record(slots=False)
class JoinProducts(Pass):
    """Turn sums of contractions by one formula into one, where their results are larger than their operands.

    The order in which a contraction adds up is open, so this is as exact as each contraction by itself; the terms are
    no longer rounded one by one. It looks at all users: a term that somebody else reads stays.
    """

    name = "join_products"
    doc = "turn sums of many contractions by one formula into one contraction"

    def run(self, graph: Graph) -> Graph:
        sums = _sums(graph)
        if not sums:
            return graph
        builder = Builder.of(graph)
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            with builder.at(node.locs):
                if node in sums:
                    terms = [done[term] for term in sums[node]]
                    pieces = [terms[first : first + MAX_PARTS] for first in range(0, len(terms), MAX_PARTS)]
                    done[node] = reduce(builder.add, [_joined(builder, piece) for piece in pieces])
                else:
                    done[node] = builder.make(node.op, tuple(done[i] for i in node.inputs), node.attrs, node.type)
        return graph.with_outputs(tuple(done[node] for node in graph.outputs))


def _sums(graph: Graph) -> dict[Node, list[Node]]:
    """The additions that are whole sums of products, and their terms."""
    kept = set(graph.outputs)
    terms: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "contract" and _shared_label(node) is not None:
            terms[node] = [node]
        elif node.op == "add":
            found = [terms.get(operand) for operand in node.inputs]
            alone = all(len(graph.users[operand]) == 1 and operand not in kept for operand in node.inputs)
            first, second = found
            if first and second and alone and _alike(first[0], second[0]):
                terms[node] = first + second
    inner = {operand for node in terms if node.op == "add" for operand in node.inputs}
    return {n: t for n, t in terms.items() if n.op == "add" and n not in inner and len(t) >= MIN_TERMS}


def _alike(one: Node, other: Node) -> bool:
    """Whether both are products by one formula of operands of the same types."""
    return one.attrs == other.attrs and all(x.type == y.type for x, y in zip(one.inputs, other.inputs, strict=True))


def _shared_label(node: Node) -> tuple[int, int] | None:
    """The dimensions of both operands along which products can be put side by side, if their results are the larger."""
    x, y = node.inputs
    if node.type.size < x.type.size + y.type.size:
        return None
    spec = parse_spec(node.text("spec"))
    first, second = ({dim[0][0]: d for d, dim in enumerate(dims) if is_plain(dim)} for dims in spec.operands)
    for label in spec.summed:
        if label in first and label in second:
            return first[label], second[label]
    return None


def _joined(builder: Builder, terms: list[Node]) -> Node:
    """The sum of products as one product."""
    if len(terms) == 1:
        return terms[0]
    places = _shared_label(terms[0])
    assert places is not None
    operands = [concatenated(builder, [t.inputs[k] for t in terms], places[k]) for k in (0, 1)]
    return builder.contract(operands[0], operands[1], terms[0].text("spec"))
