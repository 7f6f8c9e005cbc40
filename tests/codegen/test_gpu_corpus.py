"""All operators and random graphs as scheduled for a GPU, run on this machine, against the NumPy reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.codegen import gpu_accumulate, gpu_scans, gpu_schedule, gpu_sorting
from tests.codegen.gpu_programs import GPU, run_for_gpu
from tests.codegen.programs import mismatches
from tests.fuzz.graphs import random_graph, random_inputs
from tests.ops.corpus import FORWARD, forward

# One with so few registers and threads that rows are kept in shared memory, or read again.
TARGETS = {"usual": GPU, "small": replace(GPU, registers=1 << 9, l1_bytes=4 << 10, l2_bytes=1 << 16, cores=1)}


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of hundreds of lanes take long to compile for a processor."""
    monkeypatch.setattr(gpu_schedule, "WIDTHS", (32, 64))
    monkeypatch.setattr(gpu_accumulate, "THREADS", 32)
    monkeypatch.setattr(gpu_scans, "THREADS", 32)
    monkeypatch.setattr(gpu_sorting, "TILE", 32)
    monkeypatch.setattr(gpu_sorting, "MAX_BLOCK", 32)


@pytest.mark.slow  # the shim runs them as CUDA C: tests/cuda/test_conformance.py
@pytest.mark.parametrize("op", FORWARD)
def test_samples(op: str) -> None:
    case = forward([op])
    case.judge(run_for_gpu(case.graph, case.arrays))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, target: str) -> None:
    graph = random_graph(seed)
    arrays = random_inputs(graph, seed)
    assert not mismatches(graph, arrays, run_for_gpu(graph, arrays, TARGETS[target]))
