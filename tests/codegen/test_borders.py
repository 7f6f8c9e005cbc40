"""Loops of contractions leave out the steps that meet nothing but a border of zeros."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.borders import Border
from graphc.codegen.kernel import For, Value, statements
from graphc.codegen.package import Program
from graphc.codegen.target import Target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Ix, Var
from graphc.ir.types import DType, TensorType, f16, f32, f64, i32
from graphc.pipeline import build_program
from tests.codegen.programs import run
from tests.codegen.targets import AVX512, SSE2, runnable

SPEC = "n c h+r w+s, o c r s -> n o h w"


def convolution(
    x: tuple[int, ...],
    w: tuple[int, ...],
    low: tuple[int, int],
    high: tuple[int, int],
    dtype: DType = f32,
    value: float = 0.0,
    spec: str = SPEC,
) -> Graph:
    """A convolution of `x`, padded by `value` at its last two dimensions."""
    b = Builder()
    a, k = b.input(0, TensorType(dtype, x)), b.input(1, TensorType(dtype, w))
    none = (0,) * (len(x) - 2)
    return Graph((a, k), (b.contract(b.pad(a, (*none, *low), (*none, *high), value=value), k, spec),))


def arrays_for(graph: Graph) -> list[np.ndarray]:
    """Small whole numbers: sums are exact in any order."""
    rng = np.random.default_rng(0)
    return [rng.integers(-3, 4, node.shape).astype(node.dtype.numpy) for node in graph.inputs]


def bounded(program: Program) -> list[For]:
    """The loops that begin or end where a value says."""
    loops = [s for k in program.kernels for s in statements(k.body) if isinstance(s, For) and s.phis]
    return [loop for loop in loops if isinstance(loop.lo, Value) and isinstance(loop.hi, Value)]


@pytest.mark.parametrize("dtype", [f32, f64, f16, i32], ids=str)
@pytest.mark.parametrize(
    ("x", "w", "low", "high"),
    [
        ((2, 16, 10, 10), (6, 16, 5, 5), (4, 4), (4, 4)),
        ((3, 5, 7, 9), (4, 5, 3, 3), (1, 1), (1, 1)),
        ((1, 8, 6, 4), (16, 8, 5, 3), (4, 0), (0, 2)),
        ((17, 4, 5, 5), (3, 4, 4, 4), (2, 3), (3, 1)),
        ((1, 3, 1, 1), (32, 3, 7, 7), (6, 6), (6, 6)),
        ((2, 4, 3, 40), (8, 4, 3, 5), (2, 4), (2, 4)),
    ],
)
def test_results_are_those_with_the_zeros(
    x: tuple[int, ...], w: tuple[int, ...], low: tuple[int, int], high: tuple[int, int], dtype: DType
) -> None:
    graph = convolution(x, w, low, high, dtype)
    arrays = arrays_for(graph)
    (got,), (expected,) = run(graph, arrays), evaluate(graph, arrays)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("target", runnable().values(), ids=runnable())
def test_every_target_leaves_out_the_same(target: Target) -> None:
    graph = convolution((20, 16, 10, 10), (6, 16, 5, 5), (4, 4), (4, 4))
    arrays = arrays_for(graph)
    (got,), (expected,) = run(graph, arrays, target), evaluate(graph, arrays)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("target", [AVX512, SSE2], ids=["avx512", "sse2"])
def test_windows_over_a_border_are_left_out(target: Target) -> None:
    graph = convolution((64, 16, 10, 10), (6, 16, 5, 5), (4, 4), (4, 4))
    loops = bounded(build_program(graph, target=target))
    assert {loop.var.name for loop in loops} == {"r1", "r2"}


@pytest.mark.parametrize(
    "graph",
    [
        convolution((64, 16, 10, 10), (6, 16, 5, 5), (4, 4), (4, 4), value=1.0),
        convolution((64, 16, 18, 18), (6, 16, 5, 5), (0, 0), (0, 0)),
        convolution((64, 16, 64, 64), (6, 16, 3, 3), (1, 1), (1, 1), f64),
        convolution((1, 2, 4, 4), (3, 2, 3, 3), (2, 2), (2, 2)),
    ],
    ids=["other values", "no border", "a short border", "few products"],
)
def test_other_loops_are_whole(graph: Graph) -> None:
    assert not bounded(build_program(graph, target=AVX512))


def test_the_sum_over_samples_and_pictures_is_whole() -> None:
    """A border may lie along an axis whose vectors are summed, and sums may be made in parts."""
    spec = "n c h+r w+s, n o h w -> o c r s"
    for samples in (1, 16, 33):
        graph = convolution((samples, 5, 9, 9), (samples, 7, 9, 9), (2, 2), (2, 2), spec=spec)
        arrays = arrays_for(graph)
        (got,), (expected,) = run(graph, arrays), evaluate(graph, arrays)
        np.testing.assert_array_equal(got, expected)


def test_the_share_of_steps_that_is_taken() -> None:
    """Of 5 taps over 10 elements with 4 zeros on each side 50 of 70 meet an element; pairs of places 54 of 70."""
    y, x = Var("y", 13), Var("x", 13 * 16 + 15)
    border = Border(0, 2, 2, 4, 14, 1, 5, Ix.of(y))
    assert border.kept() == 50 / 70
    assert border.kept({y: 2}) == 27 / 35
    assert border.kept({y: 14}) == 1.0
    merged = replace_start(border, Ix.of(x), 16)
    assert merged.kept() == pytest.approx(50 / 70)
    assert merged.kept({x: 32}) == 27 / 35
    assert replace_start(border, Ix.of(Var("far", 10**6)), 1).kept() == 1.0, "too many places to count"


def replace_start(border: Border, start: Ix, each: int) -> Border:
    """The border over another axis, of which `each` places are one of the dimension."""
    return Border(0, 2, 3, border.low * each, border.high * each, each, border.steps, start)
