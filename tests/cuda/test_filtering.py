"""Convolutions by minimal filtering on CUDA devices: transforms, products and what follows them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.compiled import target_of
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32, f64
from graphc.pipeline import optimize
from tests.cuda.machine import Machine
from tests.passes.test_minimal_filtering import arrays, convolution, products, tile_always

SHIM_VARIANT = "checked"
SHAPES = {  # batch, channels, outs, size, kernel, padding, stride
    "usual": (2, 8, 12, (8, 8), (3, 3), 1, 1),
    "tiles over the end": (3, 5, 9, (11, 7), (3, 3), 1, 1),
    "five taps": (2, 4, 6, (6, 10), (5, 2), 2, 1),
    "phases": (2, 3, 8, (13, 9), (7, 7), 3, 2),
}


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    tile_always(monkeypatch)


def check(cuda: Machine, graph: Graph) -> None:
    """Fewer products, and results as close as rounding errors of the largest sums."""
    assert products(optimize(graph, target_of("cuda:0"))) < products(optimize(graph))
    given = arrays(graph)
    exact = evaluate(graph, given, floats=f64)
    for found, expected in zip(cuda.run(graph, given), exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("shape", SHAPES)
def test_convolutions_and_gradients(cuda: Machine, shape: str) -> None:
    batch, channels, outs, size, kernel, padding, stride = SHAPES[shape]
    check(cuda, convolution(batch, channels, outs, size, kernel, padding, stride, gradients=True))


@pytest.mark.parametrize("rows", [8, 10])
def test_what_follows_is_computed_of_each_row_of_a_tile(cuda: Machine, rows: int) -> None:
    """A bias, a sum with a residual, and a ReLU; with ten rows the last tile is cut."""
    b = Builder()
    x = b.input(0, TensorType(f32, (2, 8, rows, 8)), "x")
    w, bias = b.input(1, TensorType(f32, (8, 8, 3, 3)), "w"), b.input(2, TensorType(f32, (8, 1, 1)), "bias")
    edges = (0, 0, 1, 1)
    y = b.contract(b.pad(x, edges, edges), w, "b c h+r w+s, o c r s -> b o h w")
    total = b.add(b.add(y, b.broadcast(bias, x.shape)), x)
    check(cuda, Graph((x, w, bias), (b.apply("maximum", (total, b.constant(0.0, x.type))),)))
