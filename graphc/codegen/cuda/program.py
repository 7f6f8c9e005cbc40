"""Programs for CUDA: one translation unit with all kernels, and the steps that the host makes a device do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.codegen.cuda.build import build_cubin
from graphc.codegen.cuda.combine import Combined, Work, combine, rounds
from graphc.codegen.cuda.emit import emit_unit, launch_shape
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc_runtime.artifact import Artifact, DeviceStep, TensorSpec
from graphc_runtime.artifact import Launch as LaunchRecord

SMALL = 1024  # threads for each multiprocessor that a kernel may have to be run together with others


def program_unit(program: Program, target: Target) -> str:
    """The translation unit of `program`: each different kernel once."""
    return _unit(combined_steps(program, target))


def make_device_artifact(program: Program, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Build the kernels of `program` into one cubin."""
    graph = program.fused.graph
    combined = combined_steps(program, target)
    steps, records = _device_steps(combined)
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs),
        output_aliases=program.plan.taken,
        arena_bytes=program.plan.arena_bytes,
        objects=(build_cubin(_unit(combined), target),),
        entry="",
        launches=records,
        metadata=dict(metadata),
        steps=steps,
    )


def device_steps(program: Program, target: Target) -> tuple[tuple[DeviceStep, ...], tuple[LaunchRecord, ...]]:
    """The steps of `program` as data, without those that do nothing, and the records of its launches."""
    return _device_steps(combined_steps(program, target))


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


def _unit(combined: Sequence[Combined]) -> str:
    return emit_unit(tuple(dict.fromkeys(text for done in combined for text in done.texts)))


def _device_steps(combined: Sequence[Combined]) -> tuple[tuple[DeviceStep, ...], tuple[LaunchRecord, ...]]:
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
            steps.append(DeviceStep(done.symbol, places, done.blocks, done.threads, done.shared, launch=len(records)))
            records.append(done.record)
    return tuple(steps), tuple(records)


def _place(argument: Argument) -> tuple[int, int]:
    if not isinstance(argument, tuple):
        raise CompileError("a kernel on a device has no memory of a thread's own among its parameters")
    return argument
