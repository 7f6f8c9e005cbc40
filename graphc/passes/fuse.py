"""Fusion: which values are stored, and which are computed together in one kernel.

First some values are chosen to be stored (graph outputs, long reductions, operands of contractions, values that
several kernels would have to compute again). Each becomes the root of a group. Then a stored value whose only readers
are one group that walks the same domain moves into that group, and need not be stored any more.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.ir.access import Index
from graphc.ir.demand import (
    APART,
    COMPUTED,
    UNROLLED_REDUCTION,
    Demands,
    TooLarge,
    base_of,
    demands,
    needs_loop,
    stage_reads,
)
from graphc.ir.graph import Graph
from graphc.ir.index import ZERO, Ix, Symbol, Var, reshape_index
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_SCATTERS, FusedGraph, Group, Root
from graphc.passes.stored import (
    MAX_GROUP,
    MAX_PAIRS,
    choose_stored,
    is_joined,
    is_scatter,
    movement_base,
    operations,
)

MAX_ROW = 1 << 16  # longest row over which a kernel may first reduce and then loop again
MAX_STRIDED = 1 << 17  # elements that stay near a core, however they are walked
MIN_ROWS, MIN_ROW = 16, 1 << 12  # fewer rows than that keep too few cores busy, unless a row is short


@dataclass(eq=False)
class _Draft:
    """A group in the making."""

    roots: list[Root]
    domain: tuple[int, ...]
    order: int
    internal: frozenset[Node] = frozenset()  # chosen to be stored, but computed here and wanted nowhere else
    inside: set[Node] = field(default_factory=set)
    reads: set[Node] = field(default_factory=set)


def fuse(graph: Graph) -> FusedGraph:
    """Split `graph` (decomposed, laid out) into kernels."""
    stored = choose_stored(graph)
    drafts = {node: _draft(node, stored, i) for i, node in enumerate(stored)}
    merging = _Drafts(drafts)
    _merge(graph, stored, merging)
    groups = _ordered(list(dict.fromkeys(merging.maker.values())))
    made = [Group(g.domain, tuple(g.roots), frozenset(g.inside)) for g in groups]
    return FusedGraph(graph, tuple(g for g in made if any(t.type.size for t in g.targets)))


def _draft(node: Node, stored: dict[Node, None], order: int) -> _Draft:
    """A group that computes one stored value."""
    if is_joined(node):
        # Each operand is stored to its place, rather than every element chosen from all operands.
        dims = tuple(range(node.type.rank))
        draft = _Draft([Root(x, dims, (node,), i) for i, x in enumerate(node.inputs)], node.inputs[0].shape, order)
        _walk(draft, stored)
        return draft
    scatter: list[Node] = []
    value = node
    while is_scatter(value) and len(scatter) < MAX_SCATTERS and (value is node or value not in stored):
        scatter.insert(0, value)
        value = value.inputs[0]
    root = Root(value, tuple(range(value.type.rank)), tuple(scatter))
    draft = _Draft([root], value.shape, order)
    _walk(draft, stored)
    return draft


def _walk(draft: _Draft, stored: dict[Node, None]) -> None:
    """Fill in what is computed inside and what is read."""
    own = {r.target for r in draft.roots} | draft.internal
    accumulates = any(r.target.op in APART for r in draft.roots)
    # What a store goes through belongs to it, or the value would seem to die before it is stored.
    inside: set[Node] = own | {node for r in draft.roots for node in r.scatter}
    reads: set[Node] = set()
    stack: list[Node] = [r.value for r in draft.roots]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        base = base_of(node)
        if base.op == "input" or (base in stored and base not in own and (base.op not in COMPUTED or accumulates)):
            reads.add(base)
            continue
        inside.add(node)
        stack.extend(node.inputs)
    draft.inside, draft.reads = inside, reads


def _symbols(draft: _Draft) -> tuple[list[Var], list[tuple[Root, Index]]]:
    """Variables for the domain, and each root at its symbolic index."""
    axes = [Var(f"p{i}", max(n - 1, 0)) for i, n in enumerate(draft.domain)]
    roots = []
    for root in draft.roots:
        at = tuple(
            Ix.of(axes[d]) if d >= 0 else Ix.of(Var(f"q{k}", max(n - 1, 0)))
            for k, (d, n) in enumerate(zip(root.dims, root.value.shape, strict=True))
        )
        roots.append((root, at))
    return axes, roots


class _Drafts:
    """All drafts while they are merged: who makes each stored value, who reads it, and which drafts follow which.

    `after[d]` has the bit of `d` and of all drafts that need, by way of others too, what `d` makes.
    """

    def __init__(self, drafts: dict[Node, _Draft]) -> None:
        self.maker = drafts
        self.readers: dict[Node, set[_Draft]] = defaultdict(set)
        for draft in drafts.values():
            for leaf in draft.reads:
                self.readers[leaf].add(draft)
        self._made: dict[_Draft, list[Node]] = {draft: [node] for node, draft in drafts.items()}
        self._bit = {draft: 1 << i for i, draft in enumerate(drafts.values())}
        self._after: dict[_Draft, int] = {}
        for draft in reversed(drafts.values()):  # in topological order, so readers come first
            self._after[draft] = self._bit[draft] | self._follow(draft)

    def _follow(self, draft: _Draft, skip: Sequence[_Draft] = ()) -> int:
        """The bits of all drafts after those that read `draft` and are not in `skip`, these included."""
        found = 0
        for root in draft.roots:
            for reader in self.readers[root.target]:
                if reader not in skip:
                    found |= self._after[reader]
        return found

    def makes_cycle(self, parts: Sequence[_Draft]) -> bool:
        """Whether a draft outside `parts` both reads from and is read by them."""
        whole = 0
        for part in parts:
            whole |= self._bit[part]
        return any(self._follow(part, parts) & whole for part in parts)

    def replace(self, old: Sequence[_Draft], new: _Draft) -> None:
        """Put `new`, which makes and reads what `old` do, in their place."""
        for draft in old:
            for leaf in draft.reads:
                self.readers[leaf].discard(draft)
        for leaf in new.reads:
            self.readers[leaf].add(new)
        nodes = [node for draft in old for node in self._made.pop(draft)]
        self._made[new] = nodes
        self.maker.update(dict.fromkeys(nodes, new))
        bits = after = 0
        for draft in old:
            bits |= self._bit[draft]
            after |= self._after.pop(draft)
        self._bit[new], self._after[new] = self._bit[old[0]], after
        for draft, known in self._after.items():
            if known & bits:
                self._after[draft] = known | after


def _merge(graph: Graph, stored: dict[Node, None], drafts: _Drafts) -> None:
    """Merge producers into their readers while the result stays a legal kernel."""
    kept = {base_of(o) for o in graph.outputs}
    readers, maker = drafts.readers, drafts.maker
    for node in stored:
        if maker[node].roots[0].scatter or node.op in APART or node.type.size == 0:
            continue
        _merge_siblings(node, drafts, stored)
        for reader in sorted(readers[node], key=lambda g: g.order):
            producer = maker[node]
            if reader is producer or reader not in readers[node] or drafts.makes_cycle([producer, reader]):
                continue
            merged = _try_merge(producer, reader, node, readers, stored, kept)
            if merged is not None:
                drafts.replace([producer, reader], merged)


def _merge_siblings(node: Node, drafts: _Drafts, stored: dict[Node, None]) -> None:
    """Join groups that read `node` and walk equal domains, so that `node` may then move into all of them at once."""
    readers = drafts.readers
    if len(readers[node]) < 2:
        return
    if node.type.size == 1 and not any(needs_loop(n) for n in drafts.maker[node].inside):
        return  # a number costs little to read: it is no reason to put, say, updates of all parameters together
    by_domain: dict[tuple[int, ...], list[_Draft]] = defaultdict(list)
    for reader in sorted(readers[node], key=lambda g: g.order):
        if any(r.target.op in APART for r in reader.roots):
            return
        by_domain[reader.domain].append(reader)
    if len(by_domain) != 1:
        return
    first, *rest = next(iter(by_domain.values()))
    for other in rest:
        whole = [first, other]
        if any(n.op == "contract" for g in whole for n in g.inside) or drafts.makes_cycle(whole):
            return
        if any(r.target in g.reads for g in whole for h in whole for r in h.roots):
            return
        order, internal = max(first.order, other.order), first.internal | other.internal
        merged = _Draft([*first.roots, *other.roots], first.domain, order, internal)
        _walk(merged, stored)
        if _size(merged) is None:
            return
        drafts.replace(whole, merged)
        first = merged


def _size(draft: _Draft) -> Demands | None:
    """The walk of a whole draft, or None when it is too large for one kernel."""
    _, roots = _symbols(draft)
    try:
        walk = demands([(r.value, at) for r, at in roots], draft.inside, limit=MAX_PAIRS)
    except TooLarge:
        return None
    return walk if operations(walk) <= MAX_GROUP else None


def _try_merge(
    producer: _Draft,
    reader: _Draft,
    node: Node,
    readers: dict[Node, set[_Draft]],
    stored: dict[Node, None],
    kept: set[Node],
) -> _Draft | None:
    """The group that computes `producer` and `reader` together, or None when they do not fit."""
    if any(r.target.op in APART for r in reader.roots) or any(r.scatter for r in producer.roots):
        return None
    if sum(n.op == "contract" for g in (producer, reader) for n in g.inside) > 1:
        return None
    outside = {r.target: r.target in kept or any(g is not reader for g in readers[r.target]) for r in producer.roots}
    axes, roots = _symbols(reader)
    also = [r for r in producer.roots if r.target is not node and r.target in reader.reads]
    reads = _wanted([node, *(r.target for r in also)], reader, roots)
    wanted = reads[node]
    if wanted is None:
        return None
    merged: _Draft | None
    place = _alignment(node, wanted, axes)
    if also and (place is None or not _all_aligned(producer, node, place, {r: reads[r.target] for r in also}, axes)):
        return None
    if place is not None:
        merged = _aligned(producer, reader, node, place, outside)
    elif any(outside.values()) or len(producer.roots) > 1:
        return None
    elif any(needs_loop(n) for n in producer.inside):
        fits = not any(needs_loop(n) for n in reader.inside) and _is_windowed(node, wanted, axes)
        merged = _Draft(reader.roots, reader.domain, reader.order) if fits else None
    else:
        merged = _Draft(reader.roots, reader.domain, reader.order) if len(wanted) <= 2 else None
    if merged is None:
        return None
    dropped = {r.target for r in producer.roots} - {r.target for r in merged.roots}
    merged.internal = producer.internal | reader.internal | dropped
    _walk(merged, stored)
    return merged if _size(merged) is not None else None


def _wanted(nodes: Sequence[Node], reader: _Draft, roots: list[tuple[Root, Index]]) -> dict[Node, list[Index] | None]:
    """For each of `nodes` the indices at which `reader` reads it; None when there are none, or a contraction multiplies
    it (operands stay in memory).
    """
    found: dict[Node, dict[Index, None]] = {node: {} for node in nodes}
    multiplied: set[Node] = set()
    todo = [(r.value, at) for r, at in roots]
    stages: set[tuple[Node, Index]] = set()
    try:
        while todo:
            walk = demands(todo, reader.inside)
            for form, ats in walk.indices.items():
                base = base_of(form)
                if base in found:
                    found[base].update(dict.fromkeys(reshape_index(at, form.shape, base.shape) for at in ats))
            todo = []
            for stage, at in walk.stages:
                if (stage, at) in stages:
                    continue
                stages.add((stage, at))
                if stage.op == "contract":
                    multiplied.update(movement_base(i) for i in stage.inputs)
                    continue
                todo.extend(stage_reads(stage, at))
    except TooLarge:
        return dict.fromkeys(nodes)
    return {node: list(ats) if ats and node not in multiplied else None for node, ats in found.items()}


def _alignment(node: Node, wanted: list[Index], axes: list[Var]) -> tuple[int, ...] | None:
    """For each dimension of `node` the axis that indexes it (-1: size 1), when all reads are at one such index."""
    if len(wanted) != 1:
        return None
    place: list[int] = []
    for ix, extent in zip(wanted[0], node.shape, strict=True):
        if extent == 1 and ix == ZERO:
            place.append(-1)
            continue
        if len(ix.terms) != 1 or ix.const or ix.terms[0][1] != 1 or ix.terms[0][0] not in axes:
            return None
        axis = axes.index(ix.terms[0][0])  # type: ignore[arg-type]
        if axis in place or axes[axis].hi + 1 != extent:
            return None
        place.append(axis)
    return tuple(place)


def _all_aligned(
    producer: _Draft,
    node: Node,
    place: tuple[int, ...],
    also: dict[Root, list[Index] | None],
    axes: list[Var],
) -> bool:
    """Whether a reader of the producer's roots `also`, at the indices given with them, reads them at the point of the
    producer's domain at which it reads `node`.
    """
    source = next(r for r in producer.roots if r.target is node)
    point = {d: p for d, p in zip(source.dims, place, strict=True) if p >= 0}
    for root, wanted in also.items():
        own = None if wanted is None else _alignment(root.target, wanted, axes)
        if own is None or any(point.get(d, -1) != p for d, p in zip(root.dims, own, strict=True) if p >= 0):
            return False
    return True


def _is_windowed(node: Node, wanted: list[Index], axes: list[Var]) -> bool:
    """Whether each point of the reader's domain reads elements of `node` that no other point reads."""
    if len(wanted) > UNROLLED_REDUCTION:
        return False
    used: list[Symbol] = []
    for d in range(node.type.rank):
        if node.shape[d] == 1:
            continue
        keys = {at[d].terms for at in wanted}
        if len(keys) != 1 or len(terms := next(iter(keys))) != 1:
            return False
        symbol, coefficient = terms[0]
        if symbol not in axes or any(not 0 <= at[d].const < coefficient for at in wanted):
            return False
        used.append(symbol)
    return len(set(used)) == sum(axis.hi > 0 for axis in axes) == len(used)


