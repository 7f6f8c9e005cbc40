"""What a chain of contractions on a GPU keeps in shared memory: lines of 16-bit matrices, copied while warps compute,
and read as instructions want them.
"""

from __future__ import annotations

from graphc.codegen.gpu_chain_tiles import APART, HIGH, STAGES, ChainTiling, key_of, panel_size, right_matrices, width
from graphc.codegen.gpu_contraction_block import parameters, scattered
from graphc.codegen.gpu_contraction_problem import Flat, moved
from graphc.codegen.kernel import AsyncCopy, Param, Value
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import WARP
from graphc.codegen.values import Values
from graphc.ir.chains import ALIGNED, Matrix, Product
from graphc.ir.index import ZERO, Ix, Var, derived
from graphc.ir.schedule import Group
from graphc.ir.types import i64

QUAD = 4  # threads that share a row of an instruction's matrix
Four = tuple[Value, ...]  # a thread's elements of a matrix of 16 x 8, or of four of 8 x 8


class ChainPanels:
    """Threads, rows and panels of the kernel of a chain."""

    def __init__(self, group: Group, tiling: ChainTiling) -> None:
        self.chain, self.nest, self.tile = tiling.chain, tiling.nest, tiling.tile
        self.e = e = ScopedEmitter()
        self.is_aligned = tiling.is_aligned
        self.params = parameters(group, self.nest, {}, stores=True)
        self.values = Values(e, self.nest.inside, self.params)
        self.threads = self.values.lane_count = self.tile.threads
        self.rows, self.steps, self.batch = map(Flat, (self.chain.rows, self.chain.steps, self.chain.batch))
        self.tiles = -(-self.steps.length // self.tile.steps)
        self.is_ragged = self.steps.length % self.tile.steps > 0
        self.whole = self.tiles - self.is_ragged  # tiles all of whose steps exist
        self.own: list[Param] = []
        lane = e.lanes(i64, self.threads)
        mine = e.op("urem", lane, WARP)
        self.warp = self.variable("warp", e.op("udiv", lane, WARP), self.threads // WARP - 1)
        self.group_row = self.variable("row", e.op("udiv", mine, QUAD), 7)
        self.pair = self.variable("pair", e.op("urem", mine, QUAD), QUAD - 1)
        # A thread names a row of one of four matrices, two by two.
        self.line = self.variable("line", e.op("urem", mine, 8), 7)
        self.second = self.variable("second", e.op("urem", e.op("udiv", mine, 8), 2), 1)
        self.third = self.variable("third", e.op("udiv", mine, 16), 1)

    def variable(self, name: str, value: Value, hi: int) -> Var:
        """An index variable that is `value` in each thread, at most `hi`."""
        var = Var(name, hi)
        self.values.env[var] = value
        return var

    def _memory(self, name: str, matrix: Matrix, lines: int, stages: int = 1) -> Param:
        """Shared memory for `lines` lines of a matrix, in each of the stages."""
        memory = Param(name, matrix.leaf.dtype, stages * panel_size(matrix, lines), "own")
        self.own.append(memory)
        return memory

    def begin(self, index: Value) -> int:
        """Find the rows of block `index`, and begin to copy them; how many blocks there are."""
        e, chain = self.e, self.chain
        down = -(-self.rows.length // self.tile.rows)
        place, number = (e.op("floordiv", index, down), e.op("mod", index, down)) if down > 1 else (index, None)
        self.first_row = Ix() if number is None else Ix.of(self.variable("rows", number, down - 1), self.tile.rows)
        self.batch_points = self.batch.points(Ix.of(self.variable("batch", place, self.batch.length - 1)))
        self.rights = right_matrices(chain)
        self.panels = {
            key: self._memory(f"steps{n}", m, self.tile.steps, STAGES) for n, (key, m) in enumerate(self.rights.items())
        }
        self.lefts = [self._memory(f"rows{n}", p.left, self.tile.rows) for n, p in enumerate(chain.products)]
        for memory, one in zip(self.lefts, chain.products, strict=True):
            self._copy(memory, one.left, self.tile.rows, self.rows, self.first_row, fills=False)
        return down * self.batch.length

    # copying

    def _copy(
        self, memory: Param, matrix: Matrix, lines: int, side: Flat, first: Ix, fills: bool, to: Ix = ZERO
    ) -> None:
        """Begin to copy `lines` lines of a matrix, from `first` of its side on, to place `to` of memory. Past its end
        come zeros if it `fills` these, otherwise anything.
        """
        e, values = self.e, self.values
        pieces, extent = width(matrix) // ALIGNED, matrix.along.hi + 1
        lane = Ix.of(self.variable("lane", e.lanes(i64, self.threads), self.threads - 1))
        for k in range(-(-lines * pieces // self.threads)):
            flat = lane + k * self.threads
            conditions = []
            line, piece = derived("floordiv", flat, pieces), derived("mod", flat, pieces)
            if pieces * ALIGNED > extent:
                conditions.append((piece, extent // ALIGNED))
            at = first + line
            if at.hi >= side.length:
                if fills:
                    conditions.append((at, side.length))
                at = derived("clamp", at, side.length - 1)
            along = derived("clamp", piece, extent // ALIGNED - 1) * ALIGNED
            source = moved(matrix.address, {**self.batch_points, **side.points(at), matrix.along: along})
            index, _, offsets = values.address(line * (width(matrix) + APART) + piece * ALIGNED + to)
            source_index, source_offsets = scattered(values, source)
            mask: Value | None = None
            for ix, limit in conditions:
                holds = e.splat(e.op("lt", values.index(ix), limit), self.threads)
                mask = holds if mask is None else e.op("and", mask, holds)
            assert offsets is not None
            buffer = values.buffers[matrix.leaf]
            e.copy(AsyncCopy(memory, index, offsets, buffer, source_index, source_offsets, ALIGNED, mask))

    def copy_step(self, tile: Ix, number: Ix) -> None:
        """Begin to copy all that tile `tile` of the steps is multiplied with, to the stage of tile `number`."""
        for key, memory in self.panels.items():
            matrix, first = self.rights[key], tile * self.tile.steps
            to = self.stage(matrix, number)
            self._copy(memory, matrix, self.tile.steps, self.steps, first, self.is_ragged, to)

    def stage(self, matrix: Matrix, number: Ix) -> Ix:
        """Where the lines of tile `number` of a matrix begin in memory."""
        return derived("mod", number, STAGES) * panel_size(matrix, self.tile.steps)

    def range(self) -> tuple[int | Value, int | Value]:
        """The first whole tile of steps that counts for some row of the block, and the first one that does not."""
        e, tile = self.e, self.tile
        lo: int | Value = 0
        hi: int | Value = self.whole
        for limit in self.chain.limits:
            if limit.side < 0:
                first = e.op("maximum", self.values.index(self.first_row + -limit.offset), 0)
                first = e.op("minimum", e.op("floordiv", first, tile.steps), self.tiles - 1)
                lo = first if isinstance(lo, int) else e.op("maximum", lo, first)
            else:
                last = e.op("minimum", self.values.index(self.first_row + (tile.rows - 1)), self.rows.length - 1)
                past = e.op("maximum", e.op("add", last, limit.offset + tile.steps), 0)
                past = e.op("minimum", e.op("floordiv", past, tile.steps), self.whole)
                hi = past if isinstance(hi, int) else e.op("minimum", hi, past)
        return lo, hi

    def row(self, i: int, half: int) -> Ix:
        """A thread's row on the side of the rows; the last one where there is none."""
        ix = self.first_row + self.warp_row(i) + Ix.of(self.group_row) + half * (HIGH // 2)
        return derived("clamp", ix, self.rows.length - 1)

    def warp_row(self, i: int) -> Ix:
        """The first of a warp's rows `i` in its block."""
        return Ix.of(self.warp, self.tile.high * HIGH) + i * HIGH

    # matrices

    def left_rows(self, number: int) -> list[list[Four]]:
        """All that a warp multiplies steps with: for each of its matrices along the rows, and along the depth."""
        depth = width(self.chain.products[number].left)
        return [[self.left(number, i, d) for d in range(0, depth, HIGH)] for i in range(self.tile.high)]

    def left(self, number: int, i: int, depth: int) -> Four:
        line = self.warp_row(i) + Ix.of(self.second, 8) + Ix.of(self.line)
        matrix = self.chain.products[number].left
        return self.load(matrix, self.lefts[number], line, Ix.of(self.third, 8) + depth, 4, False)

    def steps_at(self, one: Product, tile: Ix, first: int, depth: int) -> Four:
        """16 steps from `first` of a tile on, by 16 of the depth: of eight steps each two matrices of 8 x 8."""
        memory, start = self.panels[key_of(one.right)], self.stage(one.right, tile)
        line = Ix.of(self.third, 8) + first + Ix.of(self.line)
        return self.load(one.right, memory, line, start + Ix.of(self.second, 8) + depth, 4, False)

    def load(self, matrix: Matrix, memory: Param, line: Ix, place: Ix, count: int, transposed: bool) -> Four:
        """`count` matrices of 8 x 8, of which the thread names a row."""
        index, _, offsets = self.values.address(line * (width(matrix) + APART) + place)
        assert offsets is not None
        return self.e.load_matrix(count, memory, index, offsets, transposed)
