"""Padding that contractions compute as they read: where it is not stored, and that results stay what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.llvm.host import host_target
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import TensorType, f32
from graphc.pipeline import build_program, schedule
from tests.codegen.programs import run
from tests.codegen.targets import AVX2, SSE2, runnable

WINDOW = "b g h+r w+s, g r s -> b g h w"
STRIDED = "b g 2h+r 2w+s, g r s -> b g h w"


def depthwise(
    spec: str = WINDOW,
    x: tuple[int, ...] = (2, 3, 21, 24),
    w: tuple[int, ...] = (3, 3, 3),
    around: int = 1,
    value: float = 0.0,
    also: str = "",
) -> Graph:
    """A contraction of padded pictures with windows; `also` changes what else there is."""
    b = Builder()
    picture, weights = b.input(0, TensorType(f32, x), "x"), b.input(1, TensorType(f32, w), "w")
    source = b.mul(picture, picture) if "computed" in also else picture
    sides = (0, 0, around, around)
    padded = b.pad(source, sides, sides, (0,) * 4, value)
    result = b.contract(padded, weights, spec)
    outputs = [result]
    if "output" in also:
        outputs.append(padded)
    if "gradient" in also:
        cotangent = b.input(2, TensorType(f32, result.shape), "g")
        outputs.append(b.contract(padded, cotangent, "b g h+r w+s, b g h w -> g r s"))
        return Graph((picture, weights, cotangent), tuple(outputs))
    return Graph((picture, weights), tuple(outputs))


def _kernels(graph: Graph) -> int:
    return len(schedule(graph, AVX2).groups)


def test_what_windows_over_single_channels_read_is_not_stored_padded() -> None:
    assert _kernels(depthwise()) == 1
    assert _kernels(depthwise(also="gradient")) == 2
    assert _kernels(depthwise(around=2, w=(3, 5, 5))) == 1
    assert _kernels(depthwise(STRIDED, x=(2, 3, 21, 23))) == 1


@pytest.mark.parametrize(
    "graph",
    [
        depthwise(value=1.0),
        depthwise(value=-0.0),
        depthwise(also="output"),
        depthwise(also="computed"),  # it is stored between zeros at once
        depthwise("b g 3h+r 3w+s, g r s -> b g h w", x=(2, 3, 19, 22)),  # vectors of elements that lie further apart
        depthwise("b c h+r w+s, o c r s -> b o h w", w=(16, 3, 3, 3)),  # each element is used often
    ],
    ids=["ones", "negative zeros", "output", "computed", "strided", "channels"],
)
def test_all_other_padding_is_stored(graph: Graph) -> None:
    assert any(target.op == "pad" for group in schedule(graph, AVX2).groups for target in group.targets)


def test_without_masks_padding_is_stored() -> None:
    assert AVX2.masks and not SSE2.masks
    assert len(schedule(depthwise(), SSE2).groups) == 2


def test_only_what_reaches_over_the_border_is_masked() -> None:
    """Of the rows of a tile the first and the last one; of the columns those on both sides."""
    (kernel,) = build_program(depthwise(x=(2, 3, 56, 56)), target=replace(AVX2, cores=1)).kernels
    loads = [line for line in print_kernel(kernel).splitlines() if "load %p0" in line]
    masked = [line for line in loads if " mask " in line]
    rows = len(loads) // 3 - 2
    assert rows >= 4
    assert len(masked) == 2 * (rows + 2) + 2
    assert "select" not in print_kernel(kernel).split("for ")[-1]  # a masked load gives the zeros itself


TARGETS = {"host": host_target(), **runnable(), "few registers": replace(host_target(), registers=12)}


@pytest.mark.share(3)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "graph",
    [
        depthwise(),
        depthwise(x=(1, 5, 9, 7), w=(5, 3, 3)),
        depthwise(x=(1, 2, 3, 3), w=(2, 3, 3)),
        depthwise(x=(2, 3, 8, 13), w=(3, 5, 5), around=2, also="gradient"),
        depthwise(x=(2, 4, 16, 16), w=(4, 3, 3), also="gradient"),
        depthwise(x=(8, 2, 7, 7), w=(2, 3, 3), also="gradient"),
        depthwise(x=(3, 2, 20, 37), w=(2, 2, 5), around=3),
        depthwise("b g h+r w+s, g o r s -> b g o h w", x=(2, 3, 12, 18), w=(3, 2, 3, 3)),
        depthwise(STRIDED, x=(2, 3, 21, 23)),
        depthwise(STRIDED, x=(1, 4, 57, 113), w=(4, 3, 3)),
        depthwise(STRIDED, x=(5, 2, 15, 34), w=(2, 5, 4), around=2),
        depthwise(STRIDED, x=(2, 2, 37, 69), w=(2, 5, 5), around=4),
    ],
    ids=[
        *("rows", "odd", "tiny", "five", "whole", "samples", "wide border", "two results"),
        *("strided", "strided rows", "strided five", "strided wide border"),
    ],
)
def test_results(graph: Graph, target: str) -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.integers(-3, 4, n.shape).astype(np.float32) for n in graph.inputs]
    for got, wanted in zip(run(graph, arrays, TARGETS[target]), evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(got, wanted)
