"""Texts of the schedule data: fused groups and the memory plan, as comments over the graph's own text."""

from __future__ import annotations

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.printer import print_graph, value_names
from graphc.ir.schedule import BlockMemory, FusedGraph, MemoryPlan, Scratch


def print_fused(fused: FusedGraph) -> str:
    """The graph, and above it one comment per kernel: what it walks over, stores and computes. It parses as the
    graph.
    """
    names = _names(fused.graph)
    notes = []
    for number, group in enumerate(fused.groups):
        stores = ", ".join(names[t] for t in group.targets)
        inside = ", ".join(names[n] for n in fused.graph.nodes if n in group.inside and n not in group.targets)
        computes = f", computing {inside}" if inside else ""
        rows = ", ".join(names[r.value] for r in group.kept)
        keeps = f", keeping rows of {rows}" if rows else ""
        notes.append(f"// kernel {number}: over {list(group.domain)}, stores {stores}{computes}{keeps}")
    return "\n".join([*notes, _text(fused.graph)])


def print_plan(fused: FusedGraph, plan: MemoryPlan) -> str:
    """One line per stored value: where it lies, its bytes, and whose memory it takes over."""
    names = _names(fused.graph)
    tables = len(fused.graph.inputs), len(fused.graph.outputs)
    merged = {t: o for shared in plan.merged for t, o in shared.items()}
    lines = [f"// arena {plan.arena_bytes} bytes"]
    for node in fused.graph.nodes:
        if node not in plan.places:
            continue
        number, offset = plan.places[node]
        if number < tables[0]:
            where = f"input {number}"
        elif number < sum(tables):
            where = f"output {number - tables[0]}"
        else:
            where = f"arena + {offset}"
        note = f", in place of {names[merged[node]]}" if node in merged else ""
        lines.append(f"// {names[node]}: {where}, {node.type.nbytes} bytes{note}")
    for node, (_, offset) in plan.places.items():
        if isinstance(node, Scratch):
            lines.append(f"// {node.name} for {names[node.owner]}: arena + {offset}, {node.type.nbytes} bytes")
    for number, memory in enumerate(plan.regions):
        region = memory.region
        last = region.first + region.size - 1
        lines.append(
            f"// region {number}: kernels {region.first} to {last} by {region.blocks} blocks, "
            f"{region.together} at once, in {memory.parts} parts of {memory.nbytes} bytes from arena + {memory.offset}"
        )
        lines.extend(f"// {names[node]}: region {number} + {offset}" for node, offset in _in_order(memory))
    lines.extend(f"// output {j} is a copy of {names[value]}" for j, value in plan.copies)
    return "\n".join([*lines, _text(fused.graph)])


def _in_order(memory: BlockMemory) -> list[tuple[Node, int]]:
    """The local values of a region by where they lie."""
    return sorted(memory.places.items(), key=lambda item: item[1])


def _names(graph: Graph) -> dict[Node, str]:
    return {node: f"%{name}" for node, name in value_names(graph.inputs, graph.nodes).items()}


def _text(graph: Graph) -> str:
    return print_graph(graph.name, graph.inputs, graph.nodes, graph.outputs)
