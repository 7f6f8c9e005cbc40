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
    graph, groups = fused.graph, fused.groups
    shares = reuse and _all_bytes(groups, scratch) > spread
    places: dict[Node | Scratch, Place] = {node: (i, 0) for i, node in enumerate(graph.inputs)}
    first_output, arena = len(graph.inputs), len(graph.inputs) + len(graph.outputs)
    copies: list[tuple[int, Node]] = []
    for j, output in enumerate(map(base_of, graph.outputs)):
        if output in places:
            copies.append((j, output))
        else:
            places[output] = (first_output + j, 0)
    last_use = _last_uses(fused)
    local = {node: region for region in regions for node in region.local}
    # Other values of a region are in use from its first group to its last, as each goes through all blocks.
    inside = {time: region for region in regions for time in range(region.first, region.first + region.size)}
    begin = {time: region.first for time, region in inside.items()}
    end = {time: region.first + region.size - 1 for time, region in inside.items()}
    last_use.update({n: end.get(time, time) for n, time in last_use.items() if n not in local})
    taken = [-1] * len(graph.outputs)
    merged: list[dict[Node, Node]] = []
    blocks: dict[Node | Scratch, _Block] = {}
    # Blocks into which a donated input would be copied: when, to become which value, and the input.
    waiting: dict[int, tuple[int, Node, Node]] = {}
    for time, group in enumerate(groups):
        shared: dict[Node, Node] = {}
        for target, operand in in_place.get(group, ()) if reuse else ():
            if target in shared or operand in shared.values() or last_use.get(operand, time) != time:
                continue
            if time in inside and not (target in local and operand in local):
                continue
            number = places[target][0] - first_output if target in places else -1
            if operand in blocks and number < 0 and shares:
                shared[target] = operand
                blocks[target] = blocks[operand]
                blocks[target].last = last_use.get(target, time)
            elif operand in blocks and number >= 0 and (group.is_apart or id(blocks[operand]) in waiting):
                # Else all of it would be copied: it is stored where the output will be, and that may be an input.
                block = blocks[operand]
                for node in [n for n, other in blocks.items() if other is block]:
                    places[node] = places[target]
                    del blocks[node]
                shared[target] = operand
                first, source, given = waiting.pop(id(block), (time, target, target))
                if given.op == "input" and places[given][0] not in taken:
                    taken[number] = places[given][0]
                    merged[first][source] = given
            elif group.is_apart and number < 0 and operand.op == "input" and places[operand][0] in donated:
                block = blocks[target] = _Block(target.type.nbytes, begin.get(time, time), last_use.get(target, time))
                waiting[id(block)] = time, target, operand
            elif number >= 0 and operand.op == "input" and places[operand][0] in donated - set(taken):
                taken[number] = places[operand][0]
                shared[target] = operand
        for target in group.targets:
            if target not in places and target not in blocks:
                if target in local:
                    region = local[target]
                    size, first = target.type.nbytes // region.blocks * region.together, time
                else:
                    size, first = max(target.type.nbytes, 1), begin.get(time, time)
                blocks[target] = _Block(size, first, last_use.get(target, end.get(time, time)))
        for wanted in scratch.get(group, ()):
            blocks[wanted] = _Block(max(wanted.type.nbytes, 1), begin.get(time, time), end.get(time, time))
        merged.append(shared)
    own = {region: {node: blocks.pop(node) for node in region.local} for region in regions}
    memory: list[tuple[Region, int, _Block]] = []
    for region, mine in own.items():
        each = -(-_assign(_unique(mine.values()), shares) // ALIGNMENT) * ALIGNMENT
        memory.append((region, each, _Block(each * parts, region.first, region.first + region.size - 1)))
    nbytes = _assign([*_unique(blocks.values()), *(block for _, _, block in memory)], shares)
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
    return MemoryPlan(places, tuple(merged), tuple(copies), tuple(taken), nbytes, kept)


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
