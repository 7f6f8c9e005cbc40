"""From fused groups to a program: kernels, their memory, the entry, and at last the artifact that the runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from graphc.codegen.accumulate import lower_accumulate
from graphc.codegen.eliminations import lower_elimination
from graphc.codegen.gpu_apart import lower_gpu_apart
from graphc.codegen.kernel import Kernel
from graphc.codegen.launching import Launching
from graphc.codegen.llvm.build import Building
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch, Step, emit_program
from graphc.codegen.lowered import Lowered
from graphc.codegen.regions import find_regions
from graphc.codegen.reuse import NAME, NO_CHOICES, Choices, Kernels
from graphc.codegen.scans import lower_scan
from graphc.codegen.searching import lower_search
from graphc.codegen.segments import lower_segments
from graphc.codegen.sorting import lower_sort
from graphc.codegen.target import Target
from graphc.ir.demand import WRITES_AT_INDEX, base_of
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import FusedGraph, Group, MemoryPlan, Place, Region, Scratch
from graphc.ir.schedule_verify import reads_of
from graphc.ir.small_matrices import ELIMINATIONS
from graphc_runtime.artifact import Artifact, TensorSpec
from graphc_runtime.artifact import Launch as LaunchRecord

ENTRY = "graphc_main"


class Planner(Protocol):
    """Lays out the memory of a program: see `passes.plan_memory`."""

    def __call__(
        self,
        fused: FusedGraph,
        in_place: Mapping[Group, Sequence[tuple[Node, Node]]],
        scratch: Mapping[Group, Sequence[Scratch]],
        *,
        regions: Sequence[Region],
        parts: int,
    ) -> MemoryPlan: ...


@record
class Program:
    """A program before native code: kernels in text-independent form, in launch order, and the steps that run them.

    `launched[i]` is the group that launch number `i` belongs to. For a device that the host drives there is no `entry`.
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


def lower_apart(group: Group, target: Target) -> tuple[Lowered, ...]:
    """The kernels of an operator that has kernels of its own, in the order in which they run."""
    node = group.roots[0].target
    if target.device == "cuda":
        return lower_gpu_apart(node, NAME, target)
    if node.op in ("argsort", "sort", "argselect"):
        return lower_sort(node, NAME, target)
    if node.op == "searchsorted":
        return (lower_search(node, NAME),)
    if node.op == "segment_reduce":
        return (lower_segments(node, NAME),)
    if node.op in WRITES_AT_INDEX:
        return (lower_accumulate(node, NAME, target),)
    if node.op in ELIMINATIONS:
        return (lower_elimination(node, NAME, target),)
    return (lower_scan(node, group.inside, NAME, target),)


def make_program(
    fused: FusedGraph,
    planner: Planner,
    target: Target,
    choices: Choices = NO_CHOICES,
    emitted: Callable[[str], None] | None = None,
) -> Program:
    """Schedule and lower every group; `planner` lays out memory once it is known what may run in place, and which
    groups run block by block.

    `choices` are schedules other than the cost model's; `emitted` is told the code of each kernel when it is there.
    """
    made = Kernels(target, choices, emitted, _unread_products(fused))
    on_gpu = target.device == "cuda"
    regions: tuple[Region, ...] = ()
    if not on_gpu:
        fused, regions = find_regions(fused, made, target)
    in_place: dict[Group, tuple[tuple[Node, Node], ...]] = {}
    together = {r.first + place for r in regions for place in range(r.size)}
    for number, group in enumerate(fused.groups):
        if not group.is_apart:
            in_place[group] = made.in_place(group)
            if not in_place[group] and number not in together:
                # What no plan of the memory changes is built while the next groups are scheduled.
                made.emit_all(made.lower(group, {}))
    apart = {g: lower_apart(g, target) for g in fused.groups if g.is_apart}
    scratch = {g: _scratch(parts) for g, parts in apart.items()}
    scratch.update({g: made.scratch(g) for g in in_place})
    in_place.update({g: _written_over(g) for g in apart})
    plan = planner(fused, in_place, scratch, regions=regions, parts=1 if on_gpu else target.cores)
    writer = Launching(plan, made, len(fused.graph.inputs) + len(fused.graph.outputs))
    memories = iter(plan.regions)
    memory = next(memories, None)
    for number, (group, merged) in enumerate(zip(fused.groups, plan.merged, strict=True)):
        if memory is not None and number == memory.region.first + memory.region.size:
            memory = next(memories, None)
        if group.is_apart:
            writer.apart(group, apart[group], merged)
        elif memory is None or number < memory.region.first:
            writer.group(group, made.lower(group, merged))
        else:
            writer.member(group, made.lower(group, merged), memory)
    first_output = len(fused.graph.inputs)
    copies = [Copy((first_output + j, 0), plan.places[value], value.type.nbytes) for j, value in plan.copies]
    steps = (*writer.steps, *copies)
    entry = "" if on_gpu else emit_program(steps, target, ENTRY)
    return Program(
        fused,
        plan,
        tuple(writer.kernels),
        tuple(writer.texts),
        tuple(writer.records),
        entry,
        steps,
        tuple(writer.launched),
    )


