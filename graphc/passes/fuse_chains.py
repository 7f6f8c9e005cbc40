"""Fusion of chains of contractions: large products that only sums over their sides read, after some arithmetic, are not
stored. Each of these sums computes them again, tile by tile (`ir/chains.py`): attention needs no memory for its scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

from graphc.ir.chains import REDUCTIONS, Chain, find_chain
from graphc.ir.contraction import parse_spec
from graphc.ir.demand import COMPUTED, base_of, needs_loop
from graphc.ir.graph import Graph
from graphc.ir.index import Ix
from graphc.ir.narrow import HALVES, factor_dtype
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.schedule import Root
from graphc.ir.visit import topological
from graphc.passes.drafts import Draft, Drafts, Limits, symbols, walk, wanted_at
from graphc.passes.shown import MOVEMENT, SOURCES, movement_base

LEAST = 64  # rows, and steps, from which on a chain is made
BUSY = 0.5  # share of a device's cores that blocks of so many rows must keep busy
LINES = 64, 40  # of rows, and of steps, that a block keeps in its memory at least (`codegen/gpu_chain_tiles.py`)
APART = 8  # elements between them
MOST_COLUMNS = 256  # of all sums of a kernel together
_COSTLY = frozenset({"div", "select"}) | {name for name, op in OPS.items() if op.is_heavy}
_SHOWN = frozenset({"reshape", "permute"})  # movement after which each element is still read once

Region = tuple[set[Node], set[Node]]  # values computed from large products, and the sums that read them


def chained(graph: Graph, stored: dict[Node, None], limits: Limits) -> tuple[dict[Node, None], frozenset[Node]]:
    """The values to store without those that chains compute, and these. What chains read again for each row or step
    they read as it is.
    """
    if not limits.chains:
        return stored, frozenset()
    outputs = {base_of(o) for o in graph.outputs}
    dropped: set[Node] = set()
    chosen = {*stored}
    for products in _connected(graph):
        found = _region(graph, products)
        if found is None:
            continue
        region, sums = found
        smaller = _smaller(region)
        counted = {n for n in smaller if _is_counted(n) and n not in outputs and _is_read_by(graph, n, region)}
        rest = (chosen - region - counted) | {n for n in smaller - counted if _takes_much(n, chosen)}
        if all(_is_chain(node, rest, limits) for node in sums):
            dropped |= region
            chosen = rest
    return {node: None for node in graph.nodes if node in chosen} if dropped else stored, frozenset(dropped)


def _smaller(region: set[Node]) -> set[Node]:
    """What the values of a region are computed from that is smaller."""
    found: set[Node] = set()
    for node in region:
        for operand in node.inputs if node.op != "contract" else ():
            base = movement_base(operand)
            if operand not in region and base.type.size < node.type.size and base.op not in SOURCES:
                found.add(base)
    return found


def _takes_much(node: Node, chosen: set[Node]) -> bool:
    """Whether the value takes more than a plain operation on what is stored."""
    operands = {movement_base(i) for i in node.inputs}
    return node.op in _COSTLY or any(i.op not in SOURCES and i not in chosen for i in operands)


def _is_counted(node: Node) -> bool:
    """Whether the value follows from the place alone: a mask that compares numbers of rows and steps."""
    every = topological((node,), stop=lambda n: OPS[n.op].kind not in ("elementwise", "movement"))
    return all(OPS[n.op].kind in ("elementwise", "movement") or n.op in COMPUTED for n in every)


def _is_read_by(graph: Graph, node: Node, region: set[Node]) -> bool:
    """Whether only values of the region read the node, as it is or moved."""
    todo = [node]
    while todo:
        for user in graph.users[todo.pop()]:
            if user.op in MOVEMENT:
                todo.append(user)
            elif user not in region:
                return False
    return True


def merge_chains(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
    """Merge chains of the same rows and steps that compute the same products: these are computed once."""
    outputs = {base_of(o) for o in graph.outputs}
    every = [d for d in dict.fromkeys(drafts.maker.values()) if drafts.is_chained(d)]
    every.sort(key=lambda d: (len(d.domain), d.order))
    for first, other in combinations(every, 2):
        one, two = (drafts.maker[d.roots[0].target] for d in (first, other))
        if one is two or two.domain[: len(one.domain)] != one.domain or not _shared(one, two):
            continue
        if drafts.makes_cycle([one, two]):
            continue
        both = _both(one, two, outputs, drafts, stored, limits)
        if both is not None:
            drafts.replace([one, two], both)
    for draft in dict.fromkeys(drafts.maker.values()):
        if drafts.is_chained(draft):
            for root in draft.roots:
                if any(d < 0 for d in root.dims):
                    _finish(root, outputs, drafts, stored, limits)


def _finish(root: Root, outputs: set[Node], drafts: Drafts, stored: dict[Node, None], limits: Limits) -> None:
    """Merge into a chain what is computed from a sum that has inner loops, element by element."""
    for reader in sorted(drafts.readers[root.target], key=lambda d: d.order):
        chain = drafts.maker[root.target]
        if reader is chain or drafts.makes_cycle([chain, reader]) or reader.domain != root.value.shape:
            continue
        every = tuple(range(len(reader.domain)))
        if any(r.scatter or r.dims != every for r in reader.roots) or any(map(needs_loop, reader.inside)):
            continue
        axes, roots = symbols(reader)
        if wanted_at([root.target], reader, roots, limits)[root.target] != [tuple(map(Ix.of, axes))]:
            continue
        inner = [replace(r, dims=tuple(d if d >= 0 else -1 - k for k, d in enumerate(root.dims))) for r in reader.roots]
        both = _merged(chain, reader, chain.roots, inner, outputs, drafts, stored)
        if chain_of(both, limits) is not None:
            drafts.replace([chain, reader], both)


def _merged(
    one: Draft,
    two: Draft,
    first: list[Root],
    second: list[Root],
    outputs: set[Node],
    drafts: Drafts,
    stored: dict[Node, None],
) -> Draft:
    """A draft over the domain of `one` with those of both roots that somebody else reads."""
    placed = [*first, *second]
    shown = [
        root
        for root in placed
        if root.target in outputs or any(reader not in (one, two) for reader in drafts.readers[root.target])
    ]
    dropped = {root.target for root in placed} - {root.target for root in shown}
    both = Draft(shown, one.domain, max(one.order, two.order), one.internal | two.internal | dropped)
    walk(both, stored)
    return both


def _both(
    one: Draft, two: Draft, outputs: set[Node], drafts: Drafts, stored: dict[Node, None], limits: Limits
) -> Draft | None:
    """The chain that does what two do; None when that is none, or they share no product."""
    parts = [chain_of(d, limits) for d in (one, two)]
    both = _merged(one, two, one.roots, _inner(two, one.domain), outputs, drafts, stored)
    chain = chain_of(both, limits)
    if chain is None or sum(len(p.products) for p in parts if p is not None) == len(chain.products):
        return None
    return both


def _shared(one: Draft, two: Draft) -> bool:
    """Whether two chains compute the same product."""
    return any(node.op == "contract" and node in two.inside for node in one.inside)


def _inner(draft: Draft, domain: tuple[int, ...]) -> list[Root]:
    """The roots of a draft over the first axes of its domain; the others become inner loops of the roots."""
    rank = len(domain)
    return [
        replace(root, dims=tuple(d if d < rank else -1 - k for k, d in enumerate(root.dims))) for root in draft.roots
    ]


def chain_of(draft: Draft, limits: Limits) -> Chain | None:
    """The chain that a draft computes; None when it is none, too small for one, or too large for a block's memory."""
    if any(root.scatter for root in draft.roots) or draft.kept:
        return None
    axes, roots = symbols(draft)
    chain = find_chain(axes, [(root.value, at) for root, at in roots], frozenset(draft.inside))
    if chain is None:
        return None
    columns = sum(s.right.along.hi + 1 for s in chain.sums if s.right is not None)
    rows, steps, batch = (math.prod(v.hi + 1 for v in side) for side in (chain.rows, chain.steps, chain.batch))
    is_large = min(rows, steps) >= LEAST and batch * rows >= LEAST * BUSY * limits.cores
    lefts = [p.left for p in chain.products]
    rights = [p.right for p in chain.products] + [s.right for s in chain.sums if s.right is not None]
    own = sum(n * (m.along.hi + 1 + APART) for n, side in zip(LINES, (lefts, rights), strict=True) for m in side)
    return chain if is_large and columns <= MOST_COLUMNS and 2 * own <= limits.chains else None


def _is_chain(node: Node, chosen: set[Node], limits: Limits) -> bool:
    """Whether the sum `node` is a chain if `chosen` values are stored."""
    draft = Draft([Root(node, tuple(range(node.type.rank)))], node.shape, 0)
    walk(draft, dict.fromkeys(chosen))
    return chain_of(draft, limits) is not None


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
