"""All operators and random graphs as scheduled for a GPU, run on this machine, against the NumPy reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen import gpu_accumulate, gpu_scans, gpu_schedule, gpu_sorting
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.opdef import OPS
from tests.codegen.gpu_programs import GPU, run_for_gpu
from tests.codegen.programs import mismatches
from tests.fuzz.graphs import random_graph, random_inputs
from tests.ops.test_native import check
from tests.samples import SAMPLES

# One with so few registers and threads that rows are kept in shared memory, or read again.
TARGETS = {"usual": GPU, "small": replace(GPU, registers=1 << 9, l1_bytes=4 << 10, l2_bytes=1 << 16, cores=1)}


@pytest.fixture(autouse=True)
def narrow_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of hundreds of lanes take long to compile for a processor."""
    monkeypatch.setattr(gpu_schedule, "WIDTHS", (32, 64))
    monkeypatch.setattr(gpu_accumulate, "THREADS", 32)
    monkeypatch.setattr(gpu_scans, "THREADS", 32)
    monkeypatch.setattr(gpu_sorting, "TILE", 32)
    monkeypatch.setattr(gpu_sorting, "THREADS", 32)


@pytest.mark.slow  # the shim runs them as CUDA C: tests/cuda/test_conformance.py
@pytest.mark.parametrize("op", [name for name in SAMPLES if name != "input" and OPS[name].kind != "host"])
def test_samples(op: str) -> None:
    b, inputs, outputs, arrays = Builder(), [], [], []
    samples = SAMPLES[op].make(np.random.default_rng(3))
    for sample in samples:
        operands = [b.input(len(inputs) + i, type) for i, type in enumerate(sample.types)]
        inputs += operands
        arrays += sample.arrays
        outputs.append(sample.apply(b, op, operands))
    graph = Graph(tuple(inputs), tuple(outputs))
    results = zip(run_for_gpu(graph, arrays), evaluate(graph, arrays), outputs, samples, strict=True)
    for got, expected, node, sample in results:
        check(got, expected, node, SAMPLES[op].exact, (op, sample.types, sample.attrs))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int, target: str) -> None:
    graph = random_graph(seed)
    arrays = random_inputs(graph, seed)
    assert not mismatches(graph, arrays, run_for_gpu(graph, arrays, TARGETS[target]))
