"""Profiles on a GPU: events between the steps of a program tell how long each takes there.

Steps are queued behind work that keeps the device busy meanwhile, so that no time between two events is the host's.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from graphc.codegen.cuda.program import combined_steps, make_device_artifact
from graphc.compiled import target_of
from graphc.errors import InputError
from graphc.ir import Graph
from graphc.ir.schedule_text import print_plan
from graphc.pipeline import build_program
from graphc.profiling import KernelTime, Profile, operators_of, random_inputs
from graphc_runtime.devices.cuda import CudaDevice, cuda_device, current_device
from graphc_runtime.devices.cuda_streams import Event

BUSY_BYTES = 256 << 20  # memory that is filled while steps are queued
FILLS_A_STEP = 1 / 4  # a fill takes some 0.1 ms, a step is queued in some 20 us


def profile_on_device(graph: Graph, device: str, runs: int = 20, seed: int = 0) -> Profile:
    """Compile `graph` for `device` ("cuda", "cuda:1") and time its steps over `runs` runs on random inputs.

    Raises InputError for no runs, the runtime's DeviceUnavailable where there is no such device.
    """
    if runs < 1:
        raise InputError(f"a profile needs at least one run, not {runs}")
    number = device.partition(":")[2]
    opened = cuda_device(int(number) if number else current_device())
    target = target_of(opened.name)
    program = build_program(graph, target=target)
    artifact = make_device_artifact(program, target, {})
    outputs = [opened.allocate(node.type.nbytes, node.type) for node in graph.outputs]
    arena = opened.allocate(artifact.arena_bytes, "the program's intermediates")
    held = [*(opened.upload(buffer) for buffer in random_inputs(graph, seed)), *outputs, arena]
    parts = [opened.load(replace(artifact, steps=(step,))) for step in artifact.steps]
    milliseconds = _timed(opened, parts, [buffer.ptr for buffer in held], runs)
    groups = {id(record): group for record, group in zip(program.records, program.launched, strict=True)}
    steps: list[KernelTime] = []
    together = zip(artifact.steps, combined_steps(program, target), np.median(milliseconds, axis=0), strict=True)
    for step, done, taken in together:
        names = "; ".join(operators_of(groups[id(work.record)]) for work in done.works if id(work.record) in groups)
        seconds, record = float(taken) / 1e3, None if step.launch < 0 else artifact.launches[step.launch]
        if record is None:
            steps.append(KernelTime(step.kernel, step.kernel, seconds, 0, step.nbytes, ()))
        else:
            steps.append(KernelTime(step.kernel, names, seconds, record.flops, record.bytes, record.lines))
    return Profile(
        graph.name,
        runs,
        statistics.median(milliseconds.sum(axis=1)) / 1e3,
        tuple(steps),
        sum(node.type.nbytes for node in graph.inputs),
        sum(node.type.nbytes for node in graph.outputs),
        artifact.arena_bytes,
        print_plan(program.fused, program.plan),
    )


def _timed(device: CudaDevice, parts: Sequence[Any], pointers: Sequence[int], runs: int) -> np.ndarray:
    """Milliseconds of each step in each run, after one run that warms caches."""
    stream = device.current_stream
    busy = device.allocate(BUSY_BYTES, "what keeps the device busy in a profile")
    marks = [Event(enable_timing=True) for _ in range(len(parts) + 1)]
    taken: list[list[float]] = []
    for run in range(runs + 1):
        for _ in range(1 + int(len(parts) * FILLS_A_STEP)):
            device.call(device.driver.fill, busy.ptr, run & 0xFF, busy.nbytes, stream.handle)
        marks[0].record(stream)
        for part, mark in zip(parts, marks[1:], strict=True):
            part.enqueue(pointers, stream)
            mark.record(stream)
        stream.synchronize()
        if run:
            taken.append([a.elapsed_time(b) for a, b in pairwise(marks)])
    return np.array(taken).reshape(runs, len(parts))
