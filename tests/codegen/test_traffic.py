"""The traffic model, and the loop orders that it leads to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from graphc.codegen.prepare import prepare
from graphc.codegen.schedule import Schedule
from graphc.codegen.target import LINE, PAGE, Target
from graphc.codegen.traffic import footprint
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.index import Ix, Var
from graphc.ir.types import TensorType, f32
from graphc.options import scope
from graphc.pipeline import schedule
from tests.codegen.targets import AVX2, AVX512

TARGET = replace(AVX2, l2_bytes=512 << 10, cores=2)


def test_footprints() -> None:
    i, j = Var("i", 99), Var("j", 9)
    rows = Ix.of(i, 1000) + Ix.of(j)
    assert footprint(rows, {i: 1, j: 10}, 4) == LINE
    assert footprint(rows, {i: 100, j: 10}, 4) == 100 * LINE
    assert footprint(Ix.of(i) + Ix.of(j), {i: 100, j: 10}, 4) == 7 * LINE  # a sliding window: 109 elements
    assert footprint(Ix.of(i, 10) + Ix.of(j), {i: 100, j: 10}, 4) == 63 * LINE  # whole rows: 1000 elements
    assert footprint(Ix(5), {i: 100}, 4) == LINE


def _contraction(spec: str, x: tuple[int, ...], y: tuple[int, ...], target: Target = TARGET) -> Schedule:
    b = Builder()
    inputs = b.input(0, TensorType(f32, x)), b.input(1, TensorType(f32, y))
    graph = Graph(inputs, (b.contract(*inputs, spec),))
    (group,) = (g for g in schedule(graph, target).groups if any(n.op == "contract" for n in g.inside))
    return prepare(group, target).schedule


def test_a_picture_is_read_once_for_all_output_channels() -> None:
    """The rows of a large picture stay in the cache while all channels are computed from them."""
    with scope(minimal_filtering=False):
        choice = _contraction("b c h+r w+s, o c r s -> b o h w", (8, 64, 58, 58), (64, 64, 3, 3))
    assert [v.hi + 1 for v in choice.order].index(64) > [v.hi + 1 for v in choice.order].index(56)


def test_few_rows_walk_down_all_of_them_for_each_block_of_columns() -> None:
    choice = _contraction("a b, b c -> a c", (64, 256), (256, 3136))
    var, size = choice.block
    assert var is not None and size * choice.tile[var] >= 64
    assert 0 < choice.lane_block < 3136  # the columns give the pieces for several cores


@pytest.mark.parametrize(
    ("columns", "cores"), [(1568, 2), (2205, 2), (3136, 2), (5000, 2), (3136, 3), (5000, 3), (3136, 4), (5000, 4)]
)
def test_cores_end_together_when_columns_are_their_pieces(columns: int, cores: int) -> None:
    choice = _contraction("a b, b c -> a c", (64, 256), (256, columns), replace(TARGET, cores=cores))
    whole, left = divmod(columns, choice.lane_block)
    longest = max(-(-whole // cores) * choice.lane_block, whole // cores * choice.lane_block + left)
    assert longest <= 1.03 * columns / cores


@pytest.mark.parametrize("n", [1024, 2048])
def test_the_block_of_a_square_product_fits_the_second_level_cache(n: int) -> None:
    choice = _contraction("a b, b c -> a c", (n, n), (n, n))
    var, size = choice.block
    steps = choice.chunk.size if choice.chunk is not None else n
    assert var is not None and size > 1
    assert size * choice.tile[var] * steps * 4 < TARGET.l2_bytes


def test_small_contractions_keep_their_order() -> None:
    choice = _contraction("a b, b c -> a c", (24, 24), (24, 24))
    assert choice.block == (None, 1) and choice.lane_block == 0


@pytest.mark.parametrize(
    ("n", "k", "m", "tile"),
    [
        (256, 512, 2048, {256: 6, 2048: 2}),  # vectors come from the second-level cache: few of them, for many rows
        (512, 512, 512, {512: 6}),
        (5000, 64, 48, {5000: 2, 48: 6}),  # the nearest cache holds them all: nothing is computed twice
    ],
)
def test_tiles_take_few_vectors_where_the_nearest_cache_does_not_hold_them(
    n: int, k: int, m: int, tile: dict[int, int]
) -> None:
    choice = _contraction("a b, b c -> a c", (n, k), (k, m))
    rows, columns = (v for v in choice.tile)
    assert choice.lane is columns
    assert {v.hi + 1: choice.tile[v] for v in (columns, rows)} == tile


def _stretched(lanes: int) -> Schedule:
    """Sums of neighbours of a picture that is read at twice its size, with its channels before rows and columns."""
    b = Builder()
    x, y = (b.input(i, TensorType(f32, (8, 6, n, n, lanes))) for i, n in enumerate((14, 28)))
    wide = b.broadcast(b.reshape(x, (8, 6, 14, 1, 14, 1, lanes)), (8, 6, 14, 2, 14, 2, lanes))
    graph = Graph((x, y), (b.mul(b.reshape(wide, y.shape), y),))
    (group,) = schedule(graph, TARGET).groups
    return prepare(group, TARGET).schedule


def test_computed_indices_are_used_for_all_channels_where_the_lane_loop_is_short() -> None:
    assert [v.hi + 1 for v in _stretched(8).order] == [8, 28, 28, 6, 8]
    assert [v.hi + 1 for v in _stretched(512).order] == [8, 6, 28, 28, 512]


@pytest.mark.parametrize("steps", [1000, 1024, 2048])
def test_rows_of_a_tile_have_places_in_the_nearest_cache(steps: int) -> None:
    """Rows a page apart begin at one place of each way of a cache: more of them than ways are read from afar."""
    choice = _contraction("a k, c k -> a c", (1000, steps), (256, steps), AVX512)
    rows = next(n for v, n in choice.tile.items() if v is not choice.lane)
    ways = AVX512.l1_bytes // PAGE
    assert rows <= ways * 5 // 4 if steps * 4 % PAGE == 0 else rows > ways * 5 // 4


def test_rows_of_both_operands_count_where_the_sum_runs_across_the_lanes() -> None:
    choice = _contraction("a k, c k -> a c", (12, 4096), (12, 4096), AVX512)
    assert choice.lane is None
    assert sum(choice.tile.values()) <= AVX512.l1_bytes // PAGE * 5 // 4
