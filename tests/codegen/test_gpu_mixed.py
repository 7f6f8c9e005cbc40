"""Products of f32 and 16-bit floats by instructions for 16 bits: f32 is cut into pieces that add up to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.gpu_contraction_problem import find_problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile
from graphc.codegen.kernel_text import print_kernel
from graphc.codegen.sites import build_nest
from graphc.ir.builder import Builder
from graphc.ir.evaluate import evaluate
from graphc.ir.graph import Graph
from graphc.ir.types import DType, TensorType, bf16, f16, f32, f64
from tests.codegen.gpu_groups import lowered, prepared, run, whole

SPECS = ("a b, b c -> a c", "a b, c b -> a c", "b a, b c -> a c", "b a, c b -> a c", "n a b, n b c -> n a c")
TILES = {
    "one warp": MatrixTile(32, 32, 32, 1, 1, 2),
    "four warps": MatrixTile(64, 32, 32, 2, 2, 2),
    "parts": MatrixTile(32, 32, 32, 1, 2, 2, splits=2),
    "one column": MatrixTile(64, 8, 32, 1, 1, 2),
}
KINDS = {"f32 bf16": (f32, bf16), "bf16 f32": (bf16, f32), "f32 f16": (f32, f16), "f16 f32": (f16, f32)}


def product(spec: str, kinds: tuple[DType, DType], depth: int, rows: int = 40, columns: int = 24) -> Graph:
    b = Builder()
    extents = {"a": rows, "b": depth, "c": columns, "n": 2}
    operands = spec.partition(" ->")[0].split(", ")
    inputs = tuple(
        b.input(i, TensorType(dtype, tuple(extents[label] for label in labels.split())))
        for i, (labels, dtype) in enumerate(zip(operands, kinds, strict=True))
    )
    x, y = (v if v.dtype is f32 else b.cast(v, f32) for v in inputs)
    return Graph(inputs, (b.contract(x, y, spec),))


def cut(graph: Graph, tile: MatrixTile) -> MatrixTile:
    """`tile` with the pieces that the operands of `graph` take."""
    problem = find_problem(build_nest(whole(graph)))
    assert problem is not None and problem.pieces is not None
    return replace(tile, pieces=problem.pieces)


CASES = [(spec, tile, kind) for spec in SPECS for tile in TILES for kind in KINDS]


# Every third case each time; `make fuzz` has the rest.
@pytest.mark.parametrize(
    ("spec", "tile", "kind"),
    [pytest.param(*case, marks=[pytest.mark.slow] if i % 3 else []) for i, case in enumerate(CASES)],
)
def test_sums_are_as_good_as_those_of_f32(spec: str, tile: str, kind: str) -> None:
    """Three pieces of eight bits are all 24; f16 has eleven."""
    number = len(spec) + len(tile) + list(KINDS).index(kind)
    depth = (64, 72, 100)[number % 3]  # whole steps, a part of one, rows that begin anywhere
    graph = product(spec, KINDS[kind], depth)
    pieces = cut(graph, TILES[tile])
    assert sorted(pieces.pieces) == ([1, 3] if bf16 in KINDS[kind] else [2, 3])
    assert "mma bf16" in print_kernel(lowered(graph, pieces)[0].kernel)
    rng = np.random.default_rng(number)
    arrays = [rng.standard_normal(i.shape).astype(i.dtype.numpy) for i in graph.inputs]
    (exact,) = evaluate(graph, arrays, floats=f64)
    assert np.abs(run(graph, arrays, pieces) - exact).max() < 3e-7 * np.abs(exact).max()


def test_numbers_that_are_not_finite_or_nearly_not() -> None:
    graph = product(SPECS[0], (f32, bf16), 64, 32, 32)
    x, y = (np.ones(i.shape, i.dtype.numpy) for i in graph.inputs)
    for row, value in enumerate((np.inf, -np.inf, np.nan, 3.4e38, 1e-30, -0.0)):
        x[row] = 0
        x[row, 5] = value
    x.view(np.uint32)[6, 7] = 0x7F800001  # a NaN whose highest bits are those of an infinity
    with np.errstate(all="ignore"):
        found = run(graph, [x, y], cut(graph, TILES["one warp"]))
    assert (found[0] == np.inf).all() and (found[1] == -np.inf).all() and np.isnan(found[[2, 6]]).all()
    np.testing.assert_array_equal(found[3:6, 0], np.array([3.4e38, 1e-30, 0], np.float32))
    assert (found[7:] == 64).all()


def test_where_pieces_are_worth_it() -> None:
    """Three instructions for a product of f32 and bf16 are; six for one of f32 and f16 take as long as f32 does."""

    def tile_of(kinds: tuple[DType, DType], arch: str, tf32: bool = False) -> Tile | MatrixTile:
        target = replace(cuda_target(arch), tf32=tf32)
        tiling = prepared(whole(product(SPECS[4], kinds, 512, 2048, 512)), None, target).schedule.tiling
        assert tiling is not None
        return tiling.tile

    chosen = tile_of((f32, bf16), "sm_90")
    assert isinstance(chosen, MatrixTile) and chosen.pieces == (3, 1)
    assert isinstance(tile_of((f32, f16), "sm_90"), Tile) and isinstance(tile_of((f32, bf16), "sm_75"), Tile)
    loose = tile_of((f32, bf16), "sm_90", tf32=True)
    assert isinstance(loose, MatrixTile) and loose.pieces == (1, 1), "f32 may be rounded"
    assert isinstance(tile_of((f32, f32), "sm_90"), Tile)
