"""Contractions by blocks of threads of a GPU: layouts, tails, computed operands, parts of sums, small matrices."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.cuda.emit import emit_kernel
from graphc.codegen.gpu_contraction_matrix_tiles import choose_matrix_tile
from graphc.codegen.gpu_contraction_problem import find_problem
from graphc.codegen.gpu_contraction_steps import cut_sums
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Shape, Tile, choose_tile, shared_bytes
from graphc.codegen.kernel import For, Kernel, Load, Mma, Op, Stmt, Store
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.sites import build_nest
from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64, i32
from tests.codegen.gpu_groups import H100, contraction, lowered, prepared, run, small_numbers, whole
from tests.codegen.test_panels import SPECS as PANEL_SPECS

SPECS = (*PANEL_SPECS, "b c h+2r w+2s, o c r s -> b o h w", "b g c h+r w+s, g o c r s -> b g o h w")
TILES = {
    "square": Tile(32, 32, 8, 4, 4, 1),
    "flat": Tile(8, 64, 8, 2, 4, 1),
    "high": Tile(64, 8, 16, 8, 1, 1),
    "slices": Tile(16, 16, 16, 4, 4, 4),
    "parts": Tile(16, 16, 8, 2, 2, 1, splits=3),
    "parts and slices": Tile(8, 32, 8, 2, 4, 2, splits=2),
}
MATRIX_TILES = {
    "one warp": MatrixTile(32, 32, 16, 1, 1, 3),
    "four warps": MatrixTile(64, 32, 32, 2, 2, 4),
    "one column of matrices": MatrixTile(64, 8, 32, 1, 1, 3),
    "parts": MatrixTile(32, 32, 32, 1, 2, 3, splits=3),
}


def _check(graph: Graph, tile: Tile | MatrixTile | None) -> None:
    arrays = small_numbers(graph, 1)
    (expected,) = evaluate(graph, arrays)
    np.testing.assert_array_equal(run(graph, arrays, tile), expected, err_msg=str([n.shape for n in graph.inputs]))


@pytest.mark.parametrize(
    "tile", [pytest.param(name, marks=pytest.mark.slow) if i % 2 else name for i, name in enumerate(TILES)]
)
@pytest.mark.parametrize("spec", SPECS)
def test_every_layout_by_every_kind_of_tile(spec: str, tile: str) -> None:
    rng = random.Random(f"{spec} {tile}")
    _check(contraction(rng, spec, f32, rng.random() < 0.5, before=False), TILES[tile])


@pytest.mark.parametrize("dtype", [f64, f16, bf16, i32], ids=str)
@pytest.mark.parametrize("spec", SPECS[:6])
def test_other_dtypes(spec: str, dtype: DType) -> None:
    _check(contraction(random.Random(f"{spec} {dtype}"), spec, dtype, follow=True, before=False), TILES["square"])


@pytest.mark.parametrize("spec", SPECS)
def test_operands_that_are_computed(spec: str) -> None:
    """The zeros past the end of a sum are zeros whatever the operand is computed from."""
    _check(contraction(random.Random(spec), spec, f32, follow=False, before=True), TILES["square"])


@pytest.mark.parametrize("tile", MATRIX_TILES)
@pytest.mark.parametrize("spec", SPECS)
def test_small_matrices(spec: str, tile: str) -> None:
    rng = random.Random(f"{spec} {tile}")
    before = rng.random() < 0.5
    _check(contraction(rng, spec, rng.choice((f16, bf16)), follow=before, before=before), MATRIX_TILES[tile])


@pytest.mark.parametrize("tile", ["four warps", pytest.param("parts", marks=pytest.mark.slow)])
@pytest.mark.parametrize("spec", SPECS)
def test_small_matrices_of_f32(spec: str, tile: str) -> None:
    """What small numbers are rounded to is what they are."""
    before = len(spec) % 2 == 0
    graph = contraction(random.Random(spec), spec, f32, before, before, {"b": 3, "d": 9} if "e" in spec else None)
    assert "mma f32" in print_kernel(lowered(graph, MATRIX_TILES[tile])[0].kernel)
    _check(graph, MATRIX_TILES[tile])


@pytest.mark.parametrize("spec", SPECS[:5])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 64, 256), bf16), ((40, 24, 200), f32), ((40, 24, 200), bf16), ((8, 72, 312), f32)],
    ids=str,
)
def test_matrices_that_are_copied_while_warps_compute(spec: str, shape: tuple[int, int, int], dtype: DType) -> None:
    b = Builder()
    extents = dict(zip("acb", shape, strict=True), n=2)
    dims = [tuple(extents[label] for ((label, _),) in operand) for operand in parse_spec(spec).operands]
    x, y = (b.input(i, TensorType(dtype, d), name) for i, (d, name) in enumerate(zip(dims, "xy", strict=True)))
    graph = Graph((x, y), (b.contract(x, y, spec),))
    for tile in (MATRIX_TILES["one warp"], MATRIX_TILES["four warps"], MATRIX_TILES["parts"]):
        text = print_kernel(lowered(graph, tile)[0].kernel)
        assert "copy %left" in text and "await" in text
        _check(graph, tile)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
def test_a_padded_convolution_reads_the_values_themselves(dtype: DType, padding: int) -> None:
    b = Builder()
    x = b.input(0, TensorType(dtype, (2, 3, 9, 10)), "x")
    w = b.input(1, TensorType(dtype, (5, 3, 3, 3)), "w")
    edges = (0, 0, padding, padding)
    z = b.contract(b.pad(x, edges, edges), w, "b c h+r w+s, o c r s -> b o h w")
    _check(Graph((x, w), (z,)), TILES["square"] if dtype is f32 else MATRIX_TILES["one warp"])


WINDOWS = "b c h+r w+s, o c r s -> b o h w"
LONG = {"b": 2, "c": 32, "h": 6, "w": 7, "o": 20, "r": 3, "s": 3}


def _padded(dtype: DType) -> Graph:
    b = Builder()
    x, w = (b.input(i, TensorType(dtype, s)) for i, s in enumerate(((2, 32, 6, 7), (20, 32, 3, 3))))
    z = b.contract(b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), w, WINDOWS)
    return Graph((x, w), (z,))


def _steps_of(kernel: Kernel) -> list[Stmt]:
    """What is done at each step of the sum."""
    (loop,) = (s for s in kernel.body if isinstance(s, For) and len(s.phis) > 3)
    return list(loop.body)


@pytest.mark.parametrize("tile", ["flat", "three parts", "one warp", "warps in parts"])
@pytest.mark.parametrize("form", ["forward", "padded", "weights"])
def test_steps_go_along_one_loop_without_divisions(form: str, tile: str) -> None:
    """Windows, images and lines are counted from step to step; channels, or the places of a line, are the panel's."""
    tiles: dict[str, Tile | MatrixTile] = {
        "flat": Tile(8, 64, 8, 2, 4, 1),
        "three parts": Tile(16, 16, 8, 2, 2, 1, splits=4 if form == "weights" else 3),
        "one warp": MatrixTile(32, 32, 16, 1, 1, 3),
        "warps in parts": MatrixTile(32, 32, 32, 1, 2, 3, splits=3 if form != "weights" else 2),
    }
    dtype = f32 if isinstance(tiles[tile], Tile) else bf16
    rng = random.Random(form)
    if form == "forward":
        graph = contraction(rng, WINDOWS, dtype, follow=False, before=False, extents=LONG)
    elif form == "padded":
        graph = _padded(dtype)
    else:
        extents = {"b": 2, "c": 5, "h": 4, "w": 32, "o": 6, "r": 3, "s": 3}
        graph = contraction(rng, "b c h w, b o h+r w+s -> o c r s", dtype, follow=False, before=False, extents=extents)
    kernel = lowered(graph, tiles[tile])[0].kernel
    made = [s.name for s in _steps_of(kernel) if isinstance(s, Op)]
    assert not {"floordiv", "mod", "udiv", "urem", "sdiv", "srem"} & {*made}
    _check(graph, tiles[tile])


