"""Convolutions with their channels last, and their gradients, by copies: zeros around pictures come from nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.gpu_contraction_tiles import GroupTile, MatrixTile, Tile
from graphc.codegen.kernel_text import print_kernel
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bf16, f16, f32
from tests.codegen.gpu_groups import lowered, prepared, run, small_numbers, whole

HOPPER = cuda_target("sm_90a")
TILES = {
    "one warp": (bf16, MatrixTile(32, 32, 32, 1, 1, 3)),
    "four warps": (f16, MatrixTile(64, 32, 32, 2, 2, 4)),
    "tf32": (f32, MatrixTile(32, 32, 16, 1, 2, 3)),
    "one group": (bf16, GroupTile(64, 64, 64, 1, 1, 3)),
    "two groups": (f16, GroupTile(128, 64, 64, 2, 1, 4)),
    "parts": (bf16, GroupTile(64, 64, 64, 1, 1, 3, splits=3)),
}
# Batch, height, width, channels, results, size of windows, their step, zeros around.
SHAPES = {
    "padded": (2, 6, 7, 16, 24, 3, 1, 1),
    "wide": (1, 9, 8, 32, 16, 3, 1, 1),
    "one place": (2, 8, 8, 64, 64, 1, 1, 0),
    "strided": (2, 9, 11, 16, 40, 3, 2, 1),
    "large windows": (1, 5, 5, 72, 16, 5, 1, 2),
    "deep": (3, 4, 4, 128, 64, 3, 1, 1),
}


def convolution(kind: str, dtype: DType, shape: tuple[int, ...], widened: bool = False) -> Graph:
    """The results, or the gradient of the pictures or of the kernel; factors perhaps converted to f32."""
    n, h, w, c, o, size, step, zeros = shape
    b = Builder()
    edges = (0, zeros, zeros, 0)
    high, wide = ((extent + 2 * zeros - size) // step + 1 for extent in (h, w))
    by = "" if step == 1 else str(step)
    shapes = {"x": (n, h, w, c), "w": (o, size, size, c), "dy": (n, high, wide, o), "all": (n, h, w, o)}
    names = {"results": ("x", "w"), "pictures": ("all", "w"), "kernel": ("dy", "x")}[kind]
    inputs = tuple(b.input(i, TensorType(dtype, shapes[name]), name) for i, name in enumerate(names))
    first, second = (b.cast(x, f32) if widened else x for x in inputs)
    if kind == "results":
        z = b.contract(b.pad(first, edges, edges), second, f"b {by}h+r {by}w+s c, o r s c -> b h w o")
    elif kind == "pictures":
        z = b.contract(b.pad(first, edges, edges), second, "b p+r q+s o, o r s c -> b p q c")
    else:
        z = b.contract(first, b.pad(second, edges, edges), f"b h w o, b {by}h+r {by}w+s c -> o r s c")
    return Graph(inputs, (b.cast(z, dtype) if widened and dtype is not f32 else z,))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["results", "pictures", "kernel"])
def test_convolutions(kind: str, shape: str, tile: str) -> None:
    dtype, chosen = TILES[tile]
    if (kind, shape) == ("pictures", "strided"):
        pytest.skip("zeros between elements are not copied")
    if (kind, shape) in (("pictures", "large windows"), ("kernel", "large windows"), ("kernel", "one place")):
        pytest.skip("panels go along lines that are not copied in whole pieces")
    if (shape, tile) == ("one place", "parts"):
        pytest.skip("one step")
    widened = dtype is not f32 and len(kind + shape + tile) % 2 == 0
    graph = convolution(kind, dtype, SHAPES[shape], widened)
    text = print_kernel(lowered(graph, chosen, HOPPER)[0].kernel)
    assert "copy %left" in text and "copy %right" in text and ("mask" in text) == (SHAPES[shape][-1] > 0)
    arrays = small_numbers(graph, 2)
    np.testing.assert_array_equal(run(graph, arrays, chosen, HOPPER), evaluate(graph, arrays)[0])


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_factors_that_are_converted_are_multiplied_as_they_are(dtype: DType) -> None:
    """By instructions for 16 bits, with sums, and results, of f32."""
    graph = convolution("results", dtype, (32, 16, 16, 64, 64, 3, 1, 1), widened=True)
    tiling = prepared(whole(graph)).schedule.tiling
    assert tiling is not None and isinstance(tiling.tile, MatrixTile) and tiling.problem.dtype is dtype
    text = print_kernel(lowered(graph)[0].kernel)
    assert f"mma {dtype}" in text and f"%p0: {dtype}" in text


def test_mixed_factors_are_those_of_f32() -> None:
    b = Builder()
    x, y = b.input(0, TensorType(bf16, (64, 64))), b.input(1, TensorType(f16, (64, 64)))
    z = b.contract(b.cast(x, f32), b.cast(y, f32), "a k, k c -> a c")
    tiling = prepared(whole(Graph((x, y), (z,)))).schedule.tiling
    assert tiling is not None and isinstance(tiling.tile, Tile) and tiling.problem.dtype is f32