def _unread_products(fused: FusedGraph) -> frozenset[Node]:
    """What groups with contractions store and no group reads."""
    stored = [t for g in fused.groups if any(n.op == "contract" for n in g.inside) for t in g.targets]
    return frozenset(stored).difference(*map(reads_of, fused.groups))


def _clocked_entry(program: Program, target: Target) -> str:
    """The entry of `program` with one more output, before the arena: the processor's counter after each step."""
    graph = program.fused.graph
    arena = len(graph.inputs) + len(graph.outputs)

    def moved(place: Place) -> Place:
        return (arena + 1, place[1]) if place[0] == arena else place

    return emit_program([_with_places(step, moved) for step in program.steps], target, ENTRY, (arena, 0))


def _with_places(step: Step, moved: Callable[[Place], Place]) -> Step:
    """`step` with its places in the table changed."""

    def changed(argument: Argument) -> Argument:
        return moved(argument) if isinstance(argument, tuple) else argument

    if isinstance(step, Launch):
        return replace(step, arguments=tuple(map(changed, step.arguments)))
    if isinstance(step, Copy):
        return replace(step, destination=moved(step.destination), source=moved(step.source))
    if isinstance(step, Fill):
        return replace(step, argument=changed(step.argument))
    inner = tuple(s for s in (_with_places(inner, moved) for inner in step.steps) if isinstance(s, (Launch, Fill)))
    return replace(step, memory=moved(step.memory), steps=inner)


def _written_over(group: Group) -> tuple[tuple[Node, Node], ...]:
    """What writes at indices may do so where the value lies that it writes into, unless it reads that elsewhere too."""
    node = group.roots[0].target
    if node.op not in WRITES_AT_INDEX:
        return ()
    base, *others = map(base_of, node.inputs)
    return () if base in others else ((node, base),)


def _scratch(parts: Sequence[Lowered]) -> tuple[Scratch, ...]:
    """The scratch memory of an operator's kernels, which they share."""
    return tuple(dict.fromkeys(b for part in parts for b in part.buffers if isinstance(b, Scratch)))


def make_artifact(
    program: Program,
    target: Target,
    metadata: Mapping[str, str],
    clock: bool = False,
    building: Building | None = None,
) -> Artifact:
    """Build native code for `program`. `building` has been told its kernels.

    With `clock` it has one more output, i64[steps + 1]: the processor's counter before the first step and after each.
    """
    graph = program.fused.graph
    if clock:
        program = replace(program, entry=_clocked_entry(program, target))
    clocks = (TensorSpec("i64", (len(program.steps) + 1,)),) if clock else ()
    with building or Building(target) as running:
        objects = tuple(running.objects(program.modules, frozenset({program.entry})))
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=(*(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs), *clocks),
        output_aliases=(*program.plan.taken, *(-1 for _ in clocks)),
        arena_bytes=program.plan.arena_bytes,
        objects=objects,
        entry=ENTRY,
        launches=program.records,
        metadata=dict(metadata),
    )