def test_what_a_step_of_a_convolution_costs() -> None:
    """Of 3 x 3 places, padded: a multiplication of matrices comes with few loads, and with next to nothing else."""
    b = Builder()
    x, w = (b.input(i, TensorType(bf16, s)) for i, s in enumerate(((64, 256, 14, 14), (256, 256, 3, 3))))
    graph = Graph((x, w), (b.contract(b.pad(x, (0, 0, 1, 1), (0, 0, 1, 1)), w, WINDOWS),))
    body = _steps_of(lowered(graph)[0].kernel)
    count = Counter(type(s) for s in body)
    assert count[Load] <= count[Mma] and count[Store] <= count[Mma]
    indices = [s for s in body if isinstance(s, Op) and s.name != "select"]
    assert len(indices) <= 2 * count[Mma]


@pytest.mark.parametrize("tile", [Tile(32, 32, 8, 4, 4, 1), MatrixTile(32, 32, 16, 1, 1, 3)], ids=["threads", "warp"])
def test_what_results_are_computed_with_is_read_as_neighbours(tile: Tile | MatrixTile) -> None:
    """As wide as results are stored."""
    dtype = f32 if isinstance(tile, Tile) else f16
    b = Builder()
    x, w, y = (b.input(i, TensorType(dtype, (64, 64))) for i in range(3))
    z = b.select(b.apply("gt", (y, b.zeros_like(y))), b.add(b.contract(x, w, "i k, k j -> i j"), y), y)
    kernel = lowered(Graph((x, w, y), (z,)), tile)[0].kernel
    assert [p.mode for p in kernel.params] == ["in", "in", "in", "out"]
    text = emit_kernel(replace(kernel, aligned=True), H100)
    stores = re.findall(r"\*\(gc_vector<[\w ]+, (\d)>\*\)&p3\[", text)
    assert stores and set(stores) == {"4" if dtype is f32 else "2"}
    assert re.findall(r"\*\(const gc_vector<[\w ]+, (\d)>\*\)&p0\[", text) == stores
    assert "= p0[" not in text
    _check(Graph((x, w, y), (z,)), tile)


