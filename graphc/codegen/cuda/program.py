"""Programs for CUDA: one translation unit with all kernels, and the steps that the host makes a device do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphc.codegen.cuda.build import build_cubin
from graphc.codegen.cuda.emit import emit_unit, launch_shape
from graphc.codegen.kernel import Kernel
from graphc.codegen.llvm.program import Argument, Copy, Fill, Launch, Step
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc_runtime.artifact import Artifact, DeviceStep, TensorSpec


def program_unit(program: Program) -> str:
    """The translation unit of `program`: each different kernel once."""
    return emit_unit(tuple(dict.fromkeys(program.texts)))


def make_device_artifact(program: Program, target: Target, metadata: Mapping[str, str]) -> Artifact:
    """Build the kernels of `program` into one cubin."""
    graph = program.fused.graph
    return Artifact(
        name=graph.name,
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs),
        output_aliases=program.plan.taken,
        arena_bytes=program.plan.arena_bytes,
        objects=(build_cubin(program_unit(program), target),),
        entry="",
        launches=program.records,
        metadata=dict(metadata),
        steps=device_steps(program),
    )


def device_steps(program: Program) -> tuple[DeviceStep, ...]:
    """The steps of `program` as data, without those that do nothing."""
    launched = iter(enumerate(program.kernels))
    steps = (_device_step(step, launched) for step in program.steps)
    return tuple(step for step in steps if step is not None)


def _device_step(step: Step, launched: Iterator[tuple[int, Kernel]]) -> DeviceStep | None:
    """`step` for the device; `launched` gives the kernels of launches, with their numbers. None: it does nothing."""
    if isinstance(step, Launch):
        number, kernel = next(launched)
        places = tuple(map(_place, step.arguments))
        if kernel.grid == 0:
            return None
        blocks, threads, shared = launch_shape(kernel)
        return DeviceStep(step.symbol, places, blocks, threads, shared, launch=number)
    if isinstance(step, Fill):
        return (
            DeviceStep("fill", (_place(step.argument),), nbytes=step.nbytes, value=step.value) if step.nbytes else None
        )
    if isinstance(step, Copy):
        return DeviceStep("copy", (step.destination, step.source), nbytes=step.nbytes) if step.nbytes else None
    raise CompileError(f"a {type(step).__name__.lower()} is no step for a device")


def _place(argument: Argument) -> tuple[int, int]:
    if not isinstance(argument, tuple):
        raise CompileError("a kernel on a device has no memory of a thread's own among its parameters")
    return argument
