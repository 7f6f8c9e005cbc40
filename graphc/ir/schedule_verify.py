"""Rules of the schedule data, checked in tests after fusion, ordering and planning."""

from __future__ import annotations

from graphc.errors import VerifyError
from graphc.ir.demand import APART, base_of
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, Group


def verify_fused(fused: FusedGraph) -> None:
    """Each value is stored by one kernel, after what it reads; every output is stored; roots fit their domain."""
    stored: set[Node] = set(fused.graph.inputs)
    for number, group in enumerate(fused.groups):
        for root in group.kept:
            if root.value not in group.inside or root.scatter:
                raise VerifyError(f"kernel {number} keeps rows of {root.value!r}, which it does not compute")
        for root in (*group.roots, *group.kept):
            for d, (axis, extent) in enumerate(zip(root.dims, root.value.shape, strict=True)):
                if axis >= 0 and group.domain[axis] != extent:
                    raise VerifyError(
                        f"kernel {number}: dimension {d} of {root.value!r} has size {extent}, axis {axis} of the "
                        f"domain {list(group.domain)} has {group.domain[axis]}"
                    )
        for node in reads_of(group):
            if node not in stored and node.type.size:
                raise VerifyError(f"kernel {number} reads {node!r}, which no earlier kernel stores")
        for target in group.targets:
            if target in stored:
                raise VerifyError(f"kernel {number} stores {target!r}, which is stored already")
            stored.add(target)
    for output in fused.graph.outputs:
        if base_of(output) not in stored and output.type.size:
            raise VerifyError(f"output {output!r} is stored by no kernel")


def reads_of(group: Group) -> dict[Node, None]:
    """The values in memory that a group reads, graph inputs included, in an order fixed by the graph."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    # Kernels compute constants for themselves, but for those that write at indices.
    computed = () if any(t.op in APART for t in group.targets) else ("constant", "iota")
    stack = [r.value for r in reversed(group.roots)]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        base = base_of(node)
        if base in group.inside:
            stack.extend(reversed(node.inputs))
        elif base.op not in computed:
            found[base] = None
    return found
