"""Store a value and its padded copy once: whoever wants the value reads the middle of the padded one."""

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
    weights; it is then written once, into the padded buffer. What replaces a part of another value (`u[1:-1] = x`) is
    read out of that.
    """

    name: ClassVar[str] = "share_pads"
    doc: ClassVar[str] = "read a value out of its padded copy instead of storing both"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        outputs = set(graph.outputs)
        place = {node: i for i, node in enumerate(graph.nodes)}
        padded: dict[Node, tuple[Node, Node]] = {}
        for node in graph.nodes:
            if node.op == "pad" and not any(node.ints("interior")):
                x = node.inputs[0]
                if x.op in ("input", "constant") or x in outputs or len(graph.users[x]) < 2:
                    continue
                best = padded.get(x)
                if best is None or node.type.size < best[0].type.size:
                    padded[x] = node, _whole(graph, node, place)
        if not padded:
            return graph
        return _rewrite(graph, padded)


def _whole(graph: Graph, pad: Node, place: dict[Node, int]) -> Node:
    """The value into which `pad` is written, and nothing else reads it, or `pad` itself."""
    users = graph.users[pad]
    if len(users) != 1 or pad in graph.outputs or users[0].op != "select" or users[0].inputs[1] is not pad:
        return pad
    mask, _, rest = users[0].inputs
    if mask.op != "pad" or mask.inputs[0].op != "constant" or place[rest] > place[pad.inputs[0]]:
        return pad
    is_part = mask.inputs[0].attr("value") is True and mask.attr("value") is False
    same = all(mask.ints(name) == pad.ints(name) for name in ("low", "high", "interior"))
    return users[0] if is_part and same else pad


def _rewrite(graph: Graph, padded: dict[Node, tuple[Node, Node]]) -> Graph:
    b = Builder.of(graph)
    done: dict[Node, Node] = {}
    pads = {pad for pad, _ in padded.values()}

    def middle(x: Node) -> Node:
        """`x` as a slice of its padded copy."""
        pad, whole = padded[x]
        copy = b.make(pad.op, (done[x],), pad.attrs, pad.type)
        if whole is not pad:
            mask, _, rest = whole.inputs  # the mask is made of a constant alone
            copy = b.make(whole.op, (mask, copy, done[rest]), whole.attrs, whole.type)
        return b.slice(copy, pad.ints("low"), x.shape, (1,) * x.type.rank)

    for node in graph.nodes:
        with b.at(node.locs):
            operands = tuple(middle(x) if x in padded and node not in pads else done[x] for x in node.inputs)
            same = operands == node.inputs
            done[node] = node if same else b.make(node.op, operands, node.attrs, node.type)
    return graph.with_outputs(tuple(done[o] for o in graph.outputs))
