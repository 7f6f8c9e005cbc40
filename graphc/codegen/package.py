"""From fused groups to a program: kernels, their memory, the entry, and at last the artifact that the runtime loads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.accumulate import lower_accumulate
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.emit import emit_kernel
from graphc.codegen.llvm.program import Copy, Fill, Launch, Step, emit_program
from graphc.codegen.lower import Lowered, lower
from graphc.codegen.prepare import Prepared, prepare
from graphc.codegen.scans import lower_scan
from graphc.codegen.target import Target
from graphc.ir.demand import APART, SCANS, base_of
from graphc.ir.node import Node
from graphc.ir.schedule import FusedGraph, Group, MemoryPlan, Place
from graphc_runtime.artifact import Artifact, TensorSpec
from graphc_runtime.artifact import Launch as LaunchRecord

PARALLEL_FLOPS = 200_000  # below that much arithmetic and that many bytes, waking a thread costs more than it brings
PARALLEL_BYTES = 1 << 19
ENTRY = "graphc_main"

Planner = Callable[[Mapping[Group, Sequence[tuple[Node, Node]]]], MemoryPlan]


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


def make_program(fused: FusedGraph, planner: Planner, target: Target) -> Program:
    """Schedule and lower every group; `planner` lays out memory once it is known what may run in place."""
    groups = fused.groups
    prepared: dict[Group, Prepared] = {g: prepare(g, target) for g in groups if not _is_apart(g)}
    plan = planner({g: p.in_place for g, p in prepared.items()})
    steps: list[Step] = []
    kernels: list[Kernel] = []
    texts: list[str] = []
    records: list[LaunchRecord] = []
    for group, merged in zip(groups, plan.merged, strict=True):
        lowered: Lowered
        if group in prepared:
            lowered = lower(prepared[group], "kernel", target, merged)
            steps.extend(_fills(group, plan))
        elif group.roots[0].target.op in SCANS:
            lowered = lower_scan(group.roots[0].target, "kernel", target)
        else:
            node = group.roots[0].target
            lowered = lower_accumulate(node, "kernel", target)
            steps.append(Copy(plan.places[node], _place(node.inputs[0], plan), node.type.nbytes))
        text = emit_kernel(lowered.kernel, target)
        symbol = f"k{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        text = text.replace("@kernel(", f"@{symbol}(")
        kernel = lowered.kernel
        parallel = kernel.flops >= PARALLEL_FLOPS or kernel.bytes >= PARALLEL_BYTES
        arguments = tuple(plan.places[n] for n in lowered.buffers)
        steps.append(Launch(symbol, arguments, kernel.grid, parallel))
        kernels.append(kernel)
        texts.append(text)
        lines = tuple(sorted({str(loc) for n in group.inside for loc in n.locs}))
        records.append(LaunchRecord(symbol, kernel.grid, kernel.flops, kernel.bytes, lines))
    first_output = len(fused.graph.inputs)
    for j, value in plan.copies:
        steps.append(Copy((first_output + j, 0), plan.places[value], value.type.nbytes))
    entry = emit_program(steps, target, ENTRY)
    return Program(fused, plan, tuple(kernels), tuple(texts), tuple(records), entry)


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
        objects=tuple(build_many(program.modules, target)),
        entry=ENTRY,
        launches=program.records,
        metadata=dict(metadata),
    )
