"""Which tile of a matrix product a block of threads computes: chosen by a small model of a multiprocessor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar, TypeVar

from graphc.codegen.target import GROUP, STATIC_SHARED, WARP, Target
from graphc.ir.record import record

SIDES = (1, 2, 4, 8)  # elements of a thread's register tile along a side
DEPTHS = (8, 16, 32)  # steps of the sum in a panel
THREADS = (64, 128, 256)
RATE = 128  # multiply-adds of f32 that a multiprocessor does in a cycle
WIDE_RATE = 64  # those of f64
FABRIC = 24  # bytes that reach a multiprocessor in a cycle from the second level of cache
REST = 0.1  # share of the traffic that is not hidden
LATENCY = 1000  # cycles until what a step asks memory for is in shared memory
LAUNCH = 4000  # cycles for a kernel to begin, and for a block to compute what follows the sum
SUMS_RATE = 1200  # bytes of partial sums that the whole device moves in a cycle
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
FEW = 12  # tiles for which all numbers of parts are tried
HALF, MOST = 128, 200  # registers of a thread: with those of two blocks of 256 threads, and at most
OVERHEAD = 40  # registers of a thread besides its tile and what it reads next


@record
class Shape:
    """Extents of a matrix product: `points` elements for each place of a row and a column; `depth` is the sum's."""

    batch: int
    rows: int
    columns: int
    depth: int
    points: int
    itemsize: int  # of what is summed
    indices: int = 1  # registers of a thread for each element that it copies: more where indices are computed


@record
class Tile:
    """`rows` x `columns` elements of the result, of which each thread has `high` x `wide`, `depth` steps at a time.

    The threads are `slices` groups; each takes its share of the steps of a panel. The sum of a whole row goes to
    `splits` blocks.
    """

    rows: int
    columns: int
    depth: int
    high: int
    wide: int
    slices: int
    splits: int = 1
    divided: ClassVar[float] = 1.25  # times a step takes whose indices are divided

    @property
    def threads(self) -> int:
        return self.rows // self.high * (self.columns // self.wide) * self.slices


@record
class MatrixTile:
    """`rows` x `columns` elements of the result, computed by `down` x `across` warps with instructions for matrices,
    `depth` steps at a time; `stages` panels of each operand are in use or on their way. An element of either operand is
    the sum of so many `pieces` of bf16, each with a panel of its own.
    """

    rows: int
    columns: int
    depth: int
    down: int
    across: int
    stages: int
    splits: int = 1
    pieces: tuple[int, int] = (1, 1)
    divided: ClassVar[float] = 3.0

    @property
    def threads(self) -> int:
        return WARP * self.down * self.across


@record
class GroupTile(MatrixTile):
    """Likewise by `down` x `across` groups of four warps, with products of lines."""

    @property
    def threads(self) -> int:
        return GROUP * self.down * self.across


AnyTile = TypeVar("AnyTile", Tile, MatrixTile, GroupTile)


def cheapest(
    shape: Shape, tiles: Iterable[AnyTile], cost: Callable[[AnyTile, int], float]
) -> tuple[float, AnyTile] | None:
    """The tile with the least `cost`, cut into as many parts as is best, and its cost; None when there are no tiles.

    `cost` takes a tile and, where its number of parts is not chosen yet, how many there may be at most (else 0).
    """
    likely = sorted(tiles, key=lambda t: cost(t, SPLITS[-1]))[:FEW]
    options: list[tuple[float, int, AnyTile]] = []
    for tile in likely:
        steps = ceil_div(shape.depth, tile.depth)
        for count in SPLITS:
            if count <= steps:
                parts = ceil_div(steps, ceil_div(steps, count))  # those that are not empty
                split = replace(tile, splits=parts)
                options.append((cost(split, 0), parts, split))
    if not options:
        return None
    best = min(options, key=lambda o: o[:2])
    return best[0], best[2]


@lru_cache(maxsize=1024)
def choose_tile(shape: Shape, target: Target) -> tuple[float, Tile] | None:
    """The register tile with the least estimated time, and that; None when the product is too small for a block."""
    return cheapest(shape, _tiles(shape), lambda tile, most: estimate(shape, tile, target, most))


def estimate(shape: Shape, tile: Tile, target: Target, most: int = 0) -> float:
    """Cycles of the product in these tiles; `most` as for `cheapest`."""
    rate = WIDE_RATE if shape.itemsize == 8 else RATE
    wide = tile.wide * shape.points
    warps = tile.threads / WARP
    words = shape.itemsize // 4
    each = tile.depth // tile.slices  # steps of the sum that a thread makes of a panel
    products = warps * each * tile.high * wide
    reads = warps * each * (ceil_div(tile.high * words, 4) + ceil_div(wide * words, 4)) * 1.5
    moved = tile.depth * (tile.rows + tile.columns * shape.points)
    copies = moved * 3 / WARP  # instructions: an address, a load and a store, some of them wide
    issue = (products + reads + copies) / 4
    traffic = moved * shape.itemsize / FABRIC
    step = max(products * WARP / rate, issue, reads, traffic) + REST * traffic
    return total_time(shape, tile, target, step, _resident(shape, tile, target), most)


