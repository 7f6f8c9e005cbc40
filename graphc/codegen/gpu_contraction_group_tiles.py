"""Which tile of a matrix product a block computes by products of lines (`gpu_contraction_group.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from graphc.codegen.gpu_contraction_matrix_tiles import FABRIC, OVERHEAD, RESERVED, SHARED_RATE
from graphc.codegen.gpu_contraction_panels import LINE, PIECE, neighbours
from graphc.codegen.gpu_contraction_problem import Flat, Problem
from graphc.codegen.gpu_contraction_steps import cut_sums
from graphc.codegen.gpu_contraction_tiles import GroupTile, Shape, ceil_div, cheapest, total_time
from graphc.codegen.target import GROUP, WIDE, Target

RATE = 2048  # multiply-adds of 16-bit floats that a multiprocessor does in a cycle, twice those of `mma`
REST = 0.1  # of what a step costs is not hidden: less than where warps load what they multiply
ITEMSIZE = 2
GROUPS = ((1, 1), (2, 1), (1, 2))
ROWS, COLUMNS = (64, 128), (64, 128, 192, 256)  # of a group
MOST = 128  # sums of a thread
STAGES = (4, 3)  # the more, the sooner copies begin, where that leaves as many blocks


@lru_cache(maxsize=1024)
def choose_group_tile(shape: Shape, target: Target, turned: tuple[bool, bool]) -> tuple[float, GroupTile] | None:
    """The tile with the least estimated time, and that in cycles; None when none fits. `turned` as from `lines_of`."""
    return cheapest(shape, _tiles(shape, target, turned), lambda tile, most: estimate(shape, tile, target, most))


def estimate(shape: Shape, tile: GroupTile, target: Target, most: int = 0) -> float:
    """Cycles of the product in these tiles; `most` as for `cheapest`."""
    products = tile.rows * tile.columns * tile.depth / RATE
    # Each product of 64 rows reads these and the columns of its group.
    read = tile.across * tile.rows + tile.rows // ROWS[0] * tile.columns
    copied = (tile.rows + tile.columns) * tile.depth * ITEMSIZE
    reads = (read * tile.depth * ITEMSIZE + copied) / SHARED_RATE
    copies = copied / FABRIC
    step = max(products, reads, copies) + REST * (products + reads + copies)
    return total_time(shape, tile, target, step, _resident(tile, target), most)


def registers(tile: GroupTile) -> int:
    """Registers of a thread, about."""
    return tile.rows * tile.columns // tile.threads + OVERHEAD


def lines_of(problem: Problem, splits: int) -> tuple[bool, bool] | None:
    """Whether the steps of an element of either operand lie side by side, when its sum is cut into `splits` parts; None
    where they cannot be copied to lines.
    """
    _, inner = cut_sums(problem, GroupTile(LINE, LINE, LINE, 1, 1, STAGES[0], splits))
    pad = ceil_div(inner.length, LINE) * LINE - inner.length
    turned = []
    for operand, side in ((problem.left, problem.rows), (problem.right, problem.columns)):
        count, is_along_sums = neighbours(operand, Flat(side), inner, LINE, LINE, pad, is_guarded=True)
        if count * ITEMSIZE != WIDE or any(load.leaf.dtype.itemsize != ITEMSIZE for load in operand.guarded or ()):
            return None
        turned.append(is_along_sums)
    return turned[0], turned[1]


def _resident(tile: GroupTile, target: Target) -> int:
    by_registers = target.registers // (registers(tile) * tile.threads)
    return min(by_registers, target.l1_bytes // (shared_bytes(tile) + RESERVED))


def shared_bytes(tile: GroupTile) -> int:
    """Shared memory of a block."""
    return tile.stages * (tile.rows + tile.columns) * tile.depth * ITEMSIZE


def _tiles(shape: Shape, target: Target, turned: tuple[bool, bool]) -> Iterator[GroupTile]:
    """Tiles that are not much larger than the product, whose lines the threads can deal out evenly."""
    for down, across in GROUPS:
        for high in ROWS:
            for wide in COLUMNS:
                rows, columns = down * high, across * wide
                if rows >= 2 * max(shape.rows, ROWS[0] // 2 + 1) or columns >= 2 * max(shape.columns, LINE // 2 + 1):
                    continue
                if not turned[1] and GROUP % (columns // PIECE):
                    continue
                for stages in STAGES:
                    tile = GroupTile(rows, columns, LINE, down, across, stages)
                    fits = shared_bytes(tile) <= target.l1_bytes and high * wide // GROUP <= MOST
                    if fits and tile.depth < 2 * shape.depth:
                        yield tile
