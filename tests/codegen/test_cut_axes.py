"""Axes cut where indices begin anew, as those of a reshaped permutation do."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.index import Derived, Ix, Var, linear
from graphc.ir.types import TensorType, bf16, f32
from graphc.pipeline import build_program
from tests.codegen.programs import run, same_bits
from tests.codegen.targets import AVX512, runnable

TARGETS = runnable()


def _reshaped(shape: tuple[int, ...], perm: tuple[int, ...], result: tuple[int, ...]) -> Graph:
    """A permuted value in another shape, and something added."""
    b = Builder()
    x, y = b.input(0, TensorType(f32, shape)), b.input(1, TensorType(f32, result))
    return Graph((x, y), (b.add(b.reshape(b.permute(x, perm), result), y),))


@pytest.mark.parametrize(
    ("shape", "perm", "result"),
    [
        ((2048, 1024), (1, 0), (1 << 21,)),
        ((64, 32, 48), (2, 1, 0), (64 * 32 * 48,)),
        ((64, 32, 48), (2, 1, 0), (3, 16, 32 * 64)),
        ((8, 33, 40), (0, 2, 1), (8, 33 * 40)),
    ],
)
def test_indices_are_not_computed_lane_by_lane(
    shape: tuple[int, ...], perm: tuple[int, ...], result: tuple[int, ...]
) -> None:
    (kernel,) = build_program(_reshaped(shape, perm, result), target=AVX512).kernels
    text = print_kernel(kernel)
    assert "offsets" not in text
    assert "urem" not in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("shape", "perm", "result"),
    [
        ((70, 33), (1, 0), (2310,)),
        ((4, 9, 20), (2, 1, 0), (720,)),
        ((4, 9, 20), (1, 0, 2), (18, 40)),
        ((6, 10, 3), (1, 2, 0), (30, 6)),
        ((5, 7, 8), (2, 0, 1), (4, 70)),
        ((12, 16), (1, 0), (24, 8)),
    ],
)
def test_results(shape: tuple[int, ...], perm: tuple[int, ...], result: tuple[int, ...], target: str) -> None:
    graph = _reshaped(shape, perm, result)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(x.shape).astype(np.float32) for x in graph.inputs]
    (got,) = run(graph, arrays, TARGETS[target])
    assert same_bits(got, evaluate(graph, arrays)[0])


def test_a_quotient_and_its_remainder_are_the_index_again() -> None:
    i, k = Var("i", 5), Var("k", 99)
    place = Ix.of(k) + 3
    parts = Ix.of(Derived("floordiv", place, 20)), Ix.of(Derived("mod", place, 20))
    assert linear((Ix.of(i), *parts), (6, 6, 20)) == Ix.of(i, 120) + place
    assert linear((parts[0], Ix.of(i), parts[1]), (6, 6, 20)).symbols().keys() > {i, k}


def test_a_flattened_value_is_reduced_in_order() -> None:
    """Also where it is computed in line: rows of it are not gone through one element at a time."""
    b = Builder()
    x = b.input(0, TensorType(f32, (64, 1000)))
    halves = b.cast(b.cast(x, bf16), f32)
    graph = Graph((x,), (b.reduce_max(b.reshape(halves, (prod(x.shape),)), (0,)),))
    text = "\n".join(print_kernel(kernel) for kernel in build_program(graph, target=AVX512).kernels)
    assert "floordiv" not in text[text.index("carry") :]
    assert "f32x16" in text
