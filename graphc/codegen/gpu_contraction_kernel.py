"""The kernel of a contraction on a GPU: each block of threads computes a tile of a matrix product from panels of both
operands in shared memory, each thread a register tile of it, and then what the group computes from that.

Panels are double buffered: what the next step needs is read into registers before this step's products, and stored
after them (V. Volkov and J. Demmel, "Benchmarking GPUs to tune dense linear algebra", 2008).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from graphc.codegen.gpu_contraction_block import BlockKernel
from graphc.codegen.gpu_contraction_panels import Panel
from graphc.codegen.gpu_contraction_problem import Problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile
from graphc.codegen.kernel import Param, Value, VType
from graphc.codegen.target import WARP
from graphc.ir.index import Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch
from graphc.ir.types import DType, i64

LARGE = 64  # elements of a register tile from which on speed counts more than the length of the code
_WARP_ACROSS = 8  # threads of a warp side by side along the columns, where there are enough


class PanelKernel(BlockKernel):
    """Goes through the steps of the sum with two pairs of panels, which the threads fill from registers.

    When it `reads_on`, the last round reads a step for nothing: that is shorter than code of its own for the last
    steps.
    """

    reads_on = True
    has_lines = False

    def __init__(
        self,
        group: Group,
        problem: Problem,
        tile: Tile | MatrixTile,
        merged: Mapping[Node, Node],
        partial: Scratch | None,
        resident: int,
        matrix: DType | None = None,
    ) -> None:
        super().__init__(group, problem, tile, merged, partial, resident)
        self.is_matrix = matrix is not None
        self.left, self.right = self._panels(tile, matrix or self.dtype)
        self.memory = self.panels(2 if self.steps > 1 else 1)

    def _panels(self, tile: Tile | MatrixTile, held: DType) -> tuple[Panel, Panel]:
        """The panels of both operands: guarded where both can be copied so."""
        problem = self.problem
        pieces = tile.pieces if isinstance(tile, MatrixTile) else (1, 1)
        sides = (
            (problem.left, self.rows, tile.rows, pieces[0]),
            (problem.right, self.columns, tile.columns, pieces[1]),
        )
        forms = (True,) if self.has_lines else (True, False) if self.is_matrix else (False,)
        for is_guarded in forms:
            left, right = (
                Panel(
                    problem,
                    operand,
                    self.values,
                    side,
                    self.inner,
                    tile.depth,
                    width,
                    self.pad,
                    held,
                    self.is_matrix,
                    self.has_lines,
                    is_guarded,
                    cut,
                )
                for operand, side, width, cut in sides
            )
            if not is_guarded or (left.can_copy and right.can_copy and (self.steps > 1 or self.has_lines)):
                return left, right
        raise AssertionError("lines that cannot be copied were chosen")

    def panels(self, count: int) -> list[tuple[Param, Param]]:
        """Memory for `count` pairs of panels."""
        pairs = []
        for k in range(count):
            left = Param(f"left{k}", self.left.dtype, self.left.size, "own")
            right = Param(f"right{k}", self.right.dtype, self.right.size, "own")
            self.own += [left, right]
            pairs.append((left, right))
        return pairs

    def zeros(self) -> list[Value]:
        """What the thread's sums start from."""
        zero = self.e.splat(self.values.start(self.problem.stage)[0], self.threads)
        return [zero] * (len(self.down()) * len(self.across()) * self.problem.points)

    def products(self, number: int, totals: list[Value]) -> list[Value]:
        """Add the products of a pair of panels."""
        raise NotImplementedError

    def put(self, number: int, fetched: tuple[list[Value], list[Value]]) -> None:
        """Store what was fetched into pair `number`."""
        left, right = self.memory[number]
        self.left.put(left, fetched[0])
        self.right.put(right, fetched[1])

    def read(self, step: Ix, counters: tuple[Value, ...], first: bool = False) -> tuple[list[Value], list[Value]]:
        """What the thread copies of both panels of a step."""
        return self.fetch((self.left, self.right), self.place_in_sums(step, counters, first))

    def sum(self) -> list[Value]:
        e, base = self.e, self.base()
        totals, counters = self.zeros(), self.start()
        self.put(0, self.read(base, counters, first=True))
        last = self.steps - 1
        pairs = (self.steps if self.reads_on else last) // 2
        if pairs:
            with e.loop("step", 0, 2 * pairs, 2, (*totals, *counters)) as loop:
                step = Var("step", 2 * pairs - 2, multiple=2)
                self.values.env[step] = loop.var
                now, counters = list(loop.phis[: len(totals)]), loop.phis[len(totals) :]
                for k in (0, 1):
                    counters = self.following(counters)
                    fetched = self.read(base + derived("clamp", Ix.of(step) + (k + 1), last), counters)
                    now = self.products(k, now)
                    self.put(1 - k, fetched)
                loop.yields = (*now, *counters)
            totals, counters = list(loop.results[: len(totals)]), loop.results[len(totals) :]
        if self.steps % 2:
            return self.products(0, totals)
        if self.reads_on:
            return totals
        fetched = self.read(base + last, self.following(counters))
        totals = self.products(0, totals)
        self.put(1, fetched)
        return self.products(1, totals)

    def load(self, memory: Param, at: Ix) -> Value:
        """An element of memory of the block for each thread."""
        index, stride, offsets = self.values.address(at)
        return self.e.load(VType(memory.dtype, self.threads), memory, index, stride, offsets, None)


