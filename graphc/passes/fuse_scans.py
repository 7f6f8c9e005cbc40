"""Fusion of scans with what little is done to each of their elements before: a cast, a comparison, a product.

A scan reads each element once, so what it computes by itself need neither be stored nor read again.
"""

from __future__ import annotations

from graphc.ir.demand import SCANS, base_of
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.passes.drafts import Draft, Drafts, Limits, walk

MOST = 8  # operations on an element; scans of short rows go element by element


def merge_scans(graph: Graph, stored: dict[Node, None], drafts: Drafts, limits: Limits) -> None:
    """Merge pointwise kernels into the scans that alone read what they make."""
    if not limits.scans:
        return
    outputs = {base_of(o) for o in graph.outputs}
    for node in stored:
        if node.op not in SCANS:
            continue
        for operand in node.inputs:
            scan, base = drafts.maker[node], base_of(operand)
            maker = drafts.maker.get(base)
            if maker is None or base in outputs or drafts.readers[base] != {scan} or not _is_light(maker, base):
                continue
            merged = Draft(scan.roots, scan.domain, scan.order, scan.internal | maker.internal | {base})
            walk(merged, stored)
            drafts.replace([maker, scan], merged)


def _is_light(draft: Draft, made: Node) -> bool:
    """Whether each element of `made` is computed by a few plain operations from those at its own place, and numbers."""
    if len(draft.roots) != 1 or draft.roots[0].scatter or draft.kept:
        return False
    if any(n.type.size not in (1, made.type.size) for n in draft.inside | draft.reads):
        return False
    return len(draft.inside) <= MOST and all(map(_is_plain, draft.inside))


def _is_plain(node: Node) -> bool:
    if node.op in ("constant", "reshape") or (node.op == "broadcast" and node.inputs[0].type.size == 1):
        return True
    return OPS[node.op].kind == "elementwise" and not OPS[node.op].is_heavy and node.op != "materialize"
