"""Sums of many products by one formula become one product, where that saves memory traffic."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.narrow import factor_dtype
from graphc.ir.node import Node
from graphc.ir.schedule import MAX_PARTS
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64
from graphc.passes.join_products import MIN_TERMS, JoinProducts
from graphc.pipeline import build_program
from tests.codegen.programs import run

SPEC = "b o, b i -> o i"


def products(count: int, rows: int = 4, dtype: DType = f32, spec: str = SPEC) -> tuple[tuple[Node, ...], list[Node]]:
    """Inputs, and `count` products of two of them each: results of 40 x 24 from `rows` rows."""
    b = Builder()
    xs = [b.input(i, TensorType(dtype, (rows, 40))) for i in range(count)]
    ys = [b.input(count + i, TensorType(dtype, (rows, 24))) for i in range(count)]
    return (*xs, *ys), [b.contract(x, y, spec) for x, y in zip(xs, ys, strict=True)]


def chain(terms: list[Node]) -> Node:
    b = Builder()
    total = terms[0]
    for term in terms[1:]:
        total = b.add(total, term)
    return total


def count_of(graph: Graph, op: str) -> int:
    return sum(n.op == op for n in graph.nodes)


def arrays_for(graph: Graph) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.standard_normal(n.shape).astype(n.dtype.numpy) for n in graph.inputs]


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("count", [MIN_TERMS, 9, pytest.param(MAX_PARTS + 3, marks=pytest.mark.slow)])
def test_a_sum_of_products_is_one(count: int, dtype: DType) -> None:
    inputs, terms = products(count, dtype=dtype)
    graph = Graph(inputs, (chain(terms),))
    joined = JoinProducts().run(graph)
    assert count_of(joined, "contract") == -(-count // MAX_PARTS)
    arrays = arrays_for(graph)
    np.testing.assert_allclose(run(graph, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(evaluate(joined, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_factors_that_16_bits_hold_are_joined_in_16_bits(dtype: DType, zero: float) -> None:
    b, count = Builder(), 5
    shapes = [(4, 40)] * count + [(4, 24)] * (count - 1)
    inputs = [b.input(i, TensorType(dtype, shape)) for i, shape in enumerate(shapes)]
    wide = [b.cast(x, f32) for x in inputs]
    first_state = b.constant(zero, TensorType(f32, (4, 24)))  # what a recurrence begins with
    terms = [b.contract(x, y, SPEC) for x, y in zip(wide[:count], (first_state, *wide[count:]), strict=True)]
    graph = Graph(tuple(inputs), (chain(terms),))
    joined = JoinProducts().run(graph)
    (product,) = (n for n in joined.nodes if n.op == "contract")
    assert factor_dtype(product) is (dtype if str(zero) == "0.0" else f32)
    arrays = arrays_for(graph)
    np.testing.assert_allclose(evaluate(joined, arrays)[0], evaluate(graph, arrays)[0], rtol=1e-5, atol=1e-5)


def test_sums_in_any_order_of_brackets() -> None:
    inputs, terms = products(8)
    b = Builder()
    pairs = [b.add(terms[i], terms[i + 1]) for i in range(0, 8, 2)]
    graph = Graph(inputs, (b.add(b.add(pairs[0], pairs[1]), b.add(pairs[2], pairs[3])),))
    assert count_of(JoinProducts().run(graph), "contract") == 1


def test_one_kernel_instead_of_one_for_each_step() -> None:
    inputs, terms = products(20)
    program = build_program(Graph(inputs, (chain(terms),)))
    assert len(program.fused.groups) == 3  # the operands side by side, and their product


def test_products_that_others_read_stay() -> None:
    inputs, terms = products(6)
    for kept in (terms[2], chain(terms[:3])):
        graph = Graph(inputs, (chain(terms), kept))
        joined = JoinProducts().run(graph)
        assert count_of(joined, "contract") >= 3
        arrays = arrays_for(graph)
        for got, expected in zip(run(graph, arrays), evaluate(graph, arrays), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_few_products_and_products_of_large_operands_stay() -> None:
    inputs, terms = products(MIN_TERMS - 1)
    few = Graph(inputs, (chain(terms),))
    assert JoinProducts().run(few) is few
    inputs, terms = products(6, rows=64)  # two operands of 64 rows are more than a result of 40 x 24
    large = Graph(inputs, (chain(terms),))
    assert JoinProducts().run(large) is large


def test_other_formulas_and_windows_stay() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(f32, (4, 30))), b.input(1, TensorType(f32, (4, 30)))
    turned = [b.contract(x, y, "b o, b i -> o i" if i % 2 else "b o, b i -> i o") for i in range(2)]
    mixed = Graph((x, y), (chain([*turned, *turned]),))
    assert JoinProducts().run(mixed) is mixed
    long = b.input(0, TensorType(f32, (64,)))
    tap = b.input(1, TensorType(f32, (4,)))
    windows = Graph((long, tap), (chain([b.contract(long, tap, "h+r, r -> h")] * 6),))
    assert JoinProducts().run(windows) is windows
