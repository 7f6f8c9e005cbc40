"""Fusion of sums beside each other: those that go over the same large value in the same way are one kernel, which
reads it once. So are the sums that gradients of a batch norm want of each channel.
"""

from __future__ import annotations

from collections import defaultdict

from graphc.ir.demand import base_of, is_reduction, needs_loop, reduction_extents
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.passes.drafts import Draft, Drafts, Limits, size_of, walk
from graphc.passes.fuse_sums import LARGE

MOST = 8  # sums: each has registers of its own

_Way = tuple[tuple[int, ...], tuple[int, ...]]  # the domain, and the extents that are summed over


def merge_beside(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
    """Merge sums over the same large values."""
    if not limits.beside:
        return
    for node in (*map(base_of, graph.inputs), *stored):
        if node.type.nbytes < LARGE or len(drafts.readers[node]) < 2:
            continue
        alike: dict[_Way, list[Draft]] = defaultdict(list)
        for reader in sorted(drafts.readers[node], key=lambda d: d.order):
            if (way := _way(reader)) is not None:
                alike[way].append(reader)
        for readers in alike.values():
            _merge(readers, stored, drafts)


def _way(draft: Draft) -> _Way | None:
    """How a draft goes over what it reads, if all that it does is to reduce that."""
    loops = [node for node in draft.inside if needs_loop(node)]
    values = {root.value for root in draft.roots}
    if set(loops) != values or any(not is_reduction(n) or n.op == "contract" for n in loops):
        return None
    if any(root.scatter or root.target is not root.value for root in draft.roots) or draft.kept:
        return None
    extents = {reduction_extents(node) for node in loops}
    axes = {node.ints("axes") for node in loops}
    return (draft.domain, extents.pop()) if len(extents) == len(axes) == 1 else None


def _merge(readers: list[Draft], stored: dict[Node, None], drafts: Drafts) -> None:
    merged: list[Draft] = []
    for reader in readers:
        for place, other in enumerate(merged):
            both = _both(other, reader, stored, drafts)
            if both is not None:
                drafts.replace([other, reader], both)
                merged[place] = both
                break
        else:
            merged.append(reader)


def _both(first: Draft, other: Draft, stored: dict[Node, None], drafts: Drafts) -> Draft | None:
    """The kernel that does what two do; None where one waits for the other, or it does too much."""
    if len(first.roots) + len(other.roots) > MOST or _depend(first, other) or drafts.makes_cycle([first, other]):
        return None
    order, internal = max(first.order, other.order), first.internal | other.internal
    merged = Draft([*first.roots, *other.roots], first.domain, order, internal)
    walk(merged, stored)
    return merged if size_of(merged) is not None else None


def _depend(first: Draft, other: Draft) -> bool:
    """Whether one reads what the other makes."""
    pairs = ((first, other), (other, first))
    return any(root.target in reader.reads for maker, reader in pairs for root in maker.roots)
