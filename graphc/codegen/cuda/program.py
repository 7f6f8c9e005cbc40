"""Programs for CUDA: one translation unit with all kernels, and the steps that the host makes a device do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.codegen.cuda.build import build_cubins, workers
from graphc.codegen.cuda.combine import Combined, Work, combine, rounds
from graphc.codegen.cuda.emit import emit_unit, launch_shape
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch
from graphc.codegen.package import Program
from graphc.codegen.parts import balanced
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc_runtime.artifact import Artifact, DeviceStep, TensorSpec
from graphc_runtime.artifact import Launch as LaunchRecord

PARTS = 2  # units for each thread that compiles: what a unit takes is not known before
SHORTEST = 16 << 10  # characters of a unit from which on its own overhead is small
SMALL = 1024  # threads for each multiprocessor that a kernel may have to be run together with others


def program_unit(program: Program, target: Target) -> str:
    """The translation unit of `program`: each different kernel once."""
    return _unit(combined_steps(program, target))


def make_device_artifact(program: Program, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Build the kernels of `program`, several units at once where the compiler can."""
    graph = program.fused.graph
    combined = combined_steps(program, target)
    parts = _parts(combined, workers())
    steps, records = _device_steps(combined, parts)
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs),
        output_aliases=program.plan.taken,
        arena_bytes=program.plan.arena_bytes,
        objects=tuple(build_cubins([_unit(part) for part in parts], target)),
        entry="",
        launches=records,
        metadata=dict(metadata),
        steps=steps,
    )


def device_steps(program: Program, target: Target) -> tuple[tuple[DeviceStep, ...], tuple[LaunchRecord, ...]]:
    """The steps of `program` as data, without those that do nothing, and the records of its launches."""
    combined = combined_steps(program, target)
    return _device_steps(combined, [combined])


def combined_steps(program: Program, target: Target) -> list[Combined]:
    """The steps of `program` in the order in which they run, launches that need not wait for each other as one."""
    launched = iter(zip(program.kernels, program.texts, program.records, strict=True))
    works: list[Work] = []
    for step in program.steps:
        if isinstance(step, Launch):
            kernel, text, record = next(launched)
            if kernel.grid:
                works.append(Work(step, kernel, text, record, launch_shape(kernel)))
        elif isinstance(step, (Fill, Copy)):
            if step.nbytes:
                works.append(Work(step))
        else:
            raise CompileError(f"a {type(step).__name__.lower()} is no step for a device")
    first_output = len(program.fused.graph.inputs)
    same = {first_output + j: taken for j, taken in enumerate(program.plan.taken) if taken >= 0}
    return [done for together in rounds(works, same) for done in combine(together, SMALL * target.cores)]


def _unit(combined: Iterable[Combined]) -> str:
    return emit_unit(tuple(dict.fromkeys(text for done in combined for text in done.texts)))


def _parts(combined: Sequence[Combined], threads: int) -> list[list[Combined]]:
    """The different kernels in parts of about the same length, for so many threads; none for a program without."""
    different = list({done.symbol: done for done in combined if done.texts}.values())
    sizes = [sum(map(len, done.texts)) for done in different]
    count = 1 if threads == 1 else min(PARTS * threads, 1 + sum(sizes) // SHORTEST)
    return [[different[number] for number in part] for part in balanced(sizes, count)]


def _device_steps(
    combined: Sequence[Combined], parts: Sequence[Sequence[Combined]]
) -> tuple[tuple[DeviceStep, ...], tuple[LaunchRecord, ...]]:
    """`parts` are the kernels of each piece of code."""
    held = {done.symbol: number for number, part in enumerate(parts) for done in part}
    steps: list[DeviceStep] = []
    records: list[LaunchRecord] = []
    for done in combined:
        step = done.works[0].step
        if isinstance(step, Copy):
            steps.append(DeviceStep("copy", (step.destination, step.source), nbytes=step.nbytes))
        elif isinstance(step, Fill):
            steps.append(DeviceStep("fill", (_place(step.argument),), nbytes=step.nbytes, value=step.value))
        else:
            places = tuple(map(_place, done.arguments))
            shape = done.blocks, done.threads, done.shared
            steps.append(DeviceStep(done.symbol, places, *shape, launch=len(records), object=held[done.symbol]))
            records.append(done.record)
    return tuple(steps), tuple(records)


def _place(argument: Argument) -> tuple[int, int]:
    if not isinstance(argument, tuple):
        raise CompileError("a kernel on a device has no memory of a thread's own among its parameters")
    return argument
