"""The memory plan: one static arena with reuse, in-place results where an operand dies, outputs in their own
buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import BlockMemory, FusedGraph, Group, MemoryPlan, Place, Region, Scratch

ALIGNMENT = 64  # bytes: a cache line and the widest vector

InPlace = Mapping[Group, Sequence[tuple[Node, Node]]]
ScratchOf = Mapping[Group, Sequence[Scratch]]
_NO_SCRATCH: ScratchOf = MappingProxyType({})


def _local(region: Region, groups: Sequence[Group]) -> list[Node]:
    """The local values of a region, in the order in which they are made."""
    made = (target for group in groups[region.first : region.first + region.size] for target in group.targets)
    return list(dict.fromkeys(target for target in made if target in region.local))


@dataclass(slots=True)
class _Block:
    """Memory that one value, or a chain of values that take over from one another, needs over a time."""

    nbytes: int
    first: int
    last: int
    offset: int = -1


def plan_memory(
    fused: FusedGraph,
    in_place: InPlace,
    scratch: ScratchOf = _NO_SCRATCH,
    donated: frozenset[int] = frozenset(),
    reuse: bool = True,
    regions: Sequence[Region] = (),
    parts: int = 1,
    spread: int = 0,
) -> MemoryPlan:
    """Lay out all values of `fused`, and what its groups want for the time that they run. `donated` inputs may be
    overwritten; `reuse=False` gives every value its own memory, and so do up to `spread` bytes for all of them, so that
    kernels need not wait for each other for the sake of memory. Of `regions` up to `parts` parts run at once.
    """
    groups = fused.groups
    shares = reuse and _all_bytes(groups, scratch) > spread
    values = _Values(fused, regions, donated, shares)
    for time, group in enumerate(groups):
        values.take_over(time, group, in_place.get(group, ()) if reuse else ())
        values.store(time, group, scratch.get(group, ()))
    blocks = values.blocks
    own = {region: {node: blocks.pop(node) for node in _local(region, groups)} for region in regions}
    memory: list[tuple[Region, int, _Block]] = []
    for region, mine in own.items():
        each = -(-_assign(_unique(mine.values()), shares) // ALIGNMENT) * ALIGNMENT
        memory.append((region, each, _Block(each * parts, region.first, region.first + region.size - 1)))
    nbytes = _assign([*_unique(blocks.values()), *(block for _, _, block in memory)], shares)
    arena = len(fused.graph.inputs) + len(fused.graph.outputs)
    places = values.places
    places.update({node: (arena, block.offset) for node, block in blocks.items()})
    for group in groups:
        for node in group.inside:
            for operand in map(base_of, node.inputs):
                if operand.type.size == 0:
                    places.setdefault(operand, (arena, 0))  # nothing is stored, but kernels have a parameter for it
    kept = tuple(
        BlockMemory(region, parts, block.offset, each, {n: b.offset for n, b in own[region].items()})
        for region, each, block in memory
    )
    return MemoryPlan(places, tuple(values.merged), tuple(values.copies), tuple(values.taken), nbytes, kept)


class _Values:
    """Which memory each value has, while the groups are gone through in their order.

    `places` are those of inputs and outputs, and `blocks` what all others need. `merged` has for each group which of
    its targets take over the memory of which operands, `taken` the donated input that each output lies in, or -1, and
    `copies` the outputs that are inputs, or stand twice.
    """

    def __init__(self, fused: FusedGraph, regions: Sequence[Region], donated: frozenset[int], shares: bool) -> None:
        graph = fused.graph
        self.places: dict[Node | Scratch, Place] = {node: (i, 0) for i, node in enumerate(graph.inputs)}
        self.blocks: dict[Node | Scratch, _Block] = {}
        self.merged: list[dict[Node, Node]] = []
        self.taken = [-1] * len(graph.outputs)
        self.copies: list[tuple[int, Node]] = []
        self._first_output = len(graph.inputs)
        for j, output in enumerate(map(base_of, graph.outputs)):
            if output in self.places:
                self.copies.append((j, output))
            else:
                self.places[output] = (self._first_output + j, 0)
        self._donated = donated
        self._shares = shares
        self._local = {node: region for region in regions for node in region.local}
        # Other values of a region are in use from its first group to its last, as each goes through all blocks.
        inside = {time: region for region in regions for time in range(region.first, region.first + region.size)}
        self._begin = {time: region.first for time, region in inside.items()}
        self._end = {time: region.first + region.size - 1 for time, region in inside.items()}
        last = _last_uses(fused)
        self._last_use = last | {n: self._end.get(time, time) for n, time in last.items() if n not in self._local}
        # Blocks into which a donated input would be copied: when, to become which value, and the input.
        self._waiting: dict[int, tuple[int, Node, Node]] = {}

    def take_over(self, time: int, group: Group, pairs: Sequence[tuple[Node, Node]]) -> None:
        """Let targets of `group` lie where operands do that nobody reads later; `pairs` are those that may."""
        shared: dict[Node, Node] = {}
        self.merged.append(shared)
        blocks, places = self.blocks, self.places
        for target, operand in pairs:
            if target in shared or operand in shared.values() or self._last_use.get(operand, time) != time:
                continue
            if time in self._begin and not (target in self._local and operand in self._local):
                continue
            number = places[target][0] - self._first_output if target in places else -1
            is_given = operand.op == "input" and places[operand][0] in self._donated
            if operand in blocks and number < 0 and self._shares:
                shared[target] = operand
                blocks[target] = blocks[operand]
                blocks[target].last = self._last_use.get(target, time)
            elif operand in blocks and number >= 0 and (group.is_apart or id(blocks[operand]) in self._waiting):
                self._store_as_output(time, target, operand)
            elif group.is_apart and number < 0 and is_given:
                self._hold(time, target)
                self._waiting[id(blocks[target])] = time, target, operand
            elif number >= 0 and is_given and places[operand][0] not in self.taken:
                self.taken[number] = places[operand][0]
                shared[target] = operand

    def _store_as_output(self, time: int, target: Node, operand: Node) -> None:
        """Store `operand` where the output `target` will be, and that may be a donated input: else all of it would be
        copied.
        """
        block, place = self.blocks[operand], self.places[target]
        for node in [n for n, other in self.blocks.items() if other is block]:
            self.places[node] = place
            del self.blocks[node]
        self.merged[time][target] = operand
        first, source, given = self._waiting.pop(id(block), (time, target, target))
        if given.op == "input" and self.places[given][0] not in self.taken:
            self.taken[place[0] - self._first_output] = self.places[given][0]
            self.merged[first][source] = given

    def store(self, time: int, group: Group, scratch: Sequence[Scratch]) -> None:
        """Give memory to the targets of `group` that have none, and to what it works in."""
        for target in group.targets:
            if target not in self.places and target not in self.blocks:
                self._hold(time, target)
        for wanted in scratch:
            nbytes = max(wanted.type.nbytes, 1)
            self.blocks[wanted] = _Block(nbytes, self._begin.get(time, time), self._end.get(time, time))

    def _hold(self, time: int, target: Node) -> None:
        """A block for a value, from the group that makes it to the last that reads it."""
        region = self._local.get(target)
        if region is not None:
            nbytes, first = target.type.nbytes // region.blocks * region.together, time
        else:
            nbytes, first = max(target.type.nbytes, 1), self._begin.get(time, time)
        self.blocks[target] = _Block(nbytes, first, self._last_use.get(target, self._end.get(time, time)))


def _all_bytes(groups: Sequence[Group], scratch: ScratchOf) -> int:
    """Bytes of all values that groups make, and of all that they work in."""
    made = sum(target.type.nbytes for group in groups for target in group.targets)
    return made + sum(wanted.type.nbytes for group in groups for wanted in scratch.get(group, ()))


def _unique(blocks: Iterable[_Block]) -> list[_Block]:
    return list({id(b): b for b in blocks}.values())


def _last_uses(fused: FusedGraph) -> dict[Node, int]:
    """For each value the last group that reads it; outputs and values that are copied out live to the end."""
    last: dict[Node, int] = {}
    for time, group in enumerate(fused.groups):
        for node in group.inside:
            for operand in map(base_of, node.inputs):
                if operand not in group.inside or operand in group.targets:
                    last[operand] = time
    for output in fused.graph.outputs:
        last[base_of(output)] = len(fused.groups)
    return last


def _assign(blocks: list[_Block], reuse: bool) -> int:
    """Give each block an offset, largest first, in the lowest gap that is free for its whole time; gives the arena's
    size.
    """
    placed: list[_Block] = []
    total = 0
    for block in sorted(blocks, key=lambda b: (-b.nbytes, b.first)):
        size = -(-block.nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for other in placed:  # in order of offset
            if reuse and (other.last < block.first or block.last < other.first):
                continue
            if other.offset - offset >= size:
                break
            offset = max(offset, other.offset + -(-other.nbytes // ALIGNMENT) * ALIGNMENT)
        block.offset = offset
        placed.append(block)
        placed.sort(key=lambda b: b.offset)
        total = max(total, offset + size)
    return total
