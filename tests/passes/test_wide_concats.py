"""Concatenations of many parts are stored by a kernel that only moves, and read from memory."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_PARTS
from graphc.ir.types import TensorType, f32
from graphc.passes.stored import FEW_PARTS
from graphc.passes.wide_concats import WideConcats
from graphc.pipeline import optimize, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX512, common


def _summed(count: int, axis: int, sizes: tuple[int, ...] = (2, 3)) -> Graph:
    b = Builder()
    parts: list[Node] = []
    for i in range(count):
        rows = sizes[i % len(sizes)]
        parts.append(b.input(i, TensorType(f32, (rows, 4) if axis == 0 else (4, rows)), f"x{i}"))
    joined = b.concat(tuple(parts), axis)
    return Graph(tuple(parts), (b.reduce_sum(b.mul(joined, joined), (1 - axis,)),))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("count", [FEW_PARTS + 1, 40, MAX_PARTS + 1])
def test_many_parts_of_other_shapes_are_stored_few_by_few(count: int, axis: int) -> None:
    graph = _summed(count, axis)
    made = WideConcats().run(graph)
    stored = [n.inputs[0] for n in made.nodes if n.op == "materialize"]
    assert all(n.op == "concat" and n.type.rank == (1 if axis == 0 else 2) for n in stored)
    assert max(len(n.inputs) for n in stored) <= FEW_PARTS
    assert WideConcats().run(made) is made
    groups = schedule(graph, AVX512).groups
    inside = [[len(n.inputs) for n in group.inside if n.op == "concat"] for group in groups]
    assert max(itertools.chain(*inside)) <= FEW_PARTS and not inside[-1]


@pytest.mark.parametrize("axis", [0, 1])
def test_very_many_parts_of_one_shape_are_stored(axis: int) -> None:
    graph = _summed(MAX_PARTS + 1, axis, (3,))
    made = WideConcats().run(graph)
    (stored,) = (n for n in made.nodes if n.op == "materialize")
    assert stored.inputs[0].op == "concat" and stored.type.rank == (1 if axis == 0 else 2)
    assert WideConcats().run(made) is made
    groups = schedule(graph, AVX512).groups
    assert len(groups) == 2 and not any(n.op == "concat" for n in groups[1].inside)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("count", [FEW_PARTS + 1, MAX_PARTS])
def test_many_parts_of_one_shape_are_stored_by_one_kernel(count: int, axis: int) -> None:
    graph = _summed(count, axis, (3,))
    assert WideConcats().run(graph) is graph
    first, second = schedule(graph, AVX512).groups
    assert len(first.roots) == count and not any(n.op == "concat" for n in second.inside)


@pytest.mark.parametrize("sizes", [(3,), (1, 2, 5)], ids=str)
def test_few_parts_are_chosen_where_they_are_read(sizes: tuple[int, ...]) -> None:
    graph = _summed(FEW_PARTS, 0, sizes)
    assert WideConcats().run(graph) is graph
    assert not any(n.op == "materialize" for n in optimize(graph, AVX512).nodes)
    (group,) = schedule(graph, AVX512).groups
    assert any(n.op == "concat" for n in group.inside)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sizes", [(3,), (1, 2, 5)], ids=str)
@pytest.mark.parametrize("count", [FEW_PARTS, FEW_PARTS + 1, 70, MAX_PARTS + 40])
def test_results(axis: int, sizes: tuple[int, ...], count: int) -> None:
    graph = _summed(count, axis, sizes)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=node.shape).astype(np.float32) for node in graph.inputs]
    (got,), (expected,) = run(graph, arrays, common()), evaluate(graph, arrays)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
