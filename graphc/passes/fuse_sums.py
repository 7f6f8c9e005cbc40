"""Fusion of sums over rows with what else goes over these rows: a kernel that computes them, or reads what they are
computed from.

Both then run row by row, and what they share is read from memory once: the gradients of a layer norm are one kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.demand import APART, base_of, needs_loop
from graphc.ir.graph import Graph
from graphc.ir.index import ZERO, Ix
from graphc.ir.node import Node
from graphc.ir.row_sums import is_row_sum, row_axes
from graphc.ir.schedule import Root
from graphc.passes.drafts import Draft, Drafts, Limits, fitting_axis, size_of, symbols, walk, wanted_at

LARGE = 1 << 20  # bytes of a value that is worth reading once less


def merge_sums(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
    """Merge sums over rows with kernels over the same rows while they save reading a large value."""
    if not limits.sums:
        return
    outputs = {base_of(o) for o in graph.outputs}
    for node in (n for n in stored if is_row_sum(n)):
        while _merge_one(drafts.maker[node], stored, drafts, outputs, limits):
            pass


def _merge_one(sums: Draft, stored: dict[Node, None], drafts: Drafts, outputs: set[Node], limits: Limits) -> bool:
    """Merge `sums` with the first kernel that fits; whether there is one."""
    near = {drafts.maker[n] for n in sums.reads if n in drafts.maker}
    near |= {reader for n in sums.reads for reader in drafts.readers[n]}
    for other in sorted(near - {sums}, key=lambda d: d.order):
        if _saved(sums, other) < LARGE or drafts.makes_cycle([other, sums]):
            continue
        merged = _merged(sums, other, drafts, outputs, limits)
        if merged is None:
            continue
        walk(merged, stored)
        if size_of(merged) is not None:
            drafts.replace([other, sums], merged)
            return True
    return False


def _saved(sums: Draft, other: Draft) -> int:
    """Bytes of large values that `sums` needs not read when it runs with `other`."""
    shared = (sums.reads & other.reads) | (sums.reads & {r.target for r in other.roots})
    return sum(n.type.nbytes for n in shared if n.type.nbytes >= LARGE)


def _merged(sums: Draft, other: Draft, drafts: Drafts, outputs: set[Node], limits: Limits) -> Draft | None:
    """The kernel that computes both, or None where they do not fit."""
    for draft in (sums, other):
        if any((r.scatter and not r.adds) or r.target.op in APART for r in draft.roots):
            return None
        if any(n.op == "contract" for n in draft.inside):
            return None
    if any(r.target in other.reads for r in sums.roots):
        return None
    rows = max(row_axes(r) for r in sums.roots if r.adds)
    if sums.domain[:rows] != other.domain[:rows] or not _reads_own_rows(sums, other, rows, limits):
        return None
    domain = sums.domain if sums.domain == other.domain else sums.domain[:rows]
    if any(draft.domain != domain and not _is_flat(draft) for draft in (sums, other)):
        return None
    read = {r.target for r in other.roots if r.target in sums.reads}
    dropped = {t for t in read if t not in outputs and all(reader is sums for reader in drafts.readers[t])}
    kept = _placed([*other.kept, *sums.kept], domain)
    roots = [*(r for r in _placed(other.roots, domain) if r.target not in dropped), *_placed(sums.roots, domain)]
    targets, places = {r.target for r in roots}, math.prod(domain[:rows])
    own = sum(r.value.type.nbytes // places for r in kept if r.value not in targets)
    own += sum(r.value.type.nbytes // places for r in roots if r.adds)
    length = max(r.value.type.size // places for r in roots)
    if own > limits.own or (domain != sums.domain and limits.is_long(length, places)):
        return None
    internal = sums.internal | other.internal | dropped
    return Draft(roots, domain, max(sums.order, other.order), internal, kept=kept)


def _is_flat(draft: Draft) -> bool:
    """Whether each point of the domain is computed without loops, so that some axes can be loops of the roots."""
    sums = {node for r in draft.roots for node in r.scatter}
    return not draft.kept and not any(needs_loop(n) for n in draft.inside - sums)


def _reads_own_rows(sums: Draft, other: Draft, rows: int, limits: Limits) -> bool:
    """Whether `sums` reads of what `other` makes the row alone that it is at."""
    axes, roots = symbols(sums)
    made = [r for r in other.roots if r.target in sums.reads]
    wanted = wanted_at([r.target for r in made], sums, roots, limits)
    for root in made:
        outer = {axis: d for d, axis in enumerate(root.dims) if 0 <= axis < rows}
        if needs_loop(root.value) and len(outer) < root.value.type.rank - root.value.shape.count(1):
            return False
        if any(other.domain[axis] > 1 and axis not in outer for axis in range(rows)):
            return False
        for at in wanted[root.target] or [()]:
            if not at and root.value.type.rank:
                return False
            if any(at[d] != (Ix.of(axes[axis]) if axes[axis].hi else ZERO) for axis, d in outer.items()):
                return False
    return True


def _placed(roots: Sequence[Root], domain: tuple[int, ...]) -> list[Root]:
    """`roots` over the first axes of their domain only; the others become inner loops."""
    placed = []
    for root in roots:
        dims = [d if d < len(domain) else -1 - k for k, d in enumerate(root.dims)]
        fixed = (fitting_axis(d, n, domain, k) for k, (d, n) in enumerate(zip(dims, root.value.shape, strict=True)))
        placed.append(replace(root, dims=tuple(fixed)))
    return placed
