"""Regions: runs of kernels that go along their common outermost axes together, block by block.

What one kernel writes for a block and only others of the region read lies in a small piece of memory that each thread
uses again for all of its blocks, so that it does not leave the cache. The kernels stay as they are: their range is cut,
and their pointers are moved.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.codegen.blocks import Blocks
from graphc.codegen.reuse import Kernels
from graphc.codegen.target import Target
from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import SHARE, FusedGraph, Group, Region, stays_near
from graphc.ir.schedule_verify import reads_of

MAX_SKIPPED = 8  # kernels that do not fit in which are passed over before a region ends
DEPTH = 2  # axes, from the outermost on, that blocks may be places of
MIN_BLOCK = 4096  # bytes of a result that blocks of several axes must have: each costs a call of every kernel
LEAST = 256  # bytes that a kernel touches of a block: lanes run across shorter rows, which blocks would keep apart
GAIN = 1  # a region keeps at least so many times what the second cache holds from going further


def find_regions(fused: FusedGraph, kernels: Kernels, target: Target) -> tuple[FusedGraph, tuple[Region, ...]]:
    """The regions of a program, and its kernels in an order in which those of a region follow each other."""
    finder = _Finder(fused, kernels, target)
    if not finder.is_large():
        return fused, ()
    groups, regions = finder.run()
    return (FusedGraph(fused.graph, groups), regions) if regions else (fused, ())


@dataclass(slots=True)
class _Growing:
    """A region in the making: its kernels, what they make block by block, and what is there only when all blocks are
    done: other things that they make, and what later kernels make of any of it.
    """

    count: int
    members: list[Group] = field(default_factory=list)
    made: set[Node] = field(default_factory=set)
    late: set[Node] = field(default_factory=set)

    def add(self, group: Group, blocks: Blocks) -> None:
        """Take a kernel that goes by these blocks."""
        self.members.append(group)
        for target in group.targets:
            (self.made if blocks.strides.get(target) else self.late).add(target)


class _Finder:
    def __init__(self, fused: FusedGraph, kernels: Kernels, target: Target) -> None:
        self._groups = fused.groups
        self._kernels = kernels
        self._target = target
        self._budget = SHARE * target.l2_bytes
        self._kept = {base_of(o) for o in fused.graph.outputs} | set(fused.graph.inputs)
        self._reads = {g: reads_of(g) for g in fused.groups}
        self._readers: dict[Node, list[Group]] = defaultdict(list)
        for group, nodes in self._reads.items():
            for node in nodes:
                self._readers[node].append(group)
        self._blocks: dict[tuple[Group, int], Blocks | None] = {}

    def is_large(self) -> bool:
        """Whether intermediates leave the second cache at all."""
        stored = (t for g in self._groups for t in g.targets if t not in self._kept)
        return sum(t.type.nbytes for t in stored) > self._target.l2_bytes

    def run(self) -> tuple[tuple[Group, ...], tuple[Region, ...]]:
        """All groups in their new order, and the regions in it."""
        rest, start = list(self._groups), 0
        done: list[Group] = []
        regions: list[Region] = []
        while start < len(rest):
            for count in _counts(rest[start]):
                before, grown, after, end = self._grow(rest, start, count)
                region = self._region(len(done) + len(before), grown)
                if region is not None:
                    break
            else:
                done.append(rest[start])
                start += 1
                continue
            for group in grown.members:
                self._kernels.cut(group, region.blocks)
            done += [*before, *grown.members]
            regions.append(region)
            rest, start = [*after, *rest[end:]], 0
        return tuple(done), tuple(regions)

    def _grow(self, rest: Sequence[Group], start: int, count: int) -> tuple[list[Group], _Growing, list[Group], int]:
        """A region of `count` blocks that begins with number `start` of `rest`: what must run before it, itself, what
        must run after, and where the groups begin that it does not touch.
        """
        readers = [r for target in rest[start].targets for r in self._readers[target]]
        first = self._of(rest[start], count) if any(count in _counts(r) for r in readers) else None
        grown = _Growing(count)
        if first is not None:
            grown.add(rest[start], first)
        end, skipped = start + 1, 0
        before: list[Group] = []
        after: list[Group] = []
        pending: list[tuple[Group, bool]] = []  # passed over since the last member, and whether they wait for it
        for place in range(start + 1, len(rest)):
            group = rest[place]
            if first is None or skipped > MAX_SKIPPED:
                break
            blocks = self._joining(group, grown)
            if blocks is not None:
                grown.add(group, blocks)
                for one, waits in pending:
                    (after if waits else before).append(one)
                pending, skipped, end = [], 0, place + 1
                continue
            waits = any(n in grown.made or n in grown.late for n in self._reads[group])
            if waits:
                grown.late.update(group.targets)
            pending.append((group, waits))
            skipped += 1
        return before, grown, after, end

    def _of(self, group: Group, count: int) -> Blocks | None:
        """How a group can go by so many blocks. None also when its own blocks are too large for the cache."""
        if (group, count) not in self._blocks:
            found = None
            if count in _counts(group) and self._is_even(count):
                found = self._kernels.by_blocks(group, count)
            fits = found is not None and found.own >= LEAST and self._stays_near(found)
            self._blocks[group, count] = found if fits else None
        return self._blocks[group, count]

    def _is_even(self, count: int) -> bool:
        """Whether threads would have about equal work."""
        cores = self._target.cores
        return count >= cores and (count % cores == 0 or count >= 4 * cores)

    def _stays_near(self, blocks: Blocks) -> bool:
        """Whether a block fits the cache with what all blocks read, which else came from further away for each."""
        return stays_near(blocks.own, self._shared(blocks), self._target.l2_bytes)

    def _shared(self, blocks: Blocks) -> int:
        """Bytes that all blocks read."""
        return blocks.scratch + sum(n.type.nbytes for n in blocks.shared)

    def _joining(self, group: Group, grown: _Growing) -> Blocks | None:
        """The blocks by which a kernel can run with those before it, if it has to do with them."""
        reads = self._reads[group]
        if any(n in grown.late for n in reads):
            return None
        mine = [n for n in reads if n in grown.made]
        blocks = self._of(group, grown.count) if mine else None
        if blocks is None or not all(blocks.strides.get(n) and n not in blocks.copied for n in mine):
            return None
        return blocks

    def _region(self, first: int, grown: _Growing) -> Region | None:
        """The region of these groups, if it keeps enough traffic in the cache."""
        members = set(grown.members)
        local = frozenset(n for n in grown.made if n not in self._kept and members.issuperset(self._readers[n]))
        read = sum(n.type.nbytes for g in grown.members for n in self._reads[g] if n in grown.made)
        if len(members) < 2 or read + sum(n.type.nbytes for n in local) < GAIN * self._target.l2_bytes:
            return None
        found = [b for b in (self._of(g, grown.count) for g in grown.members) if b is not None]
        own = sum(n.type.nbytes for n in local) // grown.count
        each = max(*(b.own for b in found), own)
        room = int(max(0, self._budget - sum(map(self._shared, found))) // each)
        if MIN_BLOCK <= own <= self._target.l1_bytes // 2:  # what is handed on stays in the nearest cache
            room = min(room, self._target.l1_bytes // 2 // own)
        together = max(1, min(room, grown.count // (4 * self._target.cores)))
        spread = frozenset(t for g in grown.members for t in g.targets if t not in grown.made)
        return Region(first, len(grown.members), grown.count, together, local, spread)


def _counts(group: Group) -> list[int]:
    """How many places a group's first axes have: its first one, and its first two where these leave enough to each."""
    if group.is_apart:
        return []
    places = [math.prod(group.domain[: n + 1]) for n, extent in enumerate(group.domain) if extent > 1]
    least = min(target.type.nbytes for target in group.targets)
    return [count for number, count in enumerate(places[:DEPTH]) if not number or least >= MIN_BLOCK * count]