def test_parts_of_a_sum_have_as_many_steps() -> None:
    """Else the loops of the sum would be one, whose indices are divided at each step."""
    graph = contraction(
        random.Random(1),
        "b c h w, b o h+r w+s -> o c r s",
        bf16,
        follow=False,
        before=False,
        extents={"b": 64, "c": 64, "h": 56, "w": 56, "o": 64, "r": 3, "s": 3},
    )
    tiling = prepared(whole(graph)).schedule.tiling
    assert tiling is not None and isinstance(tiling.tile, MatrixTile) and tiling.tile.splits > 1
    outer, inner = cut_sums(tiling.problem, tiling.tile)
    assert len(inner.variables) == 1
    assert outer.length * -(-inner.length // tiling.tile.depth) % tiling.tile.splits == 0


def test_several_places_of_a_window_are_computed_by_one_thread() -> None:
    """A maximum over windows of a convolution's results takes them where they are made."""
    b = Builder()
    x = b.input(0, TensorType(f32, (3, 2, 12, 12)), "x")
    w = b.input(1, TensorType(f32, (6, 2, 5, 5)), "w")
    z = b.contract(x, w, "b c h+r w+s, o c r s -> b o h w")
    windows = b.reshape(z, (3, 6, 4, 2, 4, 2))
    pooled = b.reduce_max(windows, (3, 5))
    graph = Graph((x, w), (pooled,))
    for tile in (Tile(8, 16, 8, 1, 1, 1), Tile(8, 32, 16, 2, 2, 2, splits=2)):
        _check(graph, tile)


@pytest.mark.parametrize("splits", [20, 40, 600])
def test_several_threads_add_the_parts_of_a_sum(splits: int) -> None:
    graph = contraction(
        random.Random(splits), "a b, c b -> a c", f32, follow=True, before=False, extents={"a": 3, "b": 5000, "c": 7}
    )
    _check(graph, Tile(8, 8, 8, 1, 1, 1, splits=splits))


def _shape(batch: int, rows: int, columns: int, depth: int, points: int = 1) -> Shape:
    return Shape(batch, rows, columns, depth, points, 4)


@pytest.mark.parametrize(
    "shape",
    [
        _shape(1, 4096, 4096, 4096),
        _shape(1, 6, 64 * 28 * 28, 25),
        _shape(1, 16, 64 * 10 * 10, 150),
        _shape(1, 6, 25, 64 * 28 * 28),
        _shape(1, 120, 64, 400),
        _shape(12, 128, 128, 64),
        _shape(1, 1, 1000, 512),
        _shape(1, 6, 64 * 196, 25, 4),
    ],
)
def test_tiles_fit_the_device(shape: Shape) -> None:
    found = choose_tile(shape, H100)
    assert found is not None
    tile = found[1]
    assert tile.threads in (64, 128, 256) and shared_bytes(shape, tile) <= 48 << 10
    assert tile.high * tile.wide * shape.points <= 64
    assert 1 <= tile.splits <= -(-shape.depth // tile.depth)


def test_what_the_model_chooses() -> None:
    large = choose_tile(_shape(1, 4096, 4096, 4096), H100)
    assert large is not None and large[1].high * large[1].wide == 64 and large[1].splits == 1
    long = choose_tile(_shape(1, 6, 25, 64 * 28 * 28), H100)
    assert long is not None and long[1].splits > 8, "one block would add for too long"
    matrices = choose_matrix_tile(replace(_shape(1, 4096, 4096, 4096), itemsize=4), H100)
    assert matrices is not None and large[0] > 2 * matrices[0]
    rounded = choose_matrix_tile(_shape(1, 4096, 4096, 4096), H100, 4)
    assert rounded is not None and matrices[0] < 0.6 * rounded[0] < 0.36 * large[0]
    row, rounded = _shape(1, 1, 4096, 4096), choose_matrix_tile(_shape(1, 1, 4096, 4096), H100, 4)
    by_threads = choose_tile(row, H100)
    assert by_threads is not None and rounded is not None and by_threads[0] < rounded[0], "a vector stays f32"
    assert choose_tile(_shape(1, 1, 1, 100), H100) is None, "a row reduction"


@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
def test_heads_that_are_parts_of_rows_are_plain_operands(dtype: DType) -> None:
    """Their place in memory is no sum of the batch's parts, but one for a whole block."""
    b = Builder()
    rows, heads, size = 32, 3, 48
    x = b.input(0, TensorType(dtype, (2, rows, 2 * heads * size)), "x")
    parts = b.permute(b.reshape(x, (2, rows, 2, heads, size)), (2, 0, 3, 1, 4))
    q, k = (
        b.reshape(b.slice(parts, (i, 0, 0, 0, 0), (1, 2, heads, rows, size), (1,) * 5), (2 * heads, rows, size))
        for i in (0, 1)
    )
    graph = Graph((x,), (b.contract(q, k, "b l e, b s e -> b l s"),))
    tile = Tile(32, 32, 8, 4, 4, 1) if dtype is f32 else MatrixTile(32, 32, 32, 1, 1, 3)
    problem = find_problem(build_nest(whole(graph)))
    assert problem is not None and problem.left.plain is not None and problem.right.plain is not None
    text = print_kernel(lowered(graph, tile)[0].kernel)
    assert ("copy %left" in text) == (dtype is bf16)
    _check(graph, tile)
