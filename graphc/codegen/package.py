"""From fused groups to a program: kernels, their memory, the entry, and at last the artifact that the runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.accumulate import lower_accumulate
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.program import Copy, Fill, Launch, Step, emit_program
from graphc.codegen.lower import Lowered
from graphc.codegen.reuse import NAME, Kernels
from graphc.codegen.scans import lower_scan
from graphc.codegen.searching import lower_search
from graphc.codegen.sorting import lower_sort
from graphc.codegen.target import Target
from graphc.ir.demand import APART, WRITES_AT_INDEX, base_of
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, Group, MemoryPlan, Place, Scratch
from graphc_runtime.artifact import Artifact, TensorSpec
from graphc_runtime.artifact import Launch as LaunchRecord

PARALLEL_FLOPS = 200_000  # below that much arithmetic and that many bytes, waking a thread costs more than it brings
PARALLEL_BYTES = 1 << 19
ENTRY = "graphc_main"

Planner = Callable[[Mapping[Group, Sequence[tuple[Node, Node]]], Mapping[Group, Sequence[Scratch]]], MemoryPlan]


@dataclass(frozen=True)
class Program:
    """A program before native code: kernels in text-independent form, in launch order, and the steps that run them."""

    fused: FusedGraph
    plan: MemoryPlan
    kernels: tuple[Kernel, ...]
    texts: tuple[str, ...]
    records: tuple[LaunchRecord, ...]
    entry: str

    @property
    def modules(self) -> tuple[str, ...]:
        """All LLVM modules: each different kernel once, then the entry."""
        return (*dict.fromkeys(self.texts), self.entry)


def _is_apart(group: Group) -> bool:
    """Whether the group is one operator that has a kernel of its own."""
    return len(group.roots) == 1 and group.roots[0].target.op in APART


def lower_apart(node: Node, target: Target) -> tuple[Lowered, ...]:
    """The kernels of an operator that has kernels of its own, in the order in which they run."""
    if node.op in ("argsort", "argselect"):
        return lower_sort(node, NAME, target)
    if node.op == "searchsorted":
        return (lower_search(node, NAME),)
    lower_one = lower_accumulate if node.op in WRITES_AT_INDEX else lower_scan
    return (lower_one(node, NAME, target),)


def make_program(fused: FusedGraph, planner: Planner, target: Target) -> Program:
    """Schedule and lower every group; `planner` lays out memory once it is known what may run in place."""
    groups = fused.groups
    made = Kernels(target)
    in_place = {g: made.in_place(g) for g in groups if not _is_apart(g)}
    apart = {g: lower_apart(g.roots[0].target, target) for g in groups if g not in in_place}
    scratch = {g: _scratch(parts) for g, parts in apart.items()}
    scratch.update({g: made.scratch(g) for g in in_place})
    plan = planner(in_place, scratch)
    steps: list[Step] = []
    kernels: list[Kernel] = []
    texts: list[str] = []
    records: list[LaunchRecord] = []
    for group, merged in zip(groups, plan.merged, strict=True):
        if group in in_place:
            parts = made.lower(group, merged)
            steps.extend(_fills(group, plan))
        else:
            parts = apart[group]
            node = group.roots[0].target
            if node.op in WRITES_AT_INDEX:
                steps.append(Copy(plan.places[node], _place(node.inputs[0], plan), node.type.nbytes))
        lines = tuple(sorted({str(loc) for n in group.inside for loc in n.locs}))
        for lowered in parts:
            kernel = lowered.kernel
            symbol, text = made.emit(kernel)
            parallel = kernel.flops >= PARALLEL_FLOPS or kernel.bytes >= PARALLEL_BYTES
            places = [plan.places[n] for n in lowered.buffers]
            starts = lowered.starts or (0,) * len(places)
            arguments = tuple((number, offset + start) for (number, offset), start in zip(places, starts, strict=True))
            steps.append(Launch(symbol, arguments, kernel.grid, parallel))
            kernels.append(kernel)
            texts.append(text)
            records.append(LaunchRecord(symbol, kernel.grid, kernel.flops, kernel.bytes, lines))
    first_output = len(fused.graph.inputs)
    for j, value in plan.copies:
        steps.append(Copy((first_output + j, 0), plan.places[value], value.type.nbytes))
    entry = emit_program(steps, target, ENTRY)
    return Program(fused, plan, tuple(kernels), tuple(texts), tuple(records), entry)


def _scratch(parts: Sequence[Lowered]) -> tuple[Scratch, ...]:
    """The scratch memory of an operator's kernels, which they share."""
    return tuple(dict.fromkeys(b for part in parts for b in part.buffers if isinstance(b, Scratch)))


def _place(node: Node, plan: MemoryPlan) -> Place:
    return plan.places[base_of(node)]


def _fills(group: Group, plan: MemoryPlan) -> list[Fill]:
    """Zero the targets that a scattering store does not cover."""
    return [Fill(plan.places[r.target], r.target.type.nbytes) for r in group.roots if r.is_zeroed]


def make_artifact(program: Program, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Build native code for `program`."""
    graph = program.fused.graph
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs),
        output_aliases=program.plan.taken,
        arena_bytes=program.plan.arena_bytes,
        objects=tuple(build_many(program.modules, target, plain=frozenset({program.entry}))),
        entry=ENTRY,
        launches=program.records,
        metadata=dict(metadata),
    )