def total_time(shape: Shape, tile: Tile | MatrixTile, target: Target, step: float, resident: int, most: int) -> float:
    """Cycles of all blocks when a step takes a multiprocessor `step` cycles and it runs `resident` blocks at once."""
    if not resident:
        return math.inf
    steps = ceil_div(ceil_div(shape.depth, tile.depth), tile.splits)
    splits = tile.splits
    blocks = shape.batch * ceil_div(shape.rows, tile.rows) * ceil_div(shape.columns, tile.columns) * splits
    if most:
        splits = max(1, min(steps, most, target.cores // blocks))
        blocks, steps = blocks * splits, ceil_div(steps, splits)
    together = min(resident, ceil_div(blocks, target.cores))
    waves = ceil_div(blocks, target.cores * together)
    busy = together * step / utilised(together * tile.threads / WARP)
    time = waves * (steps * max(busy, LATENCY / min(together, 4)) + LAUNCH)
    if splits > 1:
        sums = shape.batch * shape.rows * shape.columns * shape.points * 4 * (splits + 1)
        time += LAUNCH + sums / SUMS_RATE
    return time


def registers(shape: Shape, tile: Tile) -> int:
    """Registers of a thread, about."""
    fragments = tile.high + tile.wide * shape.points
    loads = tile.depth * (tile.rows + tile.columns * shape.points) // tile.threads
    words = shape.itemsize // 4
    return (tile.high * tile.wide * shape.points + fragments) * words + loads * (words + shape.indices - 1) + OVERHEAD


def resident_by_registers(needed: int, threads: int, target: Target) -> int:
    """How many blocks to make room for, where a thread needs about a half of the registers that it may have; else 0:
    a few more would leave room for half as many blocks.
    """
    return target.registers // (HALF * threads) if HALF * 3 // 4 < needed <= HALF else 0


def _resident(shape: Shape, tile: Tile, target: Target) -> int:
    """Blocks that a multiprocessor runs at once."""
    needed = registers(shape, tile)
    shared = shared_bytes(shape, tile)
    most = min(target.registers // (needed * tile.threads), target.l1_bytes // shared, 2048 // tile.threads)
    return most if needed <= MOST else 0


def utilised(warps: float) -> float:
    """The share of its rate that a multiprocessor reaches with so many warps at work."""
    return min(1.0, 1.25 * warps / (warps + 4))


def shared_bytes(shape: Shape, tile: Tile) -> int:
    """Shared memory of a block: two panels of each operand with their padding, or the sums of the slices."""
    panels = 2 * tile.depth * (tile.rows + tile.columns * shape.points + 8) * shape.itemsize
    sums = tile.high * tile.wide * shape.points * tile.threads * shape.itemsize if tile.slices > 1 else 0
    return panels + sums


def _tiles(shape: Shape) -> Iterator[Tile]:
    """Tiles that fit: not more than twice what the shape needs, and enough elements in a panel for all threads."""
    rows, columns, depths = _up(shape.rows), _up(shape.columns), [d for d in DEPTHS if d <= max(8, _up(shape.depth))]
    for threads in THREADS:
        for high in SIDES:
            for wide in SIDES:
                if high * wide * shape.points * shape.itemsize // 4 > 64 and high * wide > 1:
                    continue
                for down in _powers(threads):
                    if down * high > rows:
                        break
                    for across in _powers(threads // down):
                        slices = threads // down // across
                        if across * wide > columns:
                            break
                        if slices > 8:
                            continue
                        for depth in depths:
                            if slices <= depth:
                                tile = Tile(down * high, across * wide, depth, high, wide, slices)
                                if fits(shape, tile):
                                    yield tile


def fits(shape: Shape, tile: Tile) -> bool:
    """Whether the panels give each thread something to copy, and fit shared memory."""
    smallest = min(tile.rows, tile.columns) * tile.depth
    return smallest * 4 >= tile.threads and shared_bytes(shape, tile) <= STATIC_SHARED


def ceil_div(a: int, b: int) -> int:
    """`a / b`, rounded up."""
    return -(-a // b)


def _powers(limit: int) -> Iterator[int]:
    yield from (1 << k for k in range(limit.bit_length()))


def _up(extent: int) -> int:
    """The least power of two that is not below `extent`."""
    return 1 << max(0, math.ceil(math.log2(extent)))
