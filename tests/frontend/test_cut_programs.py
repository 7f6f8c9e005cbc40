"""Long graphs are cut into several programs; what is cheap is made again in each of them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import programs
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32
from graphc_runtime.buffer import Buffer

MATRIX = TensorType(f32, (6, 50))


def long_graph(count: int) -> Graph:
    """A chain of `count` steps that all read one number, spread over the matrix, and a constant."""
    b = Builder()
    x, scale = b.input(0, MATRIX), b.input(1, TensorType(f32, ()))
    spread = b.broadcast(b.reshape(b.exp(scale), (1, 1)), MATRIX.shape)
    value: Node = x
    for number in range(count):
        value = b.add(b.mul(value, spread), b.constant(0.25 + number, MATRIX))
    return Graph((x, scale), (value, spread))


def build(graph: Graph) -> programs.Program:
    return programs.build(graph.outputs, lambda n: n.op == "input")


def test_spread_numbers_and_constants_do_not_cross_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SEGMENT_NODES", 12)
    graph = long_graph(15)
    program = build(graph)
    assert len(program) > 3
    for segment in program[1:]:
        assert sum(n.shape == MATRIX.shape for n in segment.inputs) == 1  # the chain's value
        assert all(n.op not in ("broadcast", "constant", "reshape") for n in segment.inputs)
    handed_on = [n for segment in program for n in segment.outputs]
    assert len(handed_on) == len(set(handed_on)) and set(graph.outputs) <= set(handed_on)
    arrays = [np.full(MATRIX.shape, 0.5, np.float32), np.array(-0.5, np.float32)]
    bound = {n: Buffer.from_array(a.copy()) for n, a in zip(graph.inputs, arrays, strict=True)}
    found = programs.run(program, bound)
    for node, expected in zip(graph.outputs, evaluate(graph, arrays), strict=True):
        np.testing.assert_allclose(found[node].view(np.float32, node.shape), expected, rtol=1e-5)


def test_a_graph_of_some_thousand_nodes_is_one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Graph] = []

    def noting(graph: Graph, key: object, donated: object, device: str) -> None:
        graphs.append(graph)

    monkeypatch.setattr(programs, "executable_for", noting)
    build(long_graph(1200))
    assert len(graphs) == 1
    build(long_graph(3000))
    assert len(graphs) > 2
