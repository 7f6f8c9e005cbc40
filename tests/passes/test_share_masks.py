"""Masks of ReLU: read from results that are stored anyway, unless the operand is stored too."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import TensorType, f32
from graphc.ir.verify import verify
from graphc.passes.share_masks import ShareMasks
from graphc.pipeline import schedule
from tests.codegen.targets import AVX512


def _layer(also: str = "") -> Graph:
    """relu of a product, a second product of that, and the gradient by the first one's result."""
    b = Builder()
    x, w, v, g = (b.input(k, TensorType(f32, shape)) for k, shape in enumerate([(32, 20), (24, 20), (8, 24), (32, 8)]))
    h = b.contract(x, w, "m k, o k -> m o")
    mask = b.elementwise("le", h, 0)
    relu = b.select(mask, 0, h)
    outputs: list[Node] = [b.contract(relu, v, "m k, o k -> m o") if also != "alone" else b.mul(relu, 2.0)]
    outputs.append(b.select(mask, 0, b.contract(g, v, "m o, o k -> m k")))
    if also == "wanted":
        outputs.append(b.mul(h, h))
    return Graph((x, w, v, g), tuple(outputs))


@pytest.mark.parametrize("turned", [False, True])
def test_the_operand_is_not_stored(turned: bool) -> None:
    graph = _layer()
    if turned:  # what reads the mask comes before the result
        graph = Graph(graph.inputs, graph.outputs[::-1])
    changed = ShareMasks().run(graph)
    verify(changed)
    assert ShareMasks().run(changed) is changed
    (before, after) = (sum(len(g.targets) for g in schedule(g, AVX512).groups) for g in (_without(graph), graph))
    assert after == before - 1
    arrays = [np.random.default_rng(k).standard_normal(n.shape).astype(np.float32) for k, n in enumerate(graph.inputs)]
    arrays[0][3] = np.nan
    arrays[0][5] = 0.0
    arrays[0][6] = np.inf
    for a, c in zip(evaluate(changed, arrays), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(a, c)


def _without(graph: Graph) -> Graph:
    """The same graph with its operand of relu as a result too, which keeps it in memory."""
    h = next(n for n in graph.nodes if n.op == "contract")
    return Graph(graph.inputs, (*graph.outputs, h))


@pytest.mark.parametrize("also", ["alone", "wanted"])
def test_masks_of_what_is_stored_or_not_multiplied_stay(also: str) -> None:
    graph = _layer(also)
    assert ShareMasks().run(graph) is graph
