"""Graphs as kernels of explicit loops: valid IR for every target, and right on each that this machine can run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.kernel_verify import verify_kernel
from graphc.codegen.target import Target
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.schedule_text import print_fused
from graphc.ir.schedule_verify import verify_fused
from graphc.pipeline import build_program, optimize, schedule
from tests.codegen.golden import compare
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.programs import mismatches, run
from tests.codegen.targets import AVX2, FIXED, runnable
from tests.fuzz.graphs import random_graph, random_inputs

EVERY = {**FIXED, "avx2": AVX2}
RUNNABLE = runnable()


def small_step() -> Graph:
    return training_step(16, 5, (1, 2), (), 3, window=2, squares=True)


def _graph_text(graph: Graph) -> str:
    return print_graph(graph.name, graph.inputs, graph.nodes, graph.outputs)


TEXTS: dict[str, Callable[[Target], str]] = {
    "laid_out": lambda target: _graph_text(optimize(small_step(), target)),
    "fused": lambda target: print_fused(schedule(small_step(), target)),
    "loops": lambda target: "\n".join(map(print_kernel, build_program(small_step(), target=target).kernels)),
}


def test_golden_text_for_every_machine(update_golden: bool) -> None:
    compare("simplified", _graph_text(optimize(small_step())), update_golden)


@pytest.mark.parametrize("target", FIXED)
@pytest.mark.parametrize("stage", TEXTS)
def test_golden_texts(stage: str, target: str, update_golden: bool) -> None:
    compare(f"{stage}.{target}", TEXTS[stage](FIXED[target]), update_golden)


@pytest.mark.parametrize("target", EVERY)
def test_kernels_are_valid(target: str) -> None:
    for graph in (training_step(3), training_step(16), *map(random_graph, range(40))):
        program = build_program(graph, target=EVERY[target])
        verify_fused(program.fused)
        for kernel in program.kernels:
            verify_kernel(kernel)


@pytest.mark.share(2)
@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("batch", [1, 16, 29])
def test_training_steps_on_other_targets(batch: int, target: str) -> None:
    graph = training_step(batch)
    arrays = arrays_for(graph)
    for got, expected in zip(run(graph, arrays, RUNNABLE[target]), evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max(initial=1.0)))


def check_seeds(target: str, seeds: range) -> None:
    wrong = []
    for seed in seeds:
        graph = random_graph(seed)
        arrays = random_inputs(graph, seed)
        wrong += [f"graph {seed}: {text}" for text in mismatches(graph, arrays, run(graph, arrays, RUNNABLE[target]))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.share(2)
@pytest.mark.parametrize("target", RUNNABLE)
def test_random_graphs_on_other_targets(target: str) -> None:
    check_seeds(target, range(50_000, 50_015))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(50_100, 51_100, 100))
@pytest.mark.parametrize("target", RUNNABLE)
def test_many_random_graphs_on_other_targets(target: str, first: int) -> None:
    check_seeds(target, range(first, first + 100))
