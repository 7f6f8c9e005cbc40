"""The loops over a kernel's domain: its parallel range, blocks, chunks of long sums, the lane axis and what its tiles
leave over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from graphc.codegen.kernel import INDEX, Value
from graphc.codegen.loops import CHUNK_VECTORS
from graphc.codegen.schedule import Schedule
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Site
from graphc.codegen.target import Target
from graphc.ir.index import Ix, Var
from graphc.ir.record import record
from graphc.ir.types import i64

GRID_PER_CORE = 8  # parallel pieces wanted for each core, so that an uneven finish costs little

Bases = dict[Var, tuple[Var, Value]]
"""For each axis the variable that stands for the first index of a tile, and its value."""

Enter = Callable[[Bases, tuple[Var, Value], bool], None]
"""Called before all that is computed for one tile of the lane axis: whether that is a whole one comes last."""

Begin = Callable[[Bases, tuple[Value, Value]], None]
"""Called before the lane axis is gone through for a block of another axis: the number of its first tile, and how many
it has.
"""

Body = Callable[[Bases, tuple[Var, Value] | None, range, Value | None], None]
"""Computes one tile: bases, the lane axis's own, which of its vectors, and the mask of the last one."""


@record
class Part:
    """`count` steps of a long sum from `start` on. `first` is the number of the first of them where that may be 0."""

    start: Ix
    count: int
    first: Value | None
    is_last: bool


