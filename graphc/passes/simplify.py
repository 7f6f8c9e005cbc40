"""Makes graphs smaller by the rule tables, and removes the marks that only autodiff reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from graphc.ir.graph import Graph
from graphc.passes.base import NO_DETACH, Pass, rebuild
from graphc.passes.pattern import Exactness, Rewriter, Rule
from graphc.passes.rules import ALL_RULES


@dataclass(frozen=True)
class Simplify(Pass):
    """Apply the rewrite rules until none applies.

    By default only exact rules run. Each option allows one more kind: `no_signed_zeros` (0.0 and -0.0 are the same),
    `no_nans` (values are finite), `reassociates` (sums may be formed in another order). Run it after autodiff:
    rules keep values, and a gradient may be chosen otherwise at ties.
    """

    name = "simplify"
    doc = "apply the rewrite rules (constant folding, identities, movement) until none applies"

    no_signed_zeros: bool = False
    no_nans: bool = False
    reassociates: bool = False

    def run(self, graph: Graph) -> Graph:
        return Rewriter(rules_for(self.no_signed_zeros, self.no_nans, self.reassociates)).run(graph)


@lru_cache(maxsize=8)
def rules_for(no_signed_zeros: bool, no_nans: bool, reassociates: bool) -> tuple[Rule, ...]:
    """All rules that take no more for granted than allowed, in the order of the tables."""
    allowed: set[Exactness] = {"exact"}
    allowed |= {"no_signed_zeros"} if no_signed_zeros else set()
    allowed |= {"no_nans"} if no_nans else set()
    allowed |= {"reassociates"} if reassociates else set()
    return tuple(rule for rule in ALL_RULES if rule.exactness in allowed)


@dataclass(frozen=True)
class StripDetach(Pass):
    """Replace each `detach` by its operand: after autodiff it says nothing any more."""

    name = "strip_detach"
    doc = "remove detach, which only autodiff reads"
    ensures = (NO_DETACH,)

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, lambda builder, node: node.inputs[0] if node.op == "detach" else None)
