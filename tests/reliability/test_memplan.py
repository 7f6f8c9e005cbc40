"""Row 10 of the reliability goals: re-use of memory, threads and stale bytes never change a result, and an independent
checker finds no overlap in any plan.

Each graph runs with its plan and with one that re-uses nothing; over memory full of zeros and full of NaN; with
parallel loops (here: all loops) in one piece, cut into single steps in random order, and on two threads; and with
outputs that take over inputs. All results have the same bits.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest

from graphc.codegen import launching
from graphc.codegen.llvm.host import host_target
from graphc.ir.graph import Graph
from graphc_runtime.devices import get_device
from graphc_runtime.executor import Executable
from graphc_runtime.pool import get_num_threads, set_num_threads
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.plan_checker import check_plan, steps_of
from tests.codegen.programs import buffers, results, same_bits
from tests.codegen.raw import Entry, artifact_of, program_for, run_over
from tests.fuzz.graphs import random_graph, random_inputs

FEW, MANY, AT_ONCE = 30, 5000, 10
ZEROS, NANS = 0x00, 0xFF


@pytest.fixture(autouse=True)
def everything_is_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "PARALLEL_FLOPS", 0)


def check(graph: Graph, arrays: list[np.ndarray], seed: int, what: str) -> None:
    every = frozenset(range(len(graph.inputs)))
    planned, apart, giving = program_for(graph), program_for(graph, reuse=False), program_for(graph, every)
    for program, donated in ((planned, frozenset()), (apart, frozenset()), (giving, every)):
        steps = steps_of(program.fused, program.plan, host_target())
        assert not check_plan(program.fused, program.plan, steps, donated), what
    artifact = artifact_of(planned)
    expected = run_over(Entry(artifact_of(apart)), arrays, ZEROS, None)
    entry = Entry(artifact)
    runs = {
        "as planned": run_over(entry, arrays, ZEROS, None),
        "over NaN": run_over(entry, arrays, NANS, None),
        "into its inputs": run_over(Entry(artifact_of(giving)), arrays, NANS, random.Random(seed)),
        "in random order": run_over(entry, arrays, NANS, random.Random(seed)),
    }
    before = get_num_threads()
    program = Executable(artifact, get_device("cpu"))
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            given = results(graph, program.run(buffers(arrays)))
            runs[f"on {threads} threads"] = [a.reshape(-1).view(np.uint8) for a in given]
    finally:
        set_num_threads(before)
    for way, outputs in runs.items():
        wrong = [k for k, (a, b) in enumerate(zip(outputs, expected, strict=True)) if not same_bits(a, b)]
        assert not wrong, f"{what}: outputs {wrong} differ when run {way}"


def check_seeds(seeds: Iterable[int]) -> None:
    for seed in seeds:
        graph = random_graph(seed)
        check(graph, random_inputs(graph, seed), seed, f"graph {seed}")


@pytest.mark.parametrize("first", range(0, FEW, AT_ONCE))
def test_random_graphs(first: int) -> None:
    check_seeds(range(first, first + AT_ONCE))


def test_what_is_picked_by_itself() -> None:
    """The only place of a maximum is named by that maximum, all in one kernel."""
    check_seeds((2455,))


@pytest.mark.parametrize("batch", [3, 16, 29])
def test_training_steps(batch: int) -> None:
    graph = training_step(batch)
    check(graph, arrays_for(graph), batch, f"batch {batch}")


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, FEW + MANY, 10 * AT_ONCE))
def test_many_random_graphs(first: int) -> None:
    check_seeds(range(first, first + 10 * AT_ONCE))
