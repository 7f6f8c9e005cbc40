"""Kernels in the making: groups of values that fusion merges, who reads whom, and what a group wants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.ir.access import Index
from graphc.ir.demand import APART, COMPUTED, Demands, TooLarge, base_of, demands, stage_reads
from graphc.ir.index import Ix, Var, reshape_index
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.row_sums import cut_of
from graphc.ir.schedule import Root
from graphc.passes.shown import MOVEMENT, movement_base
from graphc.passes.stored import MAX_GROUP, MAX_PAIRS

MAX_ROW = 1 << 16  # longest row over which a kernel may first reduce and then loop again
MAX_STRIDED = 1 << 17  # elements that stay near a core, however they are walked
MIN_ROWS, MIN_ROW = 16, 1 << 12  # fewer rows than that keep too few cores busy, unless a row is short
MAX_OWN = 1 << 16  # bytes of rows that a kernel may keep besides what it stores


@record
class Limits:
    """What one kernel may have on a device: rows of up to `row` elements, when it has fewer than `few` of them up to
    `short`, `own` bytes of memory of its own for one. Values of which each point reads a window move into kernels of at
    least `points` points, products of a contraction only along an axis that no window steps along, unless `strided`
    ones cost no more. With `pads` padding is computed, and no memory filled before a value is stored into it. With
    `sums` rows may be added to one in memory (`ir/row_sums.py`), with `masks` contractions that read each
    element a few times pad what they read, with `scans` scans compute what they read where that is little, with
    `halves` contractions of 16-bit floats that are converted to f32 read them as they are, `beside` each other sums of
    the same values are one kernel. Chains of contractions compute large products again rather than store them, where
    what a block keeps takes up to `chains` bytes, and there are blocks for some of the `cores`.
    """

    row: int = MAX_ROW
    few: int = MIN_ROWS
    short: int = MIN_ROW
    own: int = MAX_OWN
    points: int = 0
    strided: bool = False
    pads: bool = False
    sums: bool = True
    masks: bool = False
    scans: bool = True
    halves: bool = False
    beside: bool = False
    chains: int = 0
    cores: int = 1

    def is_long(self, length: int, rows: int) -> bool:
        """Whether `rows` rows of `length` elements are too long for a kernel that does one row at a time."""
        return length > self.row or (rows < self.few and length > self.short)


ON_CPU = Limits()
WITH_MASKS = Limits(masks=True)  # vectors of which some elements are not read
# Blocks of threads read long rows from memory again, and many of them run at once.
ON_GPU = Limits(
    row=1 << 17, few=0, own=1 << 20, points=1 << 16, strided=True, pads=True, sums=False, scans=False, beside=True
)


@dataclass(eq=False)
class Draft:
    """A group in the making."""

    roots: list[Root]
    domain: tuple[int, ...]
    order: int
    internal: frozenset[Node] = frozenset()  # chosen to be stored, but computed here and wanted nowhere else
    inside: set[Node] = field(default_factory=set)
    reads: set[Node] = field(default_factory=set)
    kept: list[Root] = field(default_factory=list)  # see Group


def walk(draft: Draft, stored: dict[Node, None]) -> None:
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


def symbols(draft: Draft) -> tuple[list[Var], list[tuple[Root, Index]]]:
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


class Drafts:
    """All drafts while they are merged: who makes each stored value, who reads it, and which drafts follow which.

    `after[d]` has the bit of `d` and of all drafts that need, by way of others too, what `d` makes. `chained` are the
    values that chains of contractions compute again.
    """

    def __init__(self, drafts: dict[Node, Draft], chained: frozenset[Node] = frozenset()) -> None:
        self.maker = drafts
        self._chained = chained
        self.readers: dict[Node, set[Draft]] = defaultdict(set)
        for draft in drafts.values():
            for leaf in draft.reads:
                self.readers[leaf].add(draft)
        self._made: dict[Draft, list[Node]] = {draft: [node] for node, draft in drafts.items()}
        self._bit = {draft: 1 << i for i, draft in enumerate(drafts.values())}
        self._after: dict[Draft, int] = {}
        for draft in reversed(drafts.values()):  # in topological order, so readers come first
            self._after[draft] = self._bit[draft] | self._follow(draft)

    def is_chained(self, draft: Draft) -> bool:
        """Whether the draft is a chain of contractions."""
        return not self._chained.isdisjoint(draft.inside)

    def _follow(self, draft: Draft, skip: Sequence[Draft] = ()) -> int:
        """The bits of all drafts after those that read `draft` and are not in `skip`, these included."""
        found = 0
        for root in draft.roots:
            for reader in self.readers[root.target]:
                if reader not in skip:
                    found |= self._after[reader]
        return found

    def makes_cycle(self, parts: Sequence[Draft]) -> bool:
        """Whether a draft outside `parts` both reads from and is read by them."""
        whole = 0
        for part in parts:
            whole |= self._bit[part]
        return any(self._follow(part, parts) & whole for part in parts)

    def replace(self, old: Sequence[Draft], new: Draft) -> None:
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


def size_of(draft: Draft) -> Demands | None:
    """The walk of a whole draft, or None when it is too large for one kernel, or sums rows in several ways."""
    _, roots = symbols(draft)
    try:
        cut_of(draft.roots, draft.domain)
    except ValueError:
        return None
    try:
        walk = demands([(r.value, at) for r, at in roots], draft.inside, limit=MAX_PAIRS)
    except TooLarge:
        return None
    return walk if walk.operations <= MAX_GROUP else None


def wanted_at(
    nodes: Sequence[Node], reader: Draft, roots: list[tuple[Root, Index]], limits: Limits
) -> dict[Node, list[Index] | None]:
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
                    if limits.pads or limits.masks:
                        multiplied.update(movement_base(i, MOVEMENT | {"pad"}) for i in stage.inputs)
                    continue
                todo.extend(stage_reads(stage, at))
    except TooLarge:
        return dict.fromkeys(nodes)
    return {node: list(ats) if ats and node not in multiplied else None for node, ats in found.items()}


def fitting_axis(axis: int, extent: int, domain: tuple[int, ...], position: int) -> int:
    """`axis`, or an inner loop of length 1 when a size-1 dimension has no axis of that length."""
    return axis if 0 <= axis < len(domain) and domain[axis] == extent else -1 - position
