"""Whole programs on CUDA devices: launches that are shared, memory that is taken over, rows in shared memory."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.cuda.emit import launch_shape
from graphc.codegen.cuda.program import combined_steps
from graphc.compiled import target_of
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32, f64, i64
from graphc.pipeline import build_program
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.test_gpu_schedule import graph_of, layer_norm, softmax
from tests.cuda.machine import Machine

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("donated", [False, True])
def test_a_training_step_shares_launches_and_gives_the_same(cuda: Machine, donated: bool) -> None:
    graph = training_step(6)
    taken = range(2, len(graph.inputs)) if donated else ()
    program = build_program(graph, frozenset(taken), target_of("cuda:0"))
    done = combined_steps(program, target_of("cuda:0"))
    assert max(len(d.works) for d in done) > 1
    assert any(place >= 0 for place in program.plan.taken) is donated
    arrays = arrays_for(graph)
    got = cuda.call(cuda.executable(graph, taken), graph, arrays)
    for result, expected in zip(got, evaluate(graph, arrays, floats=f64), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_kernels_that_share_a_launch_keep_to_their_memory(checked: Machine) -> None:
    graph = training_step(4)
    arrays = arrays_for(graph)
    for result, expected in zip(checked.run(graph, arrays), evaluate(graph, arrays, floats=f64), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 100), (3, 1000), (2, 5000), (40, 10)])
def test_softmax_and_layer_norm(cuda: Machine, shape: tuple[int, int]) -> None:
    for make, others in ((softmax, []), (layer_norm, [shape[1:], shape[1:]])):
        graph = graph_of(make, shape, *others)
        arrays = [RNG.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
        np.testing.assert_allclose(cuda.run(graph, arrays)[0], evaluate(graph, arrays)[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("columns", [64, 40])
def test_short_rows_that_share_blocks(checked: Machine, columns: int) -> None:
    """The last block has fewer rows."""
    shape = (1030, columns)
    for make in (softmax, lambda b, x: b.reduce_sum(x, (1,))):
        graph = graph_of(make, shape)
        (kernel,) = build_program(graph, target=target_of("cuda:0")).kernels
        assert launch_shape(kernel)[:2] == (258, 4 * 32)
        x = RNG.standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(checked.run(graph, [x])[0], evaluate(graph, [x])[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("shape", "axes"), [((1 << 18,), (0,)), ((600, 1024), (0,)), ((8, 3, 40, 50), (0, 2, 3))])
def test_long_sums_in_parts(checked: Machine, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    graph = graph_of(lambda b, x: b.reduce_sum(x, axes), shape)
    x = RNG.standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(checked.run(graph, [x])[0], x.astype(float).sum(axes), rtol=1e-4, atol=1e-2)


def test_sorting_scans_and_writes_of_their_usual_sizes(checked: Machine) -> None:
    """Rows of several tiles, lines of several parts, elements that meet."""
    b = Builder()
    x, rows = b.input(0, TensorType(f32, (2, 5000))), b.input(1, TensorType(f32, (300, 4)))
    places = b.input(2, TensorType(i64, (300,)))
    table = b.input(3, TensorType(f32, (50, 4)))
    outputs = (
        b.apply("argsort", (x,), {"axis": 1, "descending": False}),
        b.apply("sort", (x,), {"axis": 1, "descending": True}),
        b.apply("scan_max", (x,), {"axis": 1, "reverse": True}),
        b.apply("index_add", (table, places, rows), {"axis": 0}),
    )
    graph = Graph((x, rows, places, table), outputs)
    arrays = [RNG.standard_normal(n.shape).astype(np.float32) for n in graph.inputs]
    arrays[2] = RNG.integers(0, 50, 300)
    for result, expected in zip(checked.run(graph, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_a_transposition(checked: Machine) -> None:
    graph = graph_of(lambda b, x: b.add(b.permute(x, (1, 0)), x), (64, 64))
    x = RNG.standard_normal((64, 64)).astype(np.float32)
    np.testing.assert_array_equal(checked.run(graph, [x])[0], x + x.T)
