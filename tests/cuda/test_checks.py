"""The corpus in checked units: no kernel reads or writes out of bounds, has a race, or depends on the order in
which its threads run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from graphc.compiled import target_of
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32
from graphc.pipeline import build_program
from graphc_runtime.devices.cuda import cuda_device
from graphc_runtime.executor import Executable
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.programs import mismatches, same_bits
from tests.codegen.test_gpu_schedule import graph_of
from tests.cuda.machine import Machine
from tests.cuda.shim import ShimError
from tests.fuzz.graphs import random_graph, random_inputs
from tests.ops.corpus import DERIVATIVES, FORWARD, Case, forward, gradients, groups

ORDERS = (0, 1, 20240501)
# Operators that blocks of threads work on together, or that write where an index says.
SHARED = ("reduce_sum", "reduce_max", "contract", "window", "fold", "scan_sum", "argsort", "scatter_add", "take_along")


def check(machine: Machine, graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run `graph` in every order of threads; the results, which are the same bits in each."""
    assert machine.driver is not None
    executable = machine.executable(graph)
    first: list[np.ndarray] = []
    for order in ORDERS:
        machine.driver.order = order
        got = machine.call(executable, graph, arrays)
        first = first or got
        assert all(map(same_bits, got, first)), f"order {order} gives other results"
    return first


def test_a_training_step(checked: Machine) -> None:
    graph = training_step(8)
    check(checked, graph, arrays_for(graph))


@pytest.mark.parametrize("op", SHARED)
def test_operators_of_blocks(checked: Machine, op: str) -> None:
    case = forward([op])
    case.judge(check(checked, case.graph, case.arrays))


def product() -> Case:
    """A product of matrices."""
    b = Builder()
    x, y = b.input(0, TensorType(f32, (96, 64))), b.input(1, TensorType(f32, (64, 80)))
    graph = Graph((x, y), (b.contract(x, y, "a b, b c -> a c"),))
    return Case(graph, random_inputs(graph, 0), [False], ["product"])


@pytest.mark.parametrize("name", ["product", "reduce_sum", "scan_sum"])
def test_kernels_without_their_barriers_have_races(checked: Machine, name: str) -> None:
    case = product() if name == "product" else forward([name])
    artifact = checked.executable(case.graph).artifact
    case.judge(checked.call(Executable(artifact, cuda_device(0)), case.graph, case.arrays))
    (unit,) = artifact.objects
    spoilt = replace(artifact, objects=(unit.replace(b"__syncthreads();", b""),))
    with pytest.raises(ShimError, match=r"race|that no thread of its block wrote"):
        checked.call(Executable(spoilt, cuda_device(0)), case.graph, case.arrays)


@pytest.mark.slow
@pytest.mark.parametrize("operators", groups([op for op in FORWARD if op not in SHARED], 4), ids="-".join)
def test_forward(checked: Machine, operators: list[str]) -> None:
    case = forward(operators)
    case.judge(check(checked, case.graph, case.arrays))


@pytest.mark.slow
@pytest.mark.parametrize("operators", groups(DERIVATIVES, 4), ids="-".join)
def test_derivatives(checked: Machine, operators: list[str]) -> None:
    case = gradients(operators)
    case.judge(check(checked, case.graph, case.arrays))


@pytest.mark.parametrize("shape", [(64, 6), (3, 32, 18)])
def test_blocks_of_a_transpose_that_overlap_are_stored_once(checked: Machine, shape: tuple[int, ...]) -> None:
    """The last block along an axis is moved back, to where the block of another thread is."""
    axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
    graph = graph_of(lambda b, x: b.permute(x, axes), shape)
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    (kernel,) = build_program(graph, target=target_of("cuda:0")).kernels
    assert kernel.grid * 16 > x.size, "blocks of 4 x 4 that overlap"
    np.testing.assert_array_equal(check(checked, graph, [x])[0], x.transpose(axes))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(20), 307])
def test_random_graphs(checked: Machine, seed: int) -> None:
    graph = random_graph(seed)
    arrays = random_inputs(graph, seed)
    assert not mismatches(graph, arrays, check(checked, graph, arrays))
