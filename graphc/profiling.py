"""Profiles: how long each kernel of a program takes, measured inside the program by the processor's own counter."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.llvm.host import host_target
from graphc.codegen.llvm.program import Launch, Region
from graphc.codegen.package import make_artifact
from graphc.errors import InputError
from graphc.ir import Graph, TensorType
from graphc.ir.schedule import Group
from graphc.ir.schedule_text import print_plan
from graphc.ir.types import f64
from graphc.pipeline import build_program
from graphc_runtime.artifact import Launch as LaunchRecord
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices import get_device
from graphc_runtime.errors import OutOfMemory
from graphc_runtime.executor import Executable
from graphc_runtime.machine import memory_limit

_QUIET = frozenset({"constant", "broadcast", "reshape", "permute", "slice", "window", "cast", "iota", "materialize"})


@dataclass(frozen=True)
class KernelTime:
    """One step of a program. `seconds` is the median over the runs; `flops` and `bytes` are estimates of its work."""

    kernel: str  # symbol, or "fill", "copy" and "region"
    operators: str  # what it computes, its stored shapes first
    seconds: float
    flops: int
    bytes: int
    lines: tuple[str, ...]  # of the user's code


@dataclass(frozen=True)
class Profile:
    """Times of all steps in the order in which they run, and what the program keeps in memory."""

    name: str
    runs: int
    seconds: float  # one whole run, the median
    steps: tuple[KernelTime, ...]
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    plan: str  # where each value lies, in text


def profile_graph(graph: Graph, runs: int = 20, seed: int = 0) -> Profile:
    """Compile `graph` for this machine and time its steps over `runs` runs on random inputs.

    Float inputs are standard normal numbers, others zeros and ones, which are valid indices and classes almost
    everywhere. Raises InputError for no runs, UnsupportedError for a graph with operators that run on the host,
    OutOfMemory for one that needs more memory than this process may have.
    """
    if runs < 1:
        raise InputError(f"a profile needs at least one run, not {runs}")
    target = host_target()
    program = build_program(graph, target=target)
    executable = Executable(make_artifact(program, target, {}, clock=True), get_device("cpu"))
    inputs = random_inputs(graph, seed, sum(n.type.nbytes for n in graph.outputs) + program.plan.arena_bytes)
    ticks, starts, whole = [], [], []
    for number in range(runs + 2):  # the first run warms caches and threads
        start = time.perf_counter()
        outputs = executable.run(inputs)
        if number:
            starts.append(start)
            whole.append(time.perf_counter() - start)
            ticks.append(outputs[-1].view(np.int64, (len(program.steps) + 1,)).copy())
    rate = (int(ticks[-1][0]) - int(ticks[0][0])) / (starts[-1] - starts[0])  # ticks per second
    seconds = np.median(np.diff(np.stack(ticks), axis=1), axis=0) / rate
    steps = []
    launches = iter(zip(program.records, program.launched, strict=True))
    for step, taken in zip(program.steps, seconds, strict=True):
        if isinstance(step, Launch):
            record, group = next(launches)
            text = operators_of(group)
            steps.append(KernelTime(step.symbol, text, float(taken), record.flops, record.bytes, record.lines))
        elif isinstance(step, Region):
            steps.append(_region(step, [next(launches) for s in step.steps if isinstance(s, Launch)], float(taken)))
        else:
            name = type(step).__name__.lower()
            moved = getattr(step, "nbytes", 0)
            steps.append(KernelTime(name, name, float(taken), 0, moved, ()))
    return Profile(
        graph.name,
        runs,
        statistics.median(whole),
        tuple(steps),
        sum(n.type.nbytes for n in graph.inputs),
        sum(n.type.nbytes for n in graph.outputs),
        program.plan.arena_bytes,
        print_plan(program.fused, program.plan),
    )


def _region(step: Region, launches: Sequence[tuple[LaunchRecord, Group]], seconds: float) -> KernelTime:
    """The time of kernels that run block by block, which is that of all of them."""
    kernels = "; ".join(operators_of(group) for _, group in launches)
    return KernelTime(
        "region",
        f"{step.blocks} blocks of {len(launches)} kernels: {kernels}",
        seconds,
        sum(record.flops for record, _ in launches),
        sum(record.bytes for record, _ in launches),
        tuple(dict.fromkeys(line for record, _ in launches for line in record.lines)),
    )


def operators_of(group: Group) -> str:
    """The operators of a group with how often each stands in it, and the types that it stores."""
    counts: dict[str, int] = {}
    for node in sorted(group.inside, key=lambda n: n.op):
        if node.op not in _QUIET:
            counts[node.op] = counts.get(node.op, 0) + 1
    names = " ".join(f"{op}*{n}" if n > 1 else op for op, n in counts.items()) or "move"
    return f"{', '.join(str(t.type) for t in group.targets)} = {names}"


def random_inputs(graph: Graph, seed: int, besides: int = 0) -> list[Buffer]:
    """Inputs for `graph`: see `profile_graph`. `besides` is the number of bytes that are needed later on."""
    sizes = [n.type.nbytes for n in graph.inputs]
    needed = sum(sizes) + max(besides, max(sizes, default=0))  # an array is copied when it has been drawn
    if needed > memory_limit():
        raise OutOfMemory(
            f"@{graph.name} needs {needed:,} bytes, {sum(sizes):,} of them for its inputs; this process may have "
            f"{memory_limit():,} bytes in all. Take smaller shapes"
        )
    rng = np.random.default_rng(seed)
    return [Buffer.from_array(_random_array(rng, n.type)) for n in graph.inputs]


def _random_array(rng: np.random.Generator, type: TensorType) -> np.ndarray:
    if type.dtype.is_float:
        drawn = np.float64 if type.dtype is f64 else np.float32  # NumPy draws no others
        return rng.standard_normal(type.shape, drawn).astype(type.dtype.numpy, copy=False)
    return rng.integers(0, 2, type.shape, type.dtype.numpy)
