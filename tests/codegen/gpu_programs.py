"""Programs as scheduled for a GPU, run on this machine: kernel IR means the same for every back end.

A block's vectors become vectors of as many lanes, so that whole kernels run as native code of the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.llvm.build import build_many
from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.program import Launch, Step, emit_program
from graphc.codegen.package import ENTRY, Program
from graphc.codegen.reuse import emit_named
from graphc.codegen.target import Target
from graphc.ir.graph import Graph
from graphc.pipeline import build_program
from graphc_runtime.artifact import Artifact, TensorSpec
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from tests.codegen.programs import buffers, results

GPU = cuda_target("sm_90")


def gpu_program(graph: Graph, target: Target = GPU) -> Program:
    """`graph` scheduled for a GPU; its kernels are verified."""
    program = build_program(graph, target=target)
    for kernel in program.kernels:
        verify_kernel(kernel)
    return program


def run_for_gpu(graph: Graph, arrays: Sequence[np.ndarray], target: Target = GPU) -> list[np.ndarray]:
    """What `graph` gives for copies of `arrays`, scheduled for a GPU and run on this machine."""
    program = gpu_program(graph, target)
    host = host_target()
    named = [emit_named(kernel, host) for kernel in program.kernels]
    symbols = iter(named)
    steps: list[Step] = []
    for step in program.steps:
        steps.append(replace(step, symbol=next(symbols)[0]) if isinstance(step, Launch) else step)
    entry = emit_program(steps, host, ENTRY)
    modules = (*dict.fromkeys(text for _, text in named), entry)
    artifact = Artifact(
        name="main",
        inputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.inputs),
        outputs=tuple(TensorSpec(n.dtype.name, n.shape) for n in graph.outputs),
        output_aliases=program.plan.taken,
        arena_bytes=program.plan.arena_bytes,
        objects=tuple(build_many(modules, host, plain=frozenset({entry}))),
        entry=ENTRY,
    )
    return results(graph, Executable(artifact, get_device("cpu")).run(buffers(arrays)))
