"""Makes graphs smaller by the rule tables, and removes the marks that only autodiff reads."""

from __future__ import annotations

from functools import lru_cache

from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.passes.base import NO_DETACH, Pass, rebuild
from graphc.passes.pattern import Exactness, Rewriter, Rule
from graphc.passes.rules import ALL_RULES


@record(slots=False)
class Simplify(Pass):
    """Apply the rewrite rules until none applies.

    By default only exact rules run. Each option allows one more kind: `no_signed_zeros` (0.0 and -0.0 are the same),
    `no_nans` (values are finite), `reassociates` (sums may be formed in another order). Run it after autodiff: rules
    keep values, and a gradient may be chosen otherwise at ties.
    """

    name = "simplify"
    doc = "apply the rewrite rules (constant folding, identities, movement) until none applies"

    no_signed_zeros: bool = False
    no_nans: bool = False
    reassociates: bool = False

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(rules_for(self.no_signed_zeros, self.no_nans, self.reassociates))
        while True:
            result = _order_contractions(rewriter.run(graph))
            if result is graph:
                return graph
            graph = result


@lru_cache(maxsize=8)
def rules_for(no_signed_zeros: bool, no_nans: bool, reassociates: bool) -> tuple[Rule, ...]:
    """All rules that take no more for granted than allowed, in the order of the tables."""
    allowed: set[Exactness] = {"exact"}
    allowed |= {"no_signed_zeros"} if no_signed_zeros else set()
    allowed |= {"no_nans"} if no_nans else set()
    allowed |= {"reassociates"} if reassociates else set()
    return tuple(rule for rule in ALL_RULES if rule.exactness in allowed)


def _order_contractions(graph: Graph) -> Graph:
    """A contraction read by one permutation alone makes its result in that order, by one slice alone only that part.

    This is no rule, because it looks at all users: with another user the contraction would be computed twice.
    """
    builder = Builder.of(graph)
    kept = set(graph.outputs)
    done: dict[Node, Node] = {}
    for node in graph.nodes:
        builder.locs = node.locs
        operands = tuple([done[operand] for operand in node.inputs])
        same = operands == node.inputs
        done[node] = node if same else builder.make(node.op, operands, node.attrs, node.type)
        source = node.inputs[0] if node.op in ("permute", "slice") else None
        if source is not None and node.op == "slice" and _is_epilogue(graph, source):
            done[node] = _sliced_first(builder, done[source], node)
            continue
        if source is None or done[source].op != "contract" or source in kept or len(graph.users[source]) > 1:
            continue
        if node.op == "permute":
            spec = parse_spec(done[source].text("spec"))
            out = tuple(spec.out[p] for p in node.ints("perm"))
            left, right = done[source].inputs
            done[node] = builder.contract(left, right, format_spec(spec.x, spec.y, out))
        else:
            done[node] = _part_of_contraction(builder, done[source], node) or done[node]
    return graph.with_outputs(tuple(done[node] for node in graph.outputs))


def _is_epilogue(graph: Graph, node: Node) -> bool:
    """Whether an elementwise operator has one reader, and an operand that is a contraction with no other."""
    if OPS[node.op].kind != "elementwise" or node in graph.outputs or len(graph.users[node]) > 1:
        return False
    return any(x.op == "contract" and len(graph.users[x]) == 1 and x not in graph.outputs for x in node.inputs)


def _sliced_first(b: Builder, node: Node, part: Node) -> Node:
    """The slice `part` of an elementwise operator as the operator of slices, so that contractions before it are cut."""
    start, size, step = (part.ints(k) for k in ("start", "size", "step"))
    operands = tuple(b.slice(x, start, size, step) for x in node.inputs)
    return b.make(node.op, operands, node.attrs, node.type.with_shape(part.shape))


def _part_of_contraction(b: Builder, product: Node, part: Node) -> Node | None:
    """The slice `part` of a contraction, from slices of its operands; None when a step meets a sliding window.

    Padding that a convolution adds is cut off again from the gradient: that border need not be computed.
    """
    spec = parse_spec(product.text("spec"))
    ranges = zip(part.ints("start"), part.ints("size"), part.ints("step"), strict=True)
    wanted = dict(zip(spec.out, ranges, strict=True))
    extents = spec.extents(product.inputs[0].shape, product.inputs[1].shape)
    operands: list[Node] = []
    for operand, dims in zip(product.inputs, spec.operands, strict=True):
        starts, sizes, steps = [0] * len(dims), list(operand.shape), [1] * len(dims)
        for d, dim in enumerate(dims):
            for label, coefficient in dim:
                start, size, step = wanted.get(label, (0, extents[label], 1))
                if len(dim) == 1 and coefficient == 1:
                    starts[d], sizes[d], steps[d] = start, size, step
                elif step != 1 or size == 0:
                    return None
                else:
                    starts[d] += coefficient * start
                    sizes[d] -= coefficient * (extents[label] - size)
        operands.append(b.slice(operand, tuple(starts), tuple(sizes), tuple(steps)))
    return b.contract(operands[0], operands[1], product.text("spec"))


@record(slots=False)
class StripDetach(Pass):
    """Replace each `detach` by its operand: after autodiff it says nothing any more."""

    name = "strip_detach"
    doc = "remove detach, which only autodiff reads"
    ensures = (NO_DETACH,)

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, lambda builder, node: node.inputs[0] if node.op == "detach" else None)
