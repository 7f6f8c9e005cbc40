"""Fusion: which values are stored, and which are computed together in one kernel.

First some values are chosen to be stored (graph outputs, long reductions, operands of contractions, values that
several kernels would have to compute again). Each becomes the root of a group. Then a stored value whose only readers
are one group that walks the same domain moves into that group, and need not be stored any more. At last groups that
read rows of what others make run together row by row (`fuse_rows.py`), and scans compute what they read
(`fuse_scans.py`).
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import replace

from graphc.ir.access import Index
from graphc.ir.demand import APART, UNROLLED_REDUCTION, WIDE_STRIDE, base_of, demands, is_reduction, needs_loop
from graphc.ir.graph import Graph
from graphc.ir.index import ZERO, Data, Symbol, Var
from graphc.ir.node import Node
from graphc.ir.row_sums import is_row_sum, row_sum_root
from graphc.ir.schedule import MAX_SCATTERS, FusedGraph, Group, Root
from graphc.passes.drafts import (
    MAX_STRIDED,
    ON_CPU,
    Draft,
    Drafts,
    Limits,
    fitting_axis,
    size_of,
    symbols,
    walk,
    wanted_at,
)
from graphc.passes.fuse_beside import merge_beside
from graphc.passes.fuse_chains import chain_of, chained, merge_chains
from graphc.passes.fuse_rows import merge_rows
from graphc.passes.fuse_scans import merge_scans
from graphc.passes.fuse_sums import merge_sums
from graphc.passes.shown import is_cut, is_joined, is_scatter
from graphc.passes.stored import choose_stored

MAX_TRANSPOSED = 32  # operations and accesses for an element up to which a reader may transpose what it computes
MANY = 1024  # rows for which one more kernel takes less time than it saves


def fuse(graph: Graph, limits: Limits = ON_CPU) -> FusedGraph:
    """Split `graph` (decomposed, laid out) into kernels of what `limits` allow."""
    stored, in_chains = chained(graph, choose_stored(graph, limits.pads, limits.masks, limits.halves), limits)
    drafts = {node: _draft(node, stored, i, limits) for i, node in enumerate(stored)}
    merging = Drafts(drafts, in_chains)
    merge_chains(graph, stored, merging, limits)
    _merge(graph, stored, merging, limits)
    merge_rows(graph, stored, merging, limits)
    merge_beside(graph, stored, merging, limits)
    merge_sums(graph, stored, merging, limits)
    merge_scans(graph, stored, merging, limits)
    groups = _ordered(list(dict.fromkeys(merging.maker.values())))
    made = [Group(g.domain, tuple(g.roots), frozenset(g.inside), tuple(g.kept)) for g in groups]
    return FusedGraph(graph, tuple(g for g in made if any(t.type.size for t in g.targets)))


def _draft(node: Node, stored: dict[Node, None], order: int, limits: Limits) -> Draft:
    """A group that computes one stored value."""
    if is_joined(node):
        return _joined_draft(node, (), stored, order, limits)
    if limits.sums and is_row_sum(node):
        root = row_sum_root(node)
        draft = Draft([root], root.value.shape, order)
        walk(draft, stored)
        return draft
    value, scatter = node, list[Node]()
    for cuts in (False,) if limits.pads else (True, False):
        value, scatter = _stored_through(node, stored, limits, cuts)
        moved = (value,) if value.op == "reshape" else ()
        joined = value.inputs[0] if moved else value
        if scatter and not limits.pads and is_joined(joined) and not {value, joined} & stored.keys():
            return _joined_draft(joined, (*moved, *scatter), stored, order, limits)
    root = Root(value, tuple(range(value.type.rank)), tuple(scatter))
    draft = Draft([root], value.shape, order)
    walk(draft, stored)
    return draft


def _stored_through(node: Node, stored: dict[Node, None], limits: Limits, cuts: bool) -> tuple[Node, list[Node]]:
    """The value that is computed for `node`, and what it is stored through; with `cuts` also what leaves out some."""
    scatter: list[Node] = []
    value = node
    while is_scatter(value) or (cuts and is_cut(value)):
        if (
            len(scatter) == MAX_SCATTERS
            or (value is not node and value in stored)
            or (limits.pads and value.op == "pad")
        ):
            break
        scatter.insert(0, value)
        value = value.inputs[0]
    return value, scatter


def _joined_draft(node: Node, then: tuple[Node, ...], stored: dict[Node, None], order: int, limits: Limits) -> Draft:
    """A group that stores each operand of a concatenation to its place, rather than choose every element from all
    operands. What is stored goes through `then`.
    """
    dims = tuple(range(node.type.rank))
    roots = [Root(x, dims, (node, *then), i) for i, x in enumerate(node.inputs)]
    draft = Draft(roots, node.inputs[0].shape, order)
    walk(draft, stored)
    return draft if limits.pads else _as_read(draft, stored, limits)


def _as_read(draft: Draft, stored: dict[Node, None], limits: Limits) -> Draft:
    """`draft` with its axes in the order in which it reads the products of a contraction, but for the last one: both
    can then go along the first ones together (`codegen/regions.py`).
    """
    axes, roots = symbols(draft)
    products = [n for n in draft.reads if n.op == "contract"]
    wanted = wanted_at(products, draft, roots, limits)[products[0]] if len(products) == 1 else None
    if not wanted:
        return draft
    last = axes[-1]
    read = dict.fromkeys(s for ix in wanted[0] for s in ix.symbols() if s in axes and s.hi and s is not last)
    order = [axes.index(v) for v in (*read, *(v for v in axes if v not in read and v is not last), last)]  # type: ignore[arg-type]
    onto = {axis: place for place, axis in enumerate(order)}
    moved = [replace(r, dims=tuple(onto.get(d, d) for d in r.dims)) for r in draft.roots]
    draft = Draft(moved, tuple(draft.domain[axis] for axis in order), draft.order)
    walk(draft, stored)
    return draft


def _merge(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
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
            merged = _try_merge(producer, reader, node, readers, stored, kept, limits)
            if merged is not None and not (drafts.is_chained(merged) and chain_of(merged, limits) is None):
                drafts.replace([producer, reader], merged)


def _merge_siblings(node: Node, drafts: Drafts, stored: dict[Node, None]) -> None:
    """Join groups that read `node` and walk equal domains, so that `node` may then move into all of them at once."""
    readers = drafts.readers
    if len(readers[node]) < 2:
        return
    if node.type.size == 1 and not any(needs_loop(n) for n in drafts.maker[node].inside):
        return  # a number costs little to read: it is no reason to put, say, updates of all parameters together
    by_domain: dict[tuple[int, ...], list[Draft]] = defaultdict(list)
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
        merged = Draft([*first.roots, *other.roots], first.domain, order, internal)
        walk(merged, stored)
        if size_of(merged) is None:
            return
        drafts.replace(whole, merged)
        first = merged


def _try_merge(
    producer: Draft,
    reader: Draft,
    node: Node,
    readers: dict[Node, set[Draft]],
    stored: dict[Node, None],
    kept: set[Node],
    limits: Limits,
) -> Draft | None:
    """The group that computes `producer` and `reader` together, or None when they do not fit."""
    if any(r.target.op in APART for r in reader.roots) or any(r.scatter for r in producer.roots):
        return None
    if all(any(n.op == "contract" for n in g.inside) for g in (producer, reader)):
        return None
    if any(n.op == "materialize" and n.inputs[0].op == "concat" for n in producer.inside):
        return None  # stored for good (`wide_concats.py`)
    outside = {r.target: r.target in kept or any(g is not reader for g in readers[r.target]) for r in producer.roots}
    axes, roots = symbols(reader)
    also = [r for r in producer.roots if r.target is not node and r.target in reader.reads]
    reads = wanted_at([node, *(r.target for r in also)], reader, roots, limits)
    wanted = reads[node]
    if wanted is None:
        return None
    merged: Draft | None
    place = _alignment(node, wanted, axes)
    if also and (place is None or not _all_aligned(producer, node, place, {r: reads[r.target] for r in also}, axes)):
        return None
    if place is not None:
        merged = _aligned(producer, reader, node, place, outside, limits)
    elif any(outside.values()) or len(producer.roots) > 1:
        return None
    elif any(needs_loop(n) for n in producer.inside):
        fits = not any(needs_loop(n) for n in reader.inside) and _is_windowed(node, wanted, axes)
        fits = fits and math.prod(reader.domain) >= limits.points
        fits = fits and (limits.strided or not _is_strided_product(producer, node, wanted, axes))
        merged = Draft(reader.roots, reader.domain, reader.order) if fits else None
    else:
        fits = len(wanted) <= 2 and not _is_picked(producer, node, wanted) and not _is_turned(node, reader)
        merged = Draft(reader.roots, reader.domain, reader.order) if fits else None
    if merged is None:
        return None
    dropped = {r.target for r in producer.roots} - {r.target for r in merged.roots}
    merged.internal = producer.internal | reader.internal | dropped
    walk(merged, stored)
    return merged if size_of(merged) is not None else None


def _is_turned(node: Node, reader: Draft) -> bool:
    """Whether the node is another order in memory, made for the loops in which it is read."""
    is_moved = node.op == "materialize" and node.inputs[0].op == "permute"
    return is_moved and any(needs_loop(n) for n in reader.inside)


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
    producer: Draft,
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
    """Whether each point of the reader's domain reads elements of `node` that no other point reads.

    No point may name one past them, as padding does where it takes its own value: a product is computed at all points.
    """
    if len(wanted) > UNROLLED_REDUCTION:
        return False
    if any(not 0 <= ix.lo <= ix.hi < extent for at in wanted for ix, extent in zip(at, node.shape, strict=True)):
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


def _is_picked(producer: Draft, node: Node, wanted: list[Index]) -> bool:
    """Whether neighbours of `node` are picked by an index, each of which is computed from several elements: each of
    these would be picked, too, where they are read side by side to store `node`.
    """
    innermost = max((d for d in range(node.type.rank) if node.shape[d] > 1), default=None)
    if innermost is None or not any(isinstance(s, Data) for at in wanted for s, _ in at[innermost].terms):
        return False
    whole = sum(base.type.size >= node.type.size for base in producer.reads)
    return whole > 1 or any(is_reduction(n) for n in producer.inside)


def _is_strided_product(producer: Draft, node: Node, wanted: list[Index], axes: list[Var]) -> bool:
    """Whether `node` holds products whose neighbours in memory are elements of one window: then no axis of the reader
    walks along both them and their operands, so that vectors would be put together from single elements.
    """
    if not any(n.op == "contract" for n in producer.inside):
        return False
    innermost = max((d for d in range(node.type.rank) if node.shape[d] > 1), default=None)
    return innermost is not None and all(wanted[0][innermost].coefficient(axis) != 1 for axis in axes)


def _aligned(
    producer: Draft, reader: Draft, node: Node, place: tuple[int, ...], outside: dict[Node, bool], limits: Limits
) -> Draft | None:
    """Both groups over the axes that `node` is indexed by; the reader's other axes become inner loops of its roots."""
    source = next(r for r in producer.roots if r.target is node)
    if any(d < 0 for d in source.dims):
        return None
    moved_axes = [p for p in place if p >= 0]
    if moved_axes != sorted(moved_axes) and (any(needs_loop(n) for n in producer.inside) or _is_much(producer)):
        return None  # the reader transposes: a kernel that only moves elements does that better
    used = set(place)
    inner = [a for a, n in enumerate(reader.domain) if a not in used and n > 1]
    if inner:
        length = math.prod(reader.domain[a] for a in inner)
        if length <= UNROLLED_REDUCTION and node.type.size >= MANY:
            return None  # lanes run across rows so short, and a row's places are computed together
        if any(needs_loop(n) for n in reader.inside) or any(n.op == "contract" for n in producer.inside):
            return None
        strides = min(inner) < max(moved_axes, default=-1) or _is_across(reader, inner[-1])
        if strides and math.prod(reader.domain) > MAX_STRIDED:
            return None  # the inner loops would stride through memory; by itself the reader walks it in order
        if any(r.scatter for r in reader.roots) or limits.is_long(length, node.type.size):
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
    fixed = []
    for r in roots:
        sizes = enumerate(zip(r.dims, r.value.shape, strict=True))
        fixed.append(replace(r, dims=tuple(fitting_axis(d, n, domain, k) for k, (d, n) in sizes)))
    return Draft(fixed, domain, max(producer.order, reader.order))


def _is_much(producer: Draft) -> bool:
    """Whether computing an element takes too many registers for blocks of them to be transposed."""
    found = size_of(producer)
    return found is None or found.operations + len(found.loads) > MAX_TRANSPOSED


def _is_across(reader: Draft, axis: int) -> bool:
    """Whether the group reads elements that lie apart along `axis`, those of a transposed value."""
    axes, roots = symbols(reader)
    loads = demands([(root.value, at) for root, at in roots], reader.inside).loads
    return any(abs(address.coefficient(axes[axis])) > WIDE_STRIDE for _, address in loads)


def _ordered(drafts: list[Draft]) -> list[Draft]:
    """Drafts in an order in which each runs after what it reads."""
    maker = {r.target: d for d in drafts for r in d.roots}
    waiting = {d: {maker[n] for n in d.reads if n in maker} - {d} for d in drafts}
    users: dict[Draft, list[Draft]] = defaultdict(list)
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
