"""Makes graphs smaller by the rule tables, and removes the marks that only autodiff reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from graphc.ir.builder import Builder
from graphc.ir.contraction import format_spec, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.passes.base import NO_DETACH, Pass, rebuild
from graphc.passes.pattern import Exactness, Rewriter, Rule
from graphc.passes.rules import ALL_RULES


@dataclass(frozen=True)
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
        rules = rules_for(self.no_signed_zeros, self.no_nans, self.reassociates)
        while True:
            result = _order_contractions(Rewriter(rules).run(graph))
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
    """A contraction read by one permutation alone makes its result in that order.

    This is no rule, because it looks at all users: with another user the contraction would be computed twice.
    """
    builder = Builder.of(graph)
    kept = set(graph.outputs)
    done: dict[Node, Node] = {}
    for node in graph.nodes:
        with builder.at(node.locs):
            operands = tuple(done[operand] for operand in node.inputs)
            done[node] = builder.make(node.op, operands, node.attrs, node.type)
            source = node.inputs[0] if node.op == "permute" else None
            if source is not None and source.op == "contract" and source not in kept and len(graph.users[source]) == 1:
                spec = parse_spec(source.text("spec"))
                out = tuple(spec.out[p] for p in node.ints("perm"))
                left, right = done[source].inputs
                done[node] = builder.contract(left, right, format_spec(spec.x, spec.y, out))
    return graph.with_outputs(tuple(done[node] for node in graph.outputs))


@dataclass(frozen=True)
class StripDetach(Pass):
    """Replace each `detach` by its operand: after autodiff it says nothing any more."""

    name = "strip_detach"
    doc = "remove detach, which only autodiff reads"
    ensures = (NO_DETACH,)

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, lambda builder, node: node.inputs[0] if node.op == "detach" else None)