class TileKernel(PanelKernel):
    """Each thread multiplies and adds by itself, in the dtype of the sum."""

    def __init__(
        self,
        group: Group,
        problem: Problem,
        tile: Tile,
        merged: Mapping[Node, Node],
        partial: Scratch | None,
        resident: int,
    ) -> None:
        self.tile = tile
        super().__init__(group, problem, tile, merged, partial, resident)
        self.run_length = min(tile.wide, 16 // self.dtype.itemsize)
        self.reads_on = tile.high * tile.wide < LARGE
        self._threads()

    def _threads(self) -> None:
        """Where each thread stands in its slice's grid: close to each other, so that a warp reads few elements."""
        e, tile = self.e, self.tile
        down, across = tile.rows // tile.high, tile.columns // tile.wide
        lane = e.lanes(i64, self.threads)
        self.slice: Var | None = None
        if tile.slices > 1:
            self.slice = self.variable("slice", e.op("udiv", lane, down * across), tile.slices - 1)
            lane = e.op("urem", lane, down * across)
        if across % _WARP_ACROSS == 0 and down % (WARP // _WARP_ACROSS) == 0 and across > _WARP_ACROSS:
            high = WARP // _WARP_ACROSS
            warp, within_warp = e.op("udiv", lane, WARP), e.op("urem", lane, WARP)
            warps = across // _WARP_ACROSS
            row = e.op("add", e.op("mul", e.op("udiv", warp, warps), high), e.op("udiv", within_warp, _WARP_ACROSS))
            left = e.op("mul", e.op("urem", warp, warps), _WARP_ACROSS)
            column = e.op("add", left, e.op("urem", within_warp, _WARP_ACROSS))
        else:
            row, column = e.op("udiv", lane, across), e.op("urem", lane, across)
        self.row = self.variable("row", row, down - 1)
        self.column = self.variable("column", column, across - 1)

    def down(self) -> list[Ix]:
        return self._spread(self.row, self.tile.high, self.tile.rows)

    def across(self) -> list[Ix]:
        return self._spread(self.column, self.tile.wide, self.tile.columns)

    def only(self) -> Value | None:
        return None if self.slice is None else self.e.op("eq", self.values.index(Ix.of(self.slice)), 0)

    def sum(self) -> list[Value]:
        return self._slices(super().sum())

    def products(self, number: int, totals: list[Value]) -> list[Value]:
        """Add the products of a pair of panels."""
        e, tile = self.e, self.tile
        left, right = self.memory[number]
        totals = list(totals)
        points = self.problem.points
        pinned, e.pinned = e.pinned, True  # what was put there just now
        e.epoch += 1
        for k in range(tile.depth // tile.slices):
            step = Ix(k * tile.slices) + (Ix.of(self.slice) if self.slice is not None else Ix())
            down = [self.load(left, self.left.at(ix, step)) for ix in self.down()]
            across = [self.load(right, self.right.at(ix, step, p)) for ix in self.across() for p in range(points)]
            for position, (a, b) in enumerate(product(down, across)):
                if self.dtype.is_float:
                    totals[position] = e.op("fma", a, b, totals[position])
                else:
                    totals[position] = e.op("add", totals[position], e.op("mul", a, b))
        e.pinned = pinned
        return totals

    def _spread(self, var: Var, count: int, length: int) -> list[Ix]:
        """The places of a thread along a side: runs as long as one load, far apart, so that a warp's runs touch."""
        run = min(count, 16 // self.dtype.itemsize)
        apart = length * run // count
        return [Ix.of(var, run) + (start * apart + k) for start in range(count // run) for k in range(run)]

    def _slices(self, totals: list[Value]) -> list[Value]:
        """The sum over the slices, in all of them."""
        tile = self.tile
        if self.slice is None:
            return totals
        memory = Param("sums", self.dtype, len(totals) * self.threads, "own")
        self.own.append(memory)
        e = self.e
        lane = self.variable("thread", e.lanes(i64, self.threads), self.threads - 1)
        for position, total in enumerate(totals):
            index, stride, offsets = self.values.address(Ix.of(lane) + position * self.threads)
            e.store(memory, index, total, stride, offsets, None)
        share = self.threads // tile.slices
        mine = Ix.of(self.variable("mine", e.op("urem", e.lanes(i64, self.threads), share), share - 1))
        result = []
        pinned, e.pinned = e.pinned, True
        for position in range(len(totals)):
            parts = [self.load(memory, mine + (position * self.threads + s * share)) for s in range(tile.slices)]
            total = parts[0]
            for part in parts[1:]:
                total = e.op("add", total, part)
            result.append(total)
        e.pinned = pinned
        return result
