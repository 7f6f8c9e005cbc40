"""Reverse-mode differentiation: the `vjp` of each operator record and one loop. Its result is a graph again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.errors import AutodiffError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.visit import topological


def vjp(
    b: Builder,
    outputs: Sequence[Node],
    cotangents: Sequence[Node],
    wrt: Sequence[Node],
    stops: Iterable[Node] = (),
) -> list[Node | None]:
    """The gradient of `sum(outputs * cotangents)` for each node of `wrt`, made with `b`; None where it does not depend.

    Each cotangent has the type of its output, each gradient the type of its node. Only nodes on a path from `wrt` to
    `outputs` are differentiated, and gradients do not go on from nodes of `stops`; gradient nodes carry the source
    lines of the forward node. Raises AutodiffError when a cotangent does not fit or an operator on the way has no
    gradient.
    """
    if len(outputs) != len(cotangents):
        raise AutodiffError(f"vjp: {len(outputs)} outputs and {len(cotangents)} cotangents; each output wants one")
    ends = frozenset(stops)
    active, path = _reached(topological(outputs, ends.__contains__ if ends else None), wrt)
    gradients: dict[Node, Node] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent.type != output.type:
            raise AutodiffError(f"vjp: the cotangent of an output {output.type} has type {cotangent.type}")
        if output in active:
            _accumulate(b, gradients, output, cotangent)
    for node in reversed(path):
        if node not in gradients or node in ends:
            continue
        rule = OPS[node.op].vjp
        if rule is None:
            raise AutodiffError(f"{node.op} has no gradient: {OPS[node.op].why_no_vjp}{_lines(node)}")
        with b.at(node.locs):
            contributions = rule(b, node, gradients[node])
        for operand, contribution in zip(node.inputs, contributions, strict=True):
            if contribution is not None and operand in active:
                _accumulate(b, gradients, operand, contribution)
    return [gradients.get(node) for node in wrt]


def constant_ops() -> set[str]:
    """The operators whose gradients are zero everywhere: none goes through them."""
    return {name for name, op in OPS.items() if op.vjp is None and op.why_no_vjp.startswith("zero")}


def _reached(order: Iterable[Node], wrt: Iterable[Node]) -> tuple[set[Node], list[Node]]:
    """The float nodes that depend on `wrt` with a gradient that is not zero everywhere, `wrt` included.

    As a set, and those of them that have such an operand in the order of `order` (operands first).
    """
    active = {node for node in wrt if node.dtype.is_float}
    path: list[Node] = []
    constant = constant_ops()
    for node in order:
        if not active.isdisjoint(node.inputs) and node.dtype.is_float and node.op not in constant:
            active.add(node)
            path.append(node)
    return active, path


def _accumulate(b: Builder, gradients: dict[Node, Node], node: Node, contribution: Node) -> None:
    if contribution.type is not node.type and contribution.type != node.type:
        raise AutodiffError(f"the gradient of {node!r} came out as {contribution.type}{_lines(node)}")
    before = gradients.get(node)
    if before is None:
        gradients[node] = contribution
    else:
        with b.at(node.locs):
            gradients[node] = b.add(before, contribution)


def _lines(node: Node) -> str:
    return f" (at {', '.join(map(str, sorted(node.locs)))})" if node.locs else ""


def grad_graph(graph: Graph, wrt: Sequence[int] | None = None) -> Graph:
    """`graph` with the gradients of its first output, a float of one element, appended to the outputs.

    `wrt` numbers the inputs to differentiate by, in order (all float inputs when None); an input that the output does
    not depend on gets zeros. Raises AutodiffError when the output is no float of one element or an input no float.
    """
    if not graph.outputs or not graph.outputs[0].dtype.is_float or graph.outputs[0].type.size != 1:
        shown = str(graph.outputs[0].type) if graph.outputs else "nothing"
        raise AutodiffError(f"a gradient wants a float output of one element first, @{graph.name} gives {shown}")
    numbers = [i for i, x in enumerate(graph.inputs) if x.dtype.is_float] if wrt is None else list(wrt)
    for number in numbers:
        if not 0 <= number < len(graph.inputs):
            raise AutodiffError(f"@{graph.name} has {len(graph.inputs)} inputs, there is no number {number}")
        if not graph.inputs[number].dtype.is_float:
            raise AutodiffError(
                f"input {number} of @{graph.name} is {graph.inputs[number].type}: only floats have gradients"
            )
    b, output = Builder.of(graph), graph.outputs[0]
    inputs = [graph.inputs[number] for number in numbers]
    found = vjp(b, [output], [b.constant(1, output.type)], inputs)
    gradients = (b.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True))
    return Graph(graph.inputs, (*graph.outputs, *gradients), graph.name)
