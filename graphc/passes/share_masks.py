"""Take the mask of a ReLU from its result, so that its operand need not be stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.demand import needs_loop
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass
from graphc.passes.shown import MOVEMENT, SOURCES

_PLACES = ("argmax", "argmin")  # of a window of what a maximum is taken of, by the same kernel
_MOVES = MOVEMENT | {"pad"}


@record(slots=False)
class ShareMasks(Pass):
    """Let the gradient of `relu(x)` ask where the result is not positive, rather than where `x` is not.

    Both hold at the same places: the result is 0 where `x <= 0`, and else `x` itself, also where that is NaN. The
    result is stored for the contractions that read it; `x`, a sum that is made in the same kernel, then is not.
    """

    name: ClassVar[str] = "share_masks"
    doc: ClassVar[str] = "take masks from results that are stored, not from operands that else are not"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        found = {node: result for node in graph.nodes if (result := _result(graph, node)) is not None}
        if not found:
            return graph
        b = Builder.of(graph)
        done: dict[Node, Node] = {}
        for node in _in_order(graph, found):
            with b.at(node.locs):
                operands = tuple(
                    b.make(x.op, (done[found[x]], done[x.inputs[1]]), x.attrs, x.type)
                    if x in found and node is not found[x]
                    else done[x]
                    for x in node.inputs
                )
                done[node] = node if operands == node.inputs else b.make(node.op, operands, node.attrs, node.type)
        return graph.with_outputs(tuple(done[o] for o in graph.outputs))


def _in_order(graph: Graph, found: Mapping[Node, Node]) -> Iterator[Node]:
    """The nodes, each result before the readers of its mask: it reads nothing but what the mask does, and the mask."""
    given: set[Node] = set()
    for node in graph.nodes:
        for each in (*[found[x] for x in node.inputs if x in found], node):
            if each not in given:
                given.add(each)
                yield each


def _result(graph: Graph, mask: Node) -> Node | None:
    """What the readers of `mask`, which is `x <= 0`, should compare instead: `relu(x)`, where `x` is not stored for
    anybody else and that is.
    """
    if mask.op != "le" or mask in graph.outputs:
        return None
    x, zero = mask.inputs
    if x.op in SOURCES or x in graph.outputs or zero.op != "constant" or zero.attr("value") != 0:
        return None
    users = graph.users
    result = next((u for u in users[mask] if u.op == "select" and u.inputs == (mask, zero, x)), None)
    if result is None or len(users[mask]) < 2 or set(users[x]) != {mask, result}:
        return None
    return result if _is_multiplied(graph, result) and _is_made_there(graph, x, (mask, result)) else None


def _is_multiplied(graph: Graph, node: Node) -> bool:
    """Whether a contraction reads `node` from memory."""
    stack = [node]
    while stack:
        for user in graph.users[stack.pop()]:
            if user.op == "contract":
                return True
            if user.op in _MOVES:
                stack.append(user)
    return False


def _is_made_there(graph: Graph, x: Node, readers: Sequence[Node]) -> bool:
    """Whether `x` comes out of a sum by way of values that nobody but `readers` of `x` wants."""
    stack, cone, sums = [x], {x}, 0
    while stack:
        node = stack.pop()
        sums += needs_loop(node)
        for operand in () if needs_loop(node) else node.inputs:
            if operand not in cone and operand.op not in SOURCES and operand.type.size * 2 > x.type.size:
                cone.add(operand)
                stack.append(operand)
    if not sums or not cone.isdisjoint(graph.outputs):
        return False
    used = {user for node in cone for user in graph.users[node]} - cone
    windows = {node.inputs[0] for node in cone if node.op == "reduce_max"}
    return all(u in readers or (u.op in _PLACES and u.inputs[0] in windows) for u in used)
