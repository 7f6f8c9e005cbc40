"""Operators that have kernels of their own (see `ir.demand.APART`), on a GPU."""

from __future__ import annotations

from graphc.codegen.eliminations import lower_elimination
from graphc.codegen.gpu_accumulate import lower_gpu_accumulate
from graphc.codegen.gpu_scans import lower_gpu_scan
from graphc.codegen.gpu_sorting import lower_gpu_sort
from graphc.codegen.lowered import Lowered
from graphc.codegen.searching import TOGETHER, lower_search
from graphc.codegen.segments import lower_gpu_segments
from graphc.codegen.target import Target
from graphc.ir.demand import WRITES_AT_INDEX
from graphc.ir.node import Node
from graphc.ir.small_matrices import ELIMINATIONS


def lower_gpu_apart(node: Node, name: str, target: Target) -> tuple[Lowered, ...]:
    """The kernels of such an operator, in the order in which they run."""
    if node.op in ("argsort", "sort", "argselect"):
        return lower_gpu_sort(node, name)
    if node.op == "searchsorted":
        return (lower_search(node, name, TOGETHER),)
    if node.op == "segment_reduce":
        return (lower_gpu_segments(node, name),)
    if node.op in WRITES_AT_INDEX:
        return lower_gpu_accumulate(node, name)
    if node.op in ELIMINATIONS:
        return (lower_elimination(node, name, target),)
    return lower_gpu_scan(node, name, target)
