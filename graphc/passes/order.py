"""Order: in which sequence kernels run, so that little memory is in use at once and a value is read soon after it is
made.
"""

from __future__ import annotations

from collections import defaultdict

from graphc.ir.demand import base_of
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, Group
from graphc.ir.schedule_verify import reads_of

EXHAUSTIVE = 2000  # above that many kernels only the given order is used: the choice below is quadratic


def order(fused: FusedGraph) -> FusedGraph:
    """The same kernels in an order with a lower peak of live intermediate bytes; the same object when there is none.

    Greedy: of the kernels that can run, the one that frees the most (or adds the least) memory goes first; ties keep
    the given order.
    """
    groups = fused.groups
    if len(groups) < 3 or len(groups) > EXHAUSTIVE:
        return fused
    reads = {g: reads_of(g) for g in groups}
    found = _greedy(fused, reads)
    if peak_bytes(fused, found, reads) >= peak_bytes(fused, groups, reads):
        return fused
    return FusedGraph(fused.graph, found)


def peak_bytes(fused: FusedGraph, groups: tuple[Group, ...], reads: dict[Group, dict[Node, None]]) -> int:
    """The largest sum of intermediate values that are alive at once when `groups` run in this order."""
    kept = {base_of(o) for o in fused.graph.outputs} | set(fused.graph.inputs)
    last: dict[Node, int] = {}
    for time, group in enumerate(groups):
        for node in (*reads[group], *group.targets):
            last[node] = time
    dying: dict[int, int] = defaultdict(int)
    for node, time in last.items():
        if node not in kept:
            dying[time] += node.type.nbytes
    live = peak = 0
    for time, group in enumerate(groups):
        live += sum(t.type.nbytes for t in group.targets if t not in kept)
        peak = max(peak, live)
        live -= dying[time]
    return peak


def _greedy(fused: FusedGraph, reads: dict[Group, dict[Node, None]]) -> tuple[Group, ...]:
    maker = {t: g for g in fused.groups for t in g.targets}
    kept = {base_of(o) for o in fused.graph.outputs} | set(fused.graph.inputs)
    uses: dict[Node, int] = defaultdict(int)
    for group in fused.groups:
        for node in reads[group]:
            uses[node] += 1
    waiting = {g: {maker[n] for n in reads[g] if n in maker} - {g} for g in fused.groups}
    ready = [g for g in fused.groups if not waiting[g]]
    place = {g: i for i, g in enumerate(fused.groups)}
    result: list[Group] = []

    def growth(group: Group) -> tuple[int, int]:
        made = sum(t.type.nbytes for t in group.targets if t not in kept)
        freed = sum(n.type.nbytes for n in reads[group] if n not in kept and uses[n] == 1)
        return made - freed, place[group]

    while ready:
        best = min(ready, key=growth)
        ready.remove(best)
        result.append(best)
        for node in reads[best]:
            uses[node] -= 1
        for group in fused.groups:
            if best in waiting[group]:
                waiting[group].discard(best)
                if not waiting[group]:
                    ready.append(group)
    return tuple(result)
