"""Fusion along rows: a value that a kernel computes row by row moves into a reader that reads whole rows of it.

Both then run for one row after the other. The rows of the value are kept: computed once, and read again, perhaps in
several loops, while they are in the nearest cache. So a softmax is one kernel, whose exponentials are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.access import Index
from graphc.ir.demand import APART, UNROLLED_REDUCTION, base_of, needs_loop
from graphc.ir.graph import Graph
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.schedule import Root
from graphc.passes.drafts import (
    MAX_STRIDED,
    Draft,
    Drafts,
    Limits,
    fitting_axis,
    size_of,
    symbols,
    walk,
    wanted_at,
)

Wanted = dict[Node, list[Index] | None]


def merge_rows(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
    """Merge producers into readers of their rows while the result stays a legal kernel."""
    outputs = {base_of(o) for o in graph.outputs}
    order = {node: i for i, node in enumerate(stored)}
    for node in stored:
        for reader in sorted(drafts.readers[node], key=lambda g: g.order):
            producer = drafts.maker[node]
            if reader is producer or reader not in drafts.readers[node] or not _may_merge(node, producer, reader):
                continue
            if drafts.makes_cycle([producer, reader]):
                continue
            shown = {
                r.target
                for r in producer.roots
                if r.target in outputs or any(g is not reader for g in drafts.readers[r.target])
            }
            merged = _merged(producer, reader, node, shown, limits)
            if merged is None:
                continue
            merged.kept.sort(key=lambda r: order[r.value])
            walk(merged, stored)
            if size_of(merged) is not None:
                drafts.replace([producer, reader], merged)


def _may_merge(node: Node, producer: Draft, reader: Draft) -> bool:
    if needs_loop(node) or node.type.size == 0:
        return False
    for draft in (producer, reader):
        if any(r.scatter or r.target.op in APART for r in draft.roots) or any(n.op == "contract" for n in draft.inside):
            return False
    return True


def _merged(producer: Draft, reader: Draft, node: Node, shown: set[Node], limits: Limits) -> Draft | None:
    """The group that computes `producer` and `reader` row by row, or None when they do not fit. `shown` are the
    producer's targets that others read.
    """
    read = [r for r in producer.roots if r.target in reader.reads]
    axes, roots = symbols(reader)
    wanted = wanted_at([r.target for r in read], reader, roots, limits)
    onto = _common_axes(producer, read, wanted, axes)
    outer = list(onto.values())
    if not outer or outer != sorted(outer):
        return None
    if any(not _reads_row(r, wanted[r.target] or [], onto, axes) for r in read):
        return None
    rows = math.prod(reader.domain[p] for p in outer)
    length = node.type.size // rows
    if length <= UNROLLED_REDUCTION or limits.is_long(length, rows):
        return None  # short rows are computed in line, many side by side
    for draft, taken in ((producer, set(onto)), (reader, set(outer))):
        inner = [a for a, n in enumerate(draft.domain) if n > 1 and a not in taken]
        if inner and any(needs_loop(n) for n in draft.inside):
            return None
        if inner and min(inner) < max(taken) and math.prod(draft.domain) > MAX_STRIDED:
            return None  # the inner loops would stride through memory
    domain = tuple(reader.domain[p] for p in outer)
    first = {a: i for i, a in enumerate(onto)}
    second = {p: i for i, p in enumerate(outer)}
    again = [r for r in read if r.value.type.size > rows and not needs_loop(r.value)]
    kept = [*_placed([*producer.kept, *again], first, domain), *_placed(reader.kept, second, domain)]
    kept = list({r.value: r for r in kept}.values())  # a row that is read at several places is kept once
    made = [*_placed([r for r in producer.roots if r.target in shown], first, domain)]
    made += _placed(reader.roots, second, domain)
    targets = {r.target for r in made}
    if sum(r.value.type.nbytes // rows for r in kept if r.value not in targets) > limits.own:
        return None
    merged = Draft(made, domain, max(producer.order, reader.order), kept=kept)
    dropped = {r.target for r in producer.roots} - targets
    merged.internal = producer.internal | reader.internal | dropped
    return merged


def _common_axes(producer: Draft, read: Sequence[Root], wanted: Wanted, axes: list[Var]) -> dict[int, int]:
    """The producer's axes, in order, that are the reader's too: which of them indexes each, at all reads."""
    onto: dict[int, int] = {}
    for axis, extent in enumerate(producer.domain):
        if extent == 1:
            continue
        found = {at[d] for r in read for at in wanted[r.target] or [] for d, a in enumerate(r.dims) if a == axis}
        ix = next(iter(found)) if len(found) == 1 else Ix()
        theirs = next((p for p, var in enumerate(axes) if var.hi + 1 == extent and ix == Ix.of(var)), None)
        if theirs is not None and theirs not in onto.values():
            onto[axis] = theirs
    return onto


def _reads_row(root: Root, wanted: list[Index], onto: dict[int, int], axes: list[Var]) -> bool:
    """Whether what is read of `root` at a point of the common axes is, in memory, one row, and only that."""
    shape = root.value.shape
    outer = [d for d, a in enumerate(root.dims) if a in onto]
    inner = [d for d, n in enumerate(shape) if d not in outer and n > 1]
    if not wanted or len(outer) != len(onto) or (inner and (needs_loop(root.value) or min(inner) < max(outer))):
        return False
    common = {axes[p] for p in onto.values()}
    return all(symbol not in common for at in wanted for d in inner for symbol, _ in at[d].terms)


def _placed(roots: Sequence[Root], onto: dict[int, int], domain: tuple[int, ...]) -> list[Root]:
    """`roots` over other axes: `onto` says which; all others become inner loops."""
    placed = []
    for root in roots:
        dims = [onto.get(d, -1 - k) if d >= 0 else d for k, d in enumerate(root.dims)]
        fixed = (fitting_axis(d, n, domain, k) for k, (d, n) in enumerate(zip(dims, root.value.shape, strict=True)))
        placed.append(replace(root, dims=tuple(fixed)))
    return placed