class Domain:
    """Emits the loops of one kernel. `tile_numbers` maps the first index of a register tile to its number, `part` is
    the part of a long sum that is being made, `inside` the number of a tile in its block. `turns` are sites that store
    one after the other (none: all together), `turn` those that do now.
    """

    def __init__(
        self,
        e: ScopedEmitter,
        env: dict[Var, Value],
        schedule: Schedule,
        target: Target,
        body: Body,
        enter: Enter,
        begin: Begin,
    ) -> None:
        self.tile_numbers: dict[Var, Var] = {}
        self.part: Part | None = None
        self.inside: Ix | None = None
        self.turns: tuple[tuple[Site, ...], ...] = ()
        self.turn: tuple[Site, ...] = ()
        self._e = e
        self._env = env
        self._schedule = schedule
        self._target = target
        self._body = body
        self._enter = enter
        self._begin = begin
        self._whole_tile = schedule.tile[schedule.lane] if schedule.lane is not None else 0

    def tiles(self, var: Var) -> int:
        return math.ceil((var.hi + 1) / self._schedule.tile[var])

    def stored_once(self, place: tuple[Ix, ...], bases: Bases) -> AbstractContextManager[None]:
        """Around the stores of `place`, one of a tile: a tile that was moved back stores the same again."""
        return nullcontext()

    def _count(self, var: Var) -> int:
        """Steps of an axis outside the loop over the lanes: its tiles, or blocks of them."""
        blocked, size = self._schedule.block
        return math.ceil(self.tiles(var) / size) if var is blocked else self.tiles(var)

    def run(self, index: Value) -> int:
        """Emit the loops over the domain; gives the size of the parallel range."""
        outer = [v for v in self._schedule.order if v is not self._schedule.lane]
        # Tiles that read the same chunk of a sum across lanes run one after the other: few pieces with many tiles.
        apart = self._schedule.chunk is not None and self._schedule.lane is None
        wanted = self._target.cores * (2 if apart else GRID_PER_CORE)
        shared: list[Var] = []
        grid = 1
        while outer and outer[0] not in self._schedule.rows:
            if grid >= wanted and outer[0] not in self._schedule.outermost and self._count(outer[0]) > 1:
                break
            grid *= self._count(outer[0])
            shared.append(outer.pop(0))
        chunks = self._chunks(grid if not outer else wanted)
        rest = index
        lane_chunk: Value | None = None
        if chunks > 1 and self._schedule.lane_block and shared:  # the chunk is the outermost loop
            lane_chunk = self._e.op("floordiv", index, grid)
            rest = self._e.op("mod", index, grid)
        elif chunks > 1:
            lane_chunk = self._e.op("mod", index, chunks) if shared else index
            rest = self._e.op("floordiv", index, chunks)
        bases: Bases = {}
        for position, var in enumerate(shared):
            inner = math.prod(self._count(v) for v in shared[position + 1 :])
            if self._count(var) == 1:
                bases[var] = self._base(var, self._e.const(0, INDEX))
                continue
            number = self._e.op("floordiv", rest, inner) if inner > 1 else rest
            rest = self._e.op("mod", rest, inner) if inner > 1 else rest
            bases[var] = self._base(var, number)
        if apart:
            self._parts(lambda: self._loops(outer, bases, lane_chunk, chunks))
        else:
            self._loops(outer, bases, lane_chunk, chunks)
        return grid * chunks

    def _chunks(self, grid: int) -> int:
        """Into how many parallel pieces the lane axis is cut, when the other axes give too few."""
        lane = self._schedule.lane
        if lane is None or (grid >= self._target.cores * 2 and not self._schedule.lane_block):
            return 1
        return max(1, math.ceil((lane.hi + 1) // self._schedule.lanes / self._chunk_vectors(lane)))

    def _chunk_vectors(self, lane: Var) -> int:
        """Vectors of a piece: for several cores there need not be many, with a long reduction for each of them."""
        tile, lanes, cores = self._schedule.tile[lane], self._schedule.lanes, self._target.cores
        wanted = self._schedule.lane_block // lanes or CHUNK_VECTORS
        if not self._schedule.lane_block and cores > 1:
            steps = max((math.prod(v.hi + 1 for v in loops) for loops in self._schedule.loop_order.values()), default=1)
            share = (lane.hi + 1) // lanes // (cores * GRID_PER_CORE)
            wanted = min(CHUNK_VECTORS, max(CHUNK_VECTORS // steps, share, 1))
        return math.ceil(wanted / tile) * tile

    def _base(self, var: Var, number: Value) -> tuple[Var, Value]:
        """The first index of tile `number` along `var`; the last tile is moved back so that it ends with the axis.

        For an axis in blocks: the number of the block, until `_block` goes through its tiles.
        """
        if var is self._schedule.block[0]:
            return var, number
        return self._tile_base(var, number)

    def _tile_base(self, var: Var, number: Value) -> tuple[Var, Value]:
        tile, extent = self._schedule.tile[var], var.hi + 1
        value = self._e.op("mul", number, tile) if tile > 1 else number
        if extent % tile:
            value = self._e.op("select", self._e.op("lt", value, extent - tile), value, extent - tile)
        base = Var(var.name, extent - tile)
        own = self.tile_numbers[base] = Var(f"{var.name}_tile", self.tiles(var) - 1)
        self._env[own] = number
        return base, value

    def _loops(self, outer: list[Var], bases: Bases, chunk: Value | None, chunks: int) -> None:
        if outer:
            var = outer[0]
            if self._count(var) == 1:
                self._loops(outer[1:], {**bases, var: self._base(var, self._e.const(0, INDEX))}, chunk, chunks)
                return
            with self._e.loop(var.name, 0, self._count(var), 1) as loop:
                self._loops(outer[1:], {**bases, var: self._base(var, loop.var)}, chunk, chunks)
            return
        if self._schedule.chunk is None or self._schedule.lane is None:
            self._lane_loop(bases, chunk, chunks)
        else:
            self._parts(lambda: self._lane_loop(bases, chunk, chunks))

    def _parts(self, inside: Callable[[], None]) -> None:
        """Go through the chunks of a long sum; the last one finishes it."""
        chunk = self._schedule.chunk
        assert chunk is not None
        with self._e.loop("part", 0, chunk.last, chunk.size) as loop:
            base = Var("part", chunk.last - chunk.size)
            self._env[base] = loop.var
            self.part = Part(Ix.of(base), chunk.size, loop.var, False)
            inside()
        self.part = Part(Ix(chunk.last), chunk.var.hi + 1 - chunk.last, None, True)
        inside()
        self.part = None

    def _lane_loop(self, bases: Bases, chunk: Value | None, chunks: int) -> None:
        """Loop over the lane axis, or over the `chunk` of it, once for each of the turns."""
        for turn in self.turns or ((),):
            self.turn = turn
            self._lane_turn(bases, chunk, chunks)

    def _lane_turn(self, bases: Bases, chunk: Value | None, chunks: int) -> None:
        """The same for what stores now."""
        lane = self._schedule.lane
        if lane is None:
            self._body(bases, None, range(0), None)
            return
        if self._schedule.block[0] is not None:
            self._begin(bases, self._block_range(bases))
        lanes, tile = self._schedule.lanes, self._schedule.tile[lane]
        full, tail = divmod(lane.hi + 1, lanes)
        whole = full // tile * tile
        start = Var(lane.name, max(0, whole - tile) * lanes, multiple=tile * lanes)
        if chunk is not None:
            size = self._chunk_vectors(lane) * lanes
            lo = self._e.op("mul", chunk, size)
            hi = self._e.op("add", lo, size)
            end = whole * lanes
            hi = self._e.op("select", self._e.op("lt", hi, end), hi, end)
            with self._e.loop(lane.name, lo, hi, tile * lanes) as loop:
                self._block(bases, (start, loop.var), range(tile), None)
            if whole < full or tail:
                with self._e.guard(self._e.op("eq", chunk, chunks - 1)):
                    self._lane_rest(bases, lane, whole, full, tail)
            return
        if whole > tile:
            with self._e.loop(lane.name, 0, whole * lanes, tile * lanes) as loop:
                self._block(bases, (start, loop.var), range(tile), None)
        elif whole:
            self._block(bases, (start, self._e.const(0, INDEX)), range(tile), None)
        self._lane_rest(bases, lane, whole, full, tail)

    def _lane_rest(self, bases: Bases, lane: Var, whole: int, full: int, tail: int) -> None:
        """What the tiled lane loop leaves: whole vectors, then one masked vector, or one that begins earlier where
        vectors are transposed, which takes whole ones.
        """
        if whole == full and not tail:
            return
        lanes = self._schedule.lanes
        # The start is that of a whole tile for both, which is where panels can be entered.
        multiple = self._schedule.tile[lane] * lanes
        start = (Var(lane.name, whole * lanes, multiple=multiple), self._e.const(whole * lanes, INDEX))
        if whole < full:
            self._block(bases, start, range(full - whole), None)
        if tail and self._schedule.moves_back:
            last = lane.hi + 1 - lanes
            self._block(bases, (Var(lane.name, last), self._e.const(last, INDEX)), range(1), None)
        elif tail:
            mask = self._e.op("lt", self._e.lanes(i64, lanes), tail)
            self._block(bases, start, range(full - whole, full - whole + 1), mask)

    def _block(self, bases: Bases, lane: tuple[Var, Value], vectors: range, tail: Value | None) -> None:
        """Compute one tile of the lane axis, for each tile in a block of another axis if there is one."""
        var, size = self._schedule.block
        if vectors.start == 0:  # the masked vector of a tile comes after its whole ones
            self._enter(bases, lane, tail is None and len(vectors) == self._whole_tile)
        if var is None:
            self._body(bases, lane, vectors, tail)
            return
        lo, count = self._block_range(bases)
        with self._e.loop(var.name, 0, count, 1) as loop:
            inside = Var(f"{var.name}_inside", size - 1)
            self._env[inside] = loop.var
            self.inside = Ix.of(inside)
            self._body({**bases, var: self._tile_base(var, self._e.op("add", lo, loop.var))}, lane, vectors, tail)
        self.inside = None

    def _block_range(self, bases: Bases) -> tuple[Value, Value]:
        """The number of the first tile of the current block, and how many tiles the block has."""
        var, size = self._schedule.block
        assert var is not None
        lo = self._e.op("mul", bases[var][1], size)
        if self.tiles(var) % size == 0:
            return lo, self._e.const(size, INDEX)
        return lo, self._e.op("minimum", self._e.op("sub", self.tiles(var), lo), size)
