"""Which tiles a chain of contractions on a GPU goes by: how many rows a block has, how many steps it takes at once."""

from __future__ import annotations

import math
from itertools import product

from graphc.codegen.sites import Nest, Site, inner_dims, root_index
from graphc.codegen.target import MATRIX_ARCHITECTURE, WARP, Target
from graphc.ir.access import Index
from graphc.ir.chains import ALIGNED, Chain, Matrix, find_chain
from graphc.ir.record import record

HIGH = 16  # rows, and steps, of one instruction
WARPS = 4
STAGES = 2  # tiles of the matrices that steps go along: one is worked on while the next one comes
STEPS = (64, 32, 16)  # in a tile
APART = 8  # elements between lines of a panel, so that what is read together lies in different banks
RESERVED = 1 << 10  # bytes of shared memory that a block takes besides its own
MOST_REGISTERS = 190  # of a thread, as counted here; the compiler needs some more
OVERHEAD = 56  # registers of a thread for all else


@record
class ChainTile:
    """Each warp has `high` times 16 rows; a block goes through `steps` steps at once. What rows are multiplied with
    stays in registers if it `holds` that.
    """

    high: int
    steps: int
    holds: bool

    @property
    def rows(self) -> int:
        return self.high * HIGH * WARPS

    @property
    def threads(self) -> int:
        return WARPS * WARP


@record
class ChainTiling:
    """A chain that blocks of threads on a GPU compute by tiles. `is_aligned`: all that is read begins where vectors of
    memory do; its matrices do in any case.
    """

    chain: Chain
    nest: Nest
    tile: ChainTile
    is_aligned: bool


def choose_chain(nest: Nest, target: Target, is_aligned: bool) -> ChainTiling | None:
    """The tiles of the chain in `nest`; None when it is none."""
    stages = [s.stage for s in nest.sites if s.stage is not None]
    if len(stages) < 2 or all(stage.op != "contract" for stage in stages) or target.capability < MATRIX_ARCHITECTURE:
        return None
    if any(s.is_kept for s in nest.sites):
        return None
    chain = find_chain(nest.axes, [(s.root.value, place_of(nest, s)) for s in nest.sites if s.root], nest.inside)
    if chain is None:
        return None
    rows = math.prod(v.hi + 1 for v in chain.rows)
    least = ChainTile(1, STEPS[-1], False)
    for tile in (*(ChainTile(high, n, holds) for high, holds, n in product((2, 1), (True, False), STEPS)), least):
        fits = shared_bytes(chain, tile) <= target.l1_bytes - RESERVED and registers(chain, tile) <= MOST_REGISTERS
        if tile is least or (fits and (tile.high == 1 or (rows > tile.rows // 2 and tile.holds and tile.steps > HIGH))):
            return ChainTiling(chain, nest, tile, is_aligned)
    raise AssertionError("the least tile is taken whatever registers it needs; fusion saw to it that it has room")


def place_of(nest: Nest, site: Site) -> Index:
    """The index at which a root is computed."""
    assert site.root is not None
    return root_index(site.root, nest.place, dict(zip(inner_dims(site.root), site.over, strict=True)))


def width(matrix: Matrix) -> int:
    """Elements of a line of the matrix, with zeros up to whole instructions."""
    return -(-(matrix.along.hi + 1) // HIGH) * HIGH


def panel_size(matrix: Matrix, lines: int) -> int:
    """Elements of shared memory for `lines` lines of the matrix: room for as many pieces as threads copy in a round."""
    pieces = width(matrix) // ALIGNED
    copied = -(-lines * pieces // (WARPS * WARP)) * WARPS * WARP
    return -(-copied // pieces) * (width(matrix) + APART)


def right_matrices(chain: Chain) -> dict[tuple[object, ...], Matrix]:
    """The matrices that steps go along, each once."""
    found: dict[tuple[object, ...], Matrix] = {}
    for matrix in (*(p.right for p in chain.products), *(s.right for s in chain.sums if s.right is not None)):
        found.setdefault(key_of(matrix), matrix)
    return found


def key_of(matrix: Matrix) -> tuple[object, ...]:
    """What two matrices have in common that are one, though their lines go along variables of their own."""
    rest = frozenset((symbol, c) for symbol, c in matrix.address.terms if symbol is not matrix.along)
    return matrix.leaf, rest, matrix.address.const, matrix.along.hi


def shared_bytes(chain: Chain, tile: ChainTile) -> int:
    """Shared memory of a block."""
    left = sum(panel_size(p.left, tile.rows) for p in chain.products)
    right = STAGES * sum(panel_size(m, tile.steps) for m in right_matrices(chain).values())
    return 2 * (left + right)


def registers(chain: Chain, tile: ChainTile) -> int:
    """Registers of a thread, about: sums, rows, products of 16 steps, and all else."""
    sums = sum(4 * width(s.right) // 8 if s.right is not None else 2 for s in chain.sums)
    whole = tile.steps // HIGH if chain.top is not None else 1  # products that wait for the maximum
    rows = sum(width(p.left) // 4 for p in chain.products) if tile.holds else 8
    return tile.high * (sums + rows + (4 + 8 * whole) * len(chain.products)) + OVERHEAD
