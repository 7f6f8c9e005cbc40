"""From fused groups to a program: kernels, their memory, the entry, and at last the artifact that the runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.accumulate import lower_accumulate
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.program import Copy, Fill, Launch, Step, emit_program
from graphc.codegen.lower import Lowered
from graphc.codegen.reuse import NAME, NO_CHOICES, Choices, Kernels
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
    """A program before native code: kernels in text-independent form, in launch order, and the steps that run them.

    `launched[i]` is the group that launch number `i` belongs to.
    """

    fused: FusedGraph
    plan: MemoryPlan
    kernels: tuple[Kernel, ...]
    texts: tuple[str, ...]
    records: tuple[LaunchRecord, ...]
    entry: str
    steps: tuple[Step, ...]
    launched: tuple[Group, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        """All LLVM modules: each different kernel once, then the entry."""
        return (*dict.fromkeys(self.texts), self.entry)


def is_apart(group: Group) -> bool:
    """Whether the group is one operator that has a kernel of its own."""
    return len(group.roots) == 1 and group.roots[0].target.op in APART


def lower_apart(node: Node, target: Target) -> tuple[Lowered, ...]:
    """The kernels of an operator that has kernels of its own, in the order in which they run."""
    if node.op in ("argsort", "sort", "argselect"):
        return lower_sort(node, NAME, target)
    if node.op == "searchsorted":
        return (lower_search(node, NAME),)
    lower_one = lower_accumulate if node.op in WRITES_AT_INDEX else lower_scan
    return (lower_one(node, NAME, target),)


def runs_parallel(kernel: Kernel) -> bool:
    """Whether the kernel has so much to do that several threads share it."""
    return kernel.flops >= PARALLEL_FLOPS or kernel.bytes >= PARALLEL_BYTES


def make_program(fused: FusedGraph, planner: Planner, target: Target, choices: Choices = NO_CHOICES) -> Program:
    """Schedule and lower every group; `planner` lays out memory once it is known what may run in place.

    `choices` are schedules other than the cost model's.
    """
    groups = fused.groups
    made = Kernels(target, choices)
    in_place = {g: made.in_place(g) for g in groups if not is_apart(g)}
    apart = {g: lower_apart(g.roots[0].target, target) for g in groups if g not in in_place}
    scratch = {g: _scratch(parts) for g, parts in apart.items()}
    scratch.update({g: made.scratch(g) for g in in_place})
    plan = planner(in_place, scratch)
    steps: list[Step] = []
    kernels: list[Kernel] = []
    texts: list[str] = []
    records: list[LaunchRecord] = []
    launched: list[Group] = []
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
            places = [plan.places[n] for n in lowered.buffers]
            starts = lowered.starts or (0,) * len(places)
            arguments = tuple((number, offset + start) for (number, offset), start in zip(places, starts, strict=True))
            steps.append(Launch(symbol, arguments, kernel.grid, runs_parallel(kernel)))
            kernels.append(kernel)
            launched.append(group)
            texts.append(text)
            records.append(LaunchRecord(symbol, kernel.grid, kernel.flops, kernel.bytes, lines))
    first_output = len(fused.graph.inputs)
    for j, value in plan.copies:
        steps.append(Copy((first_output + j, 0), plan.places[value], value.type.nbytes))
    entry = emit_program(steps, target, ENTRY)
    parts = tuple(kernels), tuple(texts), tuple(records)
    return Program(fused, plan, *parts, entry, tuple(steps), tuple(launched))


def _clocked_entry(program: Program, target: Target) -> str:
    """The entry of `program` with one more output, before the arena: the processor's counter after each step."""
    graph = program.fused.graph
    arena = len(graph.inputs) + len(graph.outputs)

    def moved(place: Place) -> Place:
        return (arena + 1, place[1]) if place[0] == arena else place

    steps: list[Step] = []
    for step in program.steps:
        if isinstance(step, Launch):
            steps.append(replace(step, arguments=tuple(map(moved, step.arguments))))
        elif isinstance(step, Copy):
            steps.append(Copy(moved(step.destination), moved(step.source), step.nbytes))
        elif isinstance(step, Fill):
            steps.append(replace(step, argument=moved(step.argument)))
    return emit_program(steps, target, ENTRY, (arena, 0))


def _scratch(parts: Sequence[Lowered]) -> tuple[Scratch, ...]:
    """The scratch memory of an operator's kernels, which they share."""
    return tuple(dict.fromkeys(b for part in parts for b in part.buffers if isinstance(b, Scratch)))


def _place(node: Node, plan: MemoryPlan) -> Place:
    return plan.places[base_of(node)]


def _fills(group: Group, plan: MemoryPlan) -> list[Fill]:
    """Zero the targets that a scattering store does not cover."""
    return [Fill(plan.places[r.target], r.target.type.nbytes) for r in group.roots if r.is_zeroed]


def make_artifact(program: Program, target: Target, metadata: Mapping[str, str], clock: bool = False) -> Artifact:
    """Build native code for `program`.

    With `clock` it has one more output, i64[steps + 1]: the processor's counter before the first step and after each.
    """
    graph = program.fused.graph
    if clock:
        program = replace(program, entry=_clocked_entry(program, target))
    clocks = (TensorSpec("i64", (len(program.steps) + 1,)),) if clock else ()
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=(*(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs), *clocks),
        output_aliases=(*program.plan.taken, *(-1 for _ in clocks)),
        arena_bytes=program.plan.arena_bytes,
        objects=tuple(build_many(program.modules, target, plain=frozenset({program.entry}))),
        entry=ENTRY,
        launches=program.records,
        metadata=dict(metadata),
    )