def _aligned(
    producer: _Draft, reader: _Draft, node: Node, place: tuple[int, ...], outside: dict[Node, bool]
) -> _Draft | None:
    """Both groups over the axes that `node` is indexed by; the reader's other axes become inner loops of its roots."""
    source = next(r for r in producer.roots if r.target is node)
    if any(d < 0 for d in source.dims):
        return None
    moved_axes = [p for p in place if p >= 0]
    if moved_axes != sorted(moved_axes) and any(needs_loop(n) for n in producer.inside):
        return None  # the reader transposes: a kernel that only moves elements does that better
    used = set(place)
    inner = [a for a, n in enumerate(reader.domain) if a not in used and n > 1]
    if inner:
        length = math.prod(reader.domain[a] for a in inner)
        if any(needs_loop(n) for n in reader.inside) or any(n.op == "contract" for n in producer.inside):
            return None
        if min(inner) < max(moved_axes, default=-1) and math.prod(reader.domain) > MAX_STRIDED:
            return None  # the inner loops would stride through memory; by itself the reader walks it in order
        if any(r.scatter for r in reader.roots) or length > MAX_ROW or (node.type.size < MIN_ROWS and length > MIN_ROW):
            return None
    axes = [a for a in range(len(reader.domain)) if a not in inner]
    onto = {a: i for i, a in enumerate(axes)}
    moved = {d: onto[p] for d, p in zip(source.dims, place, strict=True) if p >= 0}
    roots = [
        replace(r, dims=tuple(moved.get(d, d) if d >= 0 else d for d in r.dims))
        for r in producer.roots
        if outside[r.target]
    ]
    if any(d >= 0 and d not in moved and producer.domain[d] > 1 for r in producer.roots for d in r.dims):
        return None
    roots += [replace(r, dims=tuple(onto.get(d, -1 - k) for k, d in enumerate(r.dims))) for r in reader.roots]
    domain = tuple(reader.domain[a] for a in axes)
    fixed = [
        replace(
            r, dims=tuple(_sized(d, n, domain, k) for k, (d, n) in enumerate(zip(r.dims, r.value.shape, strict=True)))
        )
        for r in roots
    ]
    return _Draft(fixed, domain, max(producer.order, reader.order))


def _sized(axis: int, extent: int, domain: tuple[int, ...], position: int) -> int:
    """`axis`, or an inner loop of length 1 when a size-1 dimension has no axis of that length."""
    return axis if 0 <= axis < len(domain) and domain[axis] == extent else -1 - position


def _ordered(drafts: list[_Draft]) -> list[_Draft]:
    """Drafts in an order in which each runs after what it reads."""
    maker = {r.target: d for d in drafts for r in d.roots}
    waiting = {d: {maker[n] for n in d.reads if n in maker} - {d} for d in drafts}
    users: dict[_Draft, list[_Draft]] = defaultdict(list)
    for draft, needs in waiting.items():
        for need in needs:
            users[need].append(draft)
    ready = [(d.order, i, d) for i, d in enumerate(drafts) if not waiting[d]]
    heapq.heapify(ready)
    result, count = [], len(drafts)
    while ready:
        _, _, draft = heapq.heappop(ready)
        result.append(draft)
        for user in users[draft]:
            waiting[user].discard(draft)
            if not waiting[user]:
                count += 1
                heapq.heappush(ready, (user.order, count, user))
    assert len(result) == len(drafts), "fusion made a cycle"
    return result
