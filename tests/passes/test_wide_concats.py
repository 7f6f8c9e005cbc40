"""Concatenations of many parts are stored by a kernel that only moves, and read from memory."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_PARTS
from graphc.ir.types import TensorType, f32
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
def test_many_parts_are_stored(axis: int) -> None:
    graph = _summed(MAX_PARTS + 1, axis)
    made = WideConcats().run(graph)
    (stored,) = (n for n in made.nodes if n.op == "materialize")
    assert stored.inputs[0].op == "concat" and stored.type.rank == (1 if axis == 0 else 2)
    assert WideConcats().run(made) is made
    groups = schedule(graph, AVX512).groups
    assert len(groups) == 2 and not any(n.op == "concat" for n in groups[1].inside)


def test_few_parts_are_chosen_where_they_are_read() -> None:
    graph = _summed(MAX_PARTS, 0)
    assert WideConcats().run(graph) is graph
    assert not any(n.op == "materialize" for n in optimize(graph, AVX512).nodes)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sizes", [(3,), (1, 2, 5)], ids=str)
def test_results(axis: int, sizes: tuple[int, ...]) -> None:
    graph = _summed(MAX_PARTS + 40, axis, sizes)
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=node.shape).astype(np.float32) for node in graph.inputs]
    (got,), (expected,) = run(graph, arrays, common()), evaluate(graph, arrays)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
