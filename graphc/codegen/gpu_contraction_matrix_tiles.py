"""Which tile of a matrix product a block computes by the instructions for small matrices. `itemsize` is what an element
of the operands takes: 2 bytes for those of 16 bits, 4 for f32, which is rounded to tf32. `pieces` as of `MatrixTile`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from graphc.codegen.gpu_contraction_tiles import MatrixTile, Shape, cheapest, total_time
from graphc.codegen.target import WARP, Target

RATE = 2048  # bytes of operands' elements that a multiprocessor multiplies and adds in a cycle
ISSUED = 4  # instructions of warps in a cycle
SHARED_RATE = 128  # bytes that it reads of shared memory
FABRIC = 22  # bytes that reach it from the second level of cache, by copies
RESERVED = 1 << 10  # bytes of shared memory that a block takes besides
REST = 0.2  # of what a step costs is not hidden
OVERHEAD = 40  # registers of a thread besides its sums and the matrices that it multiplies
WARP_TILES = ((64, 64), (64, 32), (32, 64), (32, 32), (16, 64), (64, 16), (16, 32), (32, 16), (16, 16))
MOST_COMPUTED = 2048  # elements of a warp's tile where registers are wanted for indices too
WARPS = ((1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (2, 4), (4, 2))
DEPTHS = (64, 128)  # bytes of an operand along a step of the sum
STAGES = (3, 4)
CUT = 12  # instructions with which a thread cuts an element into pieces and stores them
WHOLE = (1, 1)


@lru_cache(maxsize=1024)
def choose_matrix_tile(
    shape: Shape, target: Target, itemsize: int = 2, pieces: tuple[int, int] = WHOLE
) -> tuple[float, MatrixTile] | None:
    """The tile with the least estimated time, and that in cycles; None when none fits."""
    tiles = _tiles(shape, target, itemsize, pieces)
    return cheapest(shape, tiles, lambda tile, most: estimate(shape, tile, target, most, itemsize))


def estimate(shape: Shape, tile: MatrixTile, target: Target, most: int = 0, itemsize: int = 2) -> float:
    """Cycles of the product in these tiles; `most` as for `cheapest`."""
    high, wide = tile.rows // tile.down, tile.columns // tile.across
    left, right = tile.pieces
    products = tile.rows * tile.columns * tile.depth * itemsize * left * right / RATE
    fragments = tile.down * tile.across * (high * left + wide * right) * tile.depth  # elements that the warps read
    reads = fragments * itemsize / SHARED_RATE
    copies = (tile.rows * min(left, 2) + tile.columns * min(right, 2)) * tile.depth * itemsize / FABRIC
    step = max(products, reads, copies) + REST * (products + reads + copies)
    if tile.pieces != WHOLE:
        cut = tile.rows * (left > 1) + tile.columns * (right > 1)
        step += cut * tile.depth * CUT / WARP / ISSUED
    if itemsize == 4:  # each element read by itself, and rounded by two instructions
        step = max(step, (3 * fragments / WARP + tile.rows * tile.columns * tile.depth / 1024) / ISSUED)
    return total_time(shape, tile, target, step, _resident(tile, target, itemsize), most)


def registers(tile: MatrixTile) -> int:
    """Registers of a thread, about: sums, the matrices that it multiplies, and all else."""
    high, wide = tile.rows // tile.down, tile.columns // tile.across
    return high * wide // 32 + (high + wide) // 4 + OVERHEAD


def _resident(tile: MatrixTile, target: Target, itemsize: int) -> int:
    by_registers = target.registers // (registers(tile) * tile.threads)
    return min(by_registers, target.l1_bytes // (shared_bytes(tile, itemsize) + RESERVED))


def shared_bytes(tile: MatrixTile, itemsize: int) -> int:
    """Shared memory of a block, whichever way the panels lie in it."""
    rows, columns = tile.rows * tile.pieces[0], tile.columns * tile.pieces[1]
    straight = tile.depth * (rows + 8), tile.depth * (columns + 8)
    turned = (tile.depth + 8) * rows, (tile.depth + 8) * columns
    return tile.stages * itemsize * sum(map(max, straight, turned))


def _tiles(shape: Shape, target: Target, itemsize: int, pieces: tuple[int, int]) -> Iterator[MatrixTile]:
    """Tiles that are not much larger than the product, whose panels have at least one copy for each thread. What is cut
    into pieces goes through registers, to one of two panels.
    """
    for down, across in WARPS:
        for high, wide in WARP_TILES:
            if shape.indices > 1 and high * wide > MOST_COMPUTED:
                continue
            rows, columns = down * high, across * wide
            if (rows > 16 and rows >= 2 * shape.rows) or (columns > 16 and columns >= 2 * shape.columns):
                continue
            for length in DEPTHS:
                depth = length // itemsize
                for stages in STAGES if pieces == WHOLE else (2,):
                    tile = MatrixTile(rows, columns, depth, down, across, stages, pieces=pieces)
                    enough = min(rows, columns) * length // 16 >= tile.threads
                    if enough and depth < 2 * shape.depth and shared_bytes(tile, itemsize) <= target.l1_bytes:
                        yield tile
