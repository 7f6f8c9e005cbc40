"""Fusion of chains of contractions: large products that only sums over their sides read, after some arithmetic, are not
stored. Each of these sums computes them again, tile by tile (`ir/chains.py`): attention needs no memory for its scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations

from graphc.ir.chains import REDUCTIONS, Chain, find_chain
from graphc.ir.contraction import parse_spec
from graphc.ir.demand import base_of
from graphc.ir.graph import Graph
from graphc.ir.narrow import HALVES, factor_dtype
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.schedule import Root
from graphc.passes.drafts import Draft, Drafts, Limits, symbols, walk

LEAST = 64  # rows, and steps, from which on a chain is made
MOST_COLUMNS = 256  # of all sums of a kernel together
_SHOWN = frozenset({"reshape", "permute"})  # movement after which each element is still read once

Region = tuple[set[Node], set[Node]]  # values computed from large products, and the sums that read them


def chained(graph: Graph, stored: dict[Node, None], limits: Limits) -> tuple[dict[Node, None], frozenset[Node]]:
    """The values to store without those that chains compute, and these."""
    if not limits.chains:
        return stored, frozenset()
    dropped: set[Node] = set()
    for products in _connected(graph):
        region, sums = _region(graph, products) or ((), ())
        if not region:
            continue
        rest = {node: None for node in stored if node not in dropped and node not in region}
        if all(_is_chain(node, rest) for node in sums):
            dropped |= {*region}
    return {node: None for node in stored if node not in dropped}, frozenset(dropped)


def merge_chains(stored: dict[Node, None], drafts: Drafts) -> None:
    """Merge chains of the same rows and steps that compute the same products: these are computed once."""
    every = [d for d in dict.fromkeys(drafts.maker.values()) if drafts.is_chained(d)]
    for first, other in combinations(every, 2):
        made = [drafts.maker[d.roots[0].target] for d in (first, other)]
        if made[0] is made[1] or made[0].domain != made[1].domain or drafts.makes_cycle(made):
            continue
        if any(root.target in reader.reads for maker, reader in (made, made[::-1]) for root in maker.roots):
            continue
        both = Draft(
            [*made[0].roots, *made[1].roots],
            made[0].domain,
            max(d.order for d in made),
            made[0].internal | made[1].internal,
        )
        walk(both, stored)
        chain = chain_of(both)
        parts = [chain_of(d) for d in made]
        if chain is not None and sum(len(p.products) for p in parts if p is not None) > len(chain.products):
            drafts.replace(made, both)


def chain_of(draft: Draft) -> Chain | None:
    """The chain that a draft computes; None when it is none, or too small for one."""
    if any(root.scatter for root in draft.roots) or draft.kept:
        return None
    axes, roots = symbols(draft)
    chain = find_chain(axes, [(root.value, at) for root, at in roots], frozenset(draft.inside))
    if chain is None or any(
        d < 0 for root in draft.roots for d, n in zip(root.dims, root.value.shape, strict=True) if n > 1
    ):
        return None
    columns = sum(s.right.along.hi + 1 for s in chain.sums if s.right is not None)
    lengths = [math.prod(v.hi + 1 for v in side) for side in (chain.rows, chain.steps)]
    return chain if columns <= MOST_COLUMNS and min(lengths) >= LEAST else None


def _is_chain(node: Node, stored: dict[Node, None]) -> bool:
    """Whether the sum `node` is a chain."""
    draft = Draft([Root(node, tuple(range(node.type.rank)))], node.shape, 0)
    walk(draft, stored)
    return chain_of(draft) is not None


def _is_wide(node: Node) -> bool:
    """Whether the node may be a product of rows that is larger than what it is made of."""
    if node.op != "contract" or factor_dtype(node) not in HALVES or node.type.rank < 2:
        return False
    spec = parse_spec(node.text("spec"))
    return len(spec.summed) == 1 and node.type.size > max(x.type.size for x in node.inputs)


def _connected(graph: Graph) -> Iterable[list[Node]]:
    """Large products, those together that one sum reads."""
    groups: list[tuple[list[Node], set[Node]]] = []
    for node in graph.nodes:
        if not _is_wide(node):
            continue
        found = _region(graph, [node])
        if found is None:
            continue
        products, touched = [node], found[0] | found[1]
        for group in [g for g in groups if g[1] & touched]:
            products = [*group[0], *products]
            touched |= group[1]
            groups.remove(group)
        groups.append((products, touched))
    return [products for products, _ in groups]


def _region(graph: Graph, products: list[Node]) -> Region | None:
    """What is computed from `products` element by element, and the sums that read that; None when something else reads
    it.
    """
    outputs = {base_of(o) for o in graph.outputs} | {*graph.outputs}
    region, sums, todo = set[Node](), set[Node](), list(products)
    while todo:
        node = todo.pop()
        if node in region:
            continue
        if node in outputs:
            return None
        region.add(node)
        for user in graph.users[node]:
            if user.op in REDUCTIONS or user.op == "contract":
                sums.add(user)
            elif user.op in _SHOWN or (OPS[user.op].kind == "elementwise" and user.op != "materialize"):
                todo.append(user)
            else:
                return None
    return (region, sums) if sums else None
