"""docs/ir.md is true: its graphs run, and it names every operator, attribute and element type."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from graphc.ir import DTYPES, OPS, Graph, evaluate, parse_graph, parse_graphs, verify
from graphc.passes.rules import ALL_RULES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ir.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```gir\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
GRAPHS = [graph for block in BLOCKS for graph in parse_graphs(block)]


def run(name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays given to the page's graph `name`, and what it made of them."""
    (graph,) = [g for g in GRAPHS if g.name == name]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=node.shape).astype(node.dtype.numpy) for node in graph.inputs]
    return arrays, evaluate(graph, arrays)


def test_the_grammar_stands_first_and_is_short() -> None:
    grammar = [line for line in PAGE.split("```")[0].splitlines() if line.startswith("    ")]
    assert 8 <= len(grammar) < 15


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.name)
def test_graphs_are_valid_and_run(graph: Graph) -> None:
    verify(graph)
    assert str(parse_graph(str(graph))) == str(graph)
    _, results = run(graph.name)
    assert [r.shape for r in results] == [node.shape for node in graph.outputs]
    assert all(np.isfinite(r).all() for r in results)


def test_printed_examples_are_as_printed() -> None:
    assert str(parse_graphs(BLOCKS[0])[0]) == re.sub(r" loc\(.*?\)", "", BLOCKS[0]).strip()


def test_every_operator_is_described() -> None:
    for op in OPS.values():
        assert re.search(rf"`{op.name}[ `]", PAGE), op.name
        entry = next((m[0] for m in re.finditer(r"`[^`\n]*`", PAGE) if re.match(rf"`{op.name}\b.*\{{", m[0])), "")
        assert all(a.name in entry for a in op.attrs), f"{op.name}: {entry}"


def test_every_dtype_and_exactness_is_named() -> None:
    assert all(f'"{d.name}"' in PAGE for d in DTYPES)
    assert all(f"`{rule.exactness}`" in PAGE for rule in ALL_RULES)


def test_linear_relu() -> None:
    (x, weight, bias), (out,) = run("linear_relu")
    np.testing.assert_allclose(out, np.maximum(x @ weight.T + bias, 0), rtol=1e-4, atol=1e-4)


def test_convolution_and_its_gradients() -> None:
    """The gradients are the adjoints of the convolution: <conv(x, w), ct> is linear in x and in w."""
    (x, w, ct), (out, grad_w, grad_x) = run("convolution")
    value = np.vdot(out, ct)
    np.testing.assert_allclose([np.vdot(w, grad_w), np.vdot(x, grad_x)], [value, value], rtol=1e-4)
    np.testing.assert_allclose(out[1, 2, 3, 0], np.sum(x[1, :, 6:9, 0:3] * w[2]), rtol=1e-4)


def test_max_pool_and_softmax() -> None:
    (x, ct), (pooled, gradient) = run("max_pool")
    np.testing.assert_array_equal(pooled, x.reshape(2, 6, 14, 2, 14, 2).max((3, 5)))
    np.testing.assert_array_equal(gradient != 0, np.repeat(np.repeat(pooled, 2, 2), 2, 3) == x)
    np.testing.assert_allclose(gradient.sum(), ct.sum(), rtol=1e-3)
    _, (rows,) = run("softmax")
    np.testing.assert_allclose(rows.sum(1), np.ones(8), rtol=1e-6)
