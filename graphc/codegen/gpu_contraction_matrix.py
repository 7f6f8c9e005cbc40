"""Contractions of 16-bit floats on a GPU, and of f32 rounded to tf32, by the instructions with which a warp multiplies
small matrices.

The warps of a block share panels of both operands in shared memory. Where the operands lie in memory as they are
wanted, panels are filled by copies that go on while the warps compute, several steps ahead; otherwise, when one is
computed or converted, through registers.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.gpu_contraction_kernel import PanelKernel
from graphc.codegen.gpu_contraction_panels import Panel
from graphc.codegen.gpu_contraction_problem import Problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile
from graphc.codegen.kernel import Param, Value
from graphc.codegen.target import WARP
from graphc.ir.index import Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch
from graphc.ir.types import bf16, i32, i64

HIGH, WIDE = 16, 8  # the matrices of one instruction
LINE = 16  # bytes of a row of what a warp loads; an instruction multiplies two along the sum
# The order in which an instruction takes matrices of an operand: how many matrices further along the side, and the sum.
Corners = tuple[tuple[int, int], ...]
ROWS: Corners = (0, 0), (1, 0), (0, 1), (1, 1)
COLUMN: Corners = (0, 0), (0, 1)
COLUMNS: Corners = (*COLUMN, (1, 0), (1, 1))  # those of two instructions
OPEN = 63  # groups of copies: more than are ever under way


class MatrixKernel(PanelKernel):
    """Each warp computes a part of the tile, in matrices of 16 x 8."""

    run_length = 2
    late = 0  # steps whose products may go on while the next ones' begin
    product_rows = HIGH

    def __init__(
        self,
        group: Group,
        problem: Problem,
        tile: MatrixTile,
        merged: Mapping[Node, Node],
        partial: Scratch | None,
        resident: int,
    ) -> None:
        self.tile = tile
        self.held = problem.dtype if tile.pieces == (1, 1) else bf16
        self.line = LINE // self.held.itemsize
        super().__init__(group, problem, tile, merged, partial, resident, self.held)
        e = self.e
        lane = e.lanes(i64, self.threads)
        mine = e.op("urem", lane, WARP)
        part = e.op("udiv", lane, tile.threads // tile.down // tile.across)  # of the tile, a warp's
        self.warp_row = self.variable("warp_row", e.op("udiv", part, tile.across), tile.down - 1)
        self.warp_column = self.variable("warp_column", e.op("urem", part, tile.across), tile.across - 1)
        self.group_row = self.variable("row", e.op("udiv", mine, 4), 7)
        self.pair = self.variable("pair", e.op("urem", mine, 4), 3)
        # A thread names a row of one of four matrices, two by two.
        self.matrix_row = self.variable("line", e.op("urem", mine, 8), 7)
        self.second = self.variable("second", e.op("urem", e.op("udiv", mine, 8), 2), 1)
        self.third = self.variable("third", e.op("udiv", mine, 16), 1)

    def panels(self, count: int) -> list[tuple[Param, Param]]:
        self.is_copied = self.left.can_copy and self.right.can_copy and (self.steps > 1 or self.has_lines)
        return super().panels(self.tile.stages if self.is_copied else count)

    @property
    def _high(self) -> int:
        """Products of a warp, or a group of them, along the rows."""
        return self.tile.rows // self.tile.down // self.product_rows

    @property
    def _wide(self) -> int:
        return self.tile.columns // self.tile.across // WIDE

    def _row(self, number: int) -> Ix:
        """The first row of a warp's matrices number `number`."""
        return self._product_row(number)

    def _product_row(self, number: int) -> Ix:
        return Ix.of(self.warp_row, self._high * self.product_rows, number * self.product_rows)

    def _column(self, number: int) -> Ix:
        return Ix.of(self.warp_column, self._wide * WIDE, number * WIDE)

    def down(self) -> list[Ix]:
        return [self._row(i) + Ix.of(self.group_row) + half for i in range(self._high) for half in (0, HIGH // 2)]

    def across(self) -> list[Ix]:
        return [self._column(j) + Ix.of(self.pair, 2) + k for j in range(self._wide) for k in (0, 1)]

    def sum(self) -> list[Value]:
        return self._copied() if self.is_copied else super().sum()

    def _copied(self) -> list[Value]:
        """Go through the steps with copies for those that follow under way."""
        e, base, stages = self.e, self.base(), self.tile.stages
        ahead, counters = stages - 1 - self.late, self.start()
        for k in range(ahead):
            if k:
                counters = self.following(counters)
            if k < self.steps:
                self._copy(base + k, counters, k, first=k == 0)
            if k < ahead - 1:
                e.wait(OPEN)
        totals = self.zeros()
        rounds, rest = divmod(self.steps, stages)
        if rounds:
            # The last rounds copy a step for nothing when there is none left.
            with e.loop("step", 0, rounds * stages, stages, (*totals, *counters)) as loop:
                step = Var("step", (rounds - 1) * stages, multiple=stages)
                self.values.env[step] = loop.var
                now, counters = list(loop.phis[: len(totals)]), loop.phis[len(totals) :]
                for k in range(stages):
                    self._arrived(ahead - 1)
                    counters = self.following(counters)
                    following = derived("clamp", Ix.of(step) + (k + ahead), self.steps - 1)
                    self._copy(base + following, counters, (k + ahead) % stages)
                    now = self.products(k, now)
                loop.yields = (*now, *counters)
            totals, counters = list(loop.results[: len(totals)]), loop.results[len(totals) :]
        for k in range(rest):
            self._arrived(ahead - 1)
            if k + ahead < rest:
                counters = self.following(counters)
                self._copy(base + (rounds * stages + k + ahead), counters, k + ahead)
            totals = self.products(k, totals)
        return totals

    def _arrived(self, pending: int) -> None:
        """Wait until at most `pending` copies of steps are under way."""
        self.e.wait(pending)

    def _copy(self, step: Ix, counters: tuple[Value, ...], number: int, first: bool = False) -> None:
        left, right = self.memory[number]
        sums = self.place_in_sums(step, counters, first)
        self.left.copy(left, self.first_row, self.batch_points, sums)
        self.right.copy(right, self.first_column, self.batch_points, sums)

    def products(self, number: int, totals: list[Value]) -> list[Value]:
        left, right = self.memory[number]
        high, wide = self._high, self._wide
        parts = self._matrices(totals)
        self.e.epoch += 1
        for k in range(0, self.tile.depth, 2 * self.line):
            # Small pieces first, as their sums are small.
            for number in reversed(range(self.right.pieces)):
                columns = self._columns(right, k, number)
                for piece in reversed(range(self.left.pieces)):
                    rows = [self._load(self.left, left, self._row(i), k, ROWS, piece) for i in range(high)]
                    for i in range(high):
                        for j in range(wide):
                            parts[i][j] = self.e.mma(self.held, rows[i], columns[j], parts[i][j])
        return self._totals(parts)

    def _columns(self, memory: Param, step: int, number: int) -> list[tuple[Value, ...]]:
        """Matrices of the warp's columns, of piece `number`, for an instruction each."""
        columns: list[tuple[Value, ...]] = []
        for j in range(0, self._wide - 1, 2):  # two matrices at once
            four = self._load(self.right, memory, self._column(j), step, COLUMNS, number)
            columns += [four[:2], four[2:]]
        if self._wide % 2:
            columns.append(self._load(self.right, memory, self._column(self._wide - 1), step, COLUMN, number))
        return columns

    @staticmethod
    def _totals(parts: list[list[tuple[Value, ...]]]) -> list[Value]:
        """The elements of matrices of the warp, place by place."""
        return [four[2 * half + k] for row in parts for half in (0, 1) for four in row for k in (0, 1)]

    def _matrices(self, totals: list[Value]) -> list[list[tuple[Value, ...]]]:
        """The totals, place by place, as matrices of the warp."""
        width = 2 * self._wide

        def four(i: int, j: int) -> tuple[Value, ...]:
            return tuple(totals[(2 * i + half) * width + 2 * j + k] for half in (0, 1) for k in (0, 1))

        return [[four(i, j) for j in range(self._wide)] for i in range(self._high)]

    def _load(
        self, panel: Panel, memory: Param, element: Ix, step: int, corners: Corners, piece: int = 0
    ) -> tuple[Value, ...]:
        """Matrices of eight elements by a line of steps, each at one of `corners` from `element` and `step` on."""
        if self.held.itemsize == 4 and not panel.is_turned:
            return tuple(self._single(panel, memory, element + 8 * a, step + self.line * d) for a, d in corners)
        # A thread names a row of the matrix whose number it has.
        at = Ix(step)
        for var, (along, deeper) in zip((self.second, self.third), (corners[1], *corners[2:3]), strict=False):
            element += Ix.of(var, 8 * along) if along else Ix()
            at += Ix.of(var, self.line * deeper) if deeper else Ix()
        line = Ix.of(self.matrix_row)
        place = panel.at(element + line, at, piece) if panel.is_turned else panel.at(element, at + line, piece)
        index, _, offsets = self.values.address(place)
        assert offsets is not None
        return self.e.load_matrix(len(corners), memory, index, offsets, not panel.is_turned)

    def _single(self, panel: Panel, memory: Param, element: Ix, step: int) -> Value:
        """The thread's element of one matrix of f32 whose steps do not lie side by side."""
        pinned, self.e.pinned = self.e.pinned, True  # what was put there just now
        value = self.load(memory, panel.at(element + Ix.of(self.group_row), Ix.of(self.pair, 1, step)))
        self.e.pinned = pinned
        return self.e.op("bitcast", value, to=i32)
