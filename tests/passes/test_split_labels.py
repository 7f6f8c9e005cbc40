"""Contractions over folded dimensions become contractions over the dimensions themselves."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.llvm.host import host_target
from graphc.codegen.sites import build_nest
from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Var
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, f32, i64
from graphc.passes.split_labels import SplitLabels
from graphc.pipeline import schedule
from tests.codegen.programs import run


def _attention(dtype: DType = f32) -> Graph:
    """Scores of queries and keys, heads folded into the batch, and the heads side by side again."""
    b = Builder()
    q, k = (b.input(i, TensorType(dtype, (2, 5, 3, 4)), name) for i, name in enumerate("qk"))
    w = b.input(2, TensorType(dtype, (6, 12)), "w")
    heads = [b.reshape(b.permute(x, (0, 2, 1, 3)), (6, 5, 4)) for x in (q, k)]
    scores = b.contract(heads[0], heads[1], "b l e, b s e -> b l s")
    mixed = b.contract(scores, heads[1], "b l s, b s e -> b l e")
    back = b.reshape(b.permute(b.reshape(mixed, (2, 3, 5, 4)), (0, 2, 1, 3)), (10, 12))
    return Graph((q, k, w), (scores, b.contract(back, w, "m k, o k -> m o")))


def _specs(graph: Graph) -> list[str]:
    return [n.text("spec") for n in graph.nodes if n.op == "contract"]


@pytest.mark.parametrize("dtype", [f32, i64], ids=str)
def test_values_stay(dtype: DType) -> None:
    graph = _attention(dtype)
    split = SplitLabels().run(graph)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-4, 5, n.shape).astype(n.dtype.numpy) for n in graph.inputs]
    expected = evaluate(graph, arrays)
    for got in (evaluate(split, arrays), run(graph, arrays)):
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert [o.type for o in split.outputs] == [o.type for o in graph.outputs]


def test_both_operands_and_the_result_are_split() -> None:
    scores, mixed, last = (parse_spec(text) for text in _specs(SplitLabels().run(_attention())))
    assert scores.out == ("b0", "b1", "l", "s") == (*scores.x_labels[:2], "l", "s")
    assert mixed.out == ("b0", "b1", "l", "e")
    assert last.summed == ("k0", "k1") and last.out == ("m0", "m1", "o")


def test_no_kernel_of_attention_divides_an_index() -> None:
    for group in schedule(_attention(), host_target()).groups:
        for site in build_nest(group).sites:
            assert all(isinstance(symbol, Var) for a in site.accesses for symbol, _ in a.address.terms)


def _kept(change: str) -> Graph:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (2, 3, 4)), "x"), b.input(1, TensorType(f32, (5, 4)), "w")
    operand: Node
    if change == "in order":  # a plain reshape has one stride already
        operand = b.reshape(x, (6, 4))
    elif change == "ones":
        operand = b.reshape(b.permute(b.reshape(x, (6, 1, 4)), (1, 0, 2)), (6, 4))
    else:  # split, not folded
        operand = b.reshape(b.permute(b.reshape(x, (4, 6)), (1, 0)), (6, 4))
    return Graph((x, w), (b.contract(operand, w, "m k, o k -> m o"),))


@pytest.mark.parametrize("change", ["in order", "ones", "same dimensions"])
def test_other_graphs_stay_the_same_object(change: str) -> None:
    graph = _kept(change)
    assert SplitLabels().run(graph) is graph


def test_sliding_labels_stay() -> None:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (4, 3, 2)), "x"), b.input(1, TensorType(f32, (3,)), "w")
    folded = b.reshape(b.permute(x, (2, 1, 0)), (2, 12))
    graph = Graph((x, w), (b.contract(folded, w, "b h+r, r -> b h"),))
    assert SplitLabels().run(graph) is graph


def test_new_labels_are_fresh() -> None:
    b = Builder()
    x, w = b.input(0, TensorType(f32, (2, 3, 4)), "x"), b.input(1, TensorType(f32, (6, 5)), "w")
    folded = b.reshape(b.permute(x, (2, 1, 0)), (4, 6))
    graph = Graph((x, w), (b.contract(folded, w, "k0 k, k k1 -> k0 k1"),))
    (spec,) = map(parse_spec, _specs(SplitLabels().run(graph)))
    assert len(set(spec.labels)) == 4 and spec.out == ("k0", "k1") and spec.summed == ("k2", "k3")
