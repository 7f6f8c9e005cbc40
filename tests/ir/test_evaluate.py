"""The reference evaluator, and the export to networkx."""

from __future__ import annotations

import tracemalloc

import networkx
import numpy as np
import pytest

from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.ir import Builder, Graph, Location, TensorType, evaluate, parse_graph
from graphc.ir.types import f32, f64, i32
from tests.fuzz.graphs import error_bounds, random_graph, random_inputs

MATMUL = """
graph @main(%x: f32[2,3], %w: f32[3,4], %n: i32[2]) {
  %3 = contract %x, %w {spec = "m k, k n -> m n"} : f32[2,4]
  %4 = exp %3 : f32[2,4]
  %5 = cast %n {dtype = f32} : f32[2]
  return %4, %x, %5, %4
}
"""


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    return [x, w, np.array([3, -4], np.int32)]


def test_outputs_in_order() -> None:
    x, w, n = inputs()
    results = evaluate(parse_graph(MATMUL), [x, w, n])
    np.testing.assert_allclose(results[0], np.exp(x @ w), rtol=1e-6)
    np.testing.assert_array_equal(results[1], x)
    np.testing.assert_array_equal(results[2], np.array([3, -4], np.float32))
    assert [r.dtype for r in results] == [np.float32] * 4


def test_results_do_not_share_memory() -> None:
    arrays = inputs()
    results = evaluate(parse_graph(MATMUL), arrays)
    assert not np.shares_memory(results[1], arrays[0])
    assert not np.shares_memory(results[0], results[3])


def test_oracle_mode_computes_floats_in_f64() -> None:
    x, w, n = inputs()
    wide = evaluate(parse_graph(MATMUL), [x, w, n], floats=f64)
    assert [r.dtype for r in wide] == [np.float64] * 4
    np.testing.assert_allclose(wide[0], np.exp(x.astype(np.float64) @ w.astype(np.float64)), rtol=1e-14)
    with pytest.raises(GraphcError, match="computed as they are or in f64"):
        evaluate(parse_graph(MATMUL), [x, w, n], floats=f32)


def test_arrays_must_fit() -> None:
    graph = parse_graph(MATMUL)
    x, w, n = inputs()
    with pytest.raises(ShapeError, match="takes 3 arrays"):
        evaluate(graph, [x, w])
    with pytest.raises(ShapeError, match=r"input 1 of graph @main is f32\[3,4\], the array's shape is \(4, 3\)"):
        evaluate(graph, [x, w.T, n])
    with pytest.raises(DTypeError, match=r"input 2 of graph @main is i32.*dtype is int64"):
        evaluate(graph, [x, w, n.astype(np.int64)])


def test_a_long_chain_keeps_few_values_alive() -> None:
    b = Builder()
    x = y = b.input(0, TensorType(f32, (10_000,)))
    for _ in range(2000):
        y = b.add(y, x)
    graph = Graph((x,), (y,))
    assert len(graph.nodes) == 2001
    tracemalloc.start()
    (result,) = evaluate(graph, [np.ones(10_000, np.float32)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert float(result[0]) == 2001.0
    assert peak < 10 * result.nbytes


@pytest.mark.parametrize("seed", range(60))
def test_f32_stays_within_the_error_bounds(seed: int) -> None:
    graph = random_graph(seed)
    arrays = random_inputs(graph, seed)
    for got, exact, bound in zip(
        evaluate(graph, arrays), evaluate(graph, arrays, floats=f64), error_bounds(graph), strict=True
    ):
        assert np.isfinite(exact).all()
        assert np.abs(got.astype(np.float64) - exact.astype(np.float64)).max(initial=0.0) <= bound


def test_random_graphs_depend_on_the_seed_alone() -> None:
    assert str(random_graph(7)) == str(random_graph(7))
    assert str(random_graph(7)) != str(random_graph(8))
    assert all(len(random_graph(seed).nodes) <= 60 for seed in range(50))


def test_networkx_export() -> None:
    b = Builder()
    with b.at(frozenset({Location("net.py", 3)})):
        x = b.input(0, TensorType(i32, (2,)), "x")
        y = b.mul(x, x)
    result = Graph((x,), (y, x, y), "square").to_networkx()
    assert result.name == "square"
    assert list(result.nodes) == ["%x", "%1"]
    assert result.nodes["%1"] == {"op": "mul", "type": "i32[2]", "attrs": {}, "locs": ["net.py:3"], "outputs": [0, 2]}
    assert result.nodes["%x"]["attrs"] == {"index": 0, "name": "x"}
    assert [(u, v, d["operand"]) for u, v, d in result.edges(data=True)] == [("%x", "%1", 0), ("%x", "%1", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_networkx_graphs_are_acyclic_and_complete(seed: int) -> None:
    graph = random_graph(seed)
    result = graph.to_networkx()
    assert result.number_of_nodes() == len(graph.nodes)
    assert result.number_of_edges() == sum(len(node.inputs) for node in graph.nodes)
    assert networkx.is_directed_acyclic_graph(result)
