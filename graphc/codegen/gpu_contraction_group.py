"""Contractions of 16-bit floats on a GPU by products of lines, with which four warps together multiply matrices that
they need not load: while a step is multiplied, the next ones come, and the one before may still be in work.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.gpu_contraction_matrix import HIGH, MatrixKernel
from graphc.codegen.gpu_contraction_problem import Problem
from graphc.codegen.gpu_contraction_tiles import GroupTile
from graphc.codegen.kernel import Value
from graphc.codegen.target import WARP
from graphc.ir.index import Ix
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch
from graphc.ir.types import i64

ROWS = 4 * HIGH  # of one product


class GroupKernel(MatrixKernel):
    """Each group of four warps computes a part of the tile, in products of 64 rows."""

    late = 1
    product_rows = ROWS
    has_lines = True

    def __init__(
        self,
        group: Group,
        problem: Problem,
        tile: GroupTile,
        merged: Mapping[Node, Node],
        partial: Scratch | None,
        resident: int,
    ) -> None:
        super().__init__(group, problem, tile, merged, partial, resident)
        e = self.e
        warp = e.op("urem", e.op("udiv", e.lanes(i64, self.threads), WARP), ROWS // HIGH)
        self.warp = self.variable("warp", warp, ROWS // HIGH - 1)

    def _row(self, number: int) -> Ix:
        """The first row of a warp in the group's product number `number`."""
        return self._product_row(number) + Ix.of(self.warp, HIGH)

    def sum(self) -> list[Value]:
        return list(self.e.wait_groups(0, tuple(super().sum())))

    def _arrived(self, pending: int) -> None:
        # What is copied next takes the place of a step that all but the last products of each group are done with.
        super()._arrived(pending)
        self.e.wait_groups(self.late * self._high)

    def products(self, number: int, totals: list[Value]) -> list[Value]:
        left, right = self.memory[number]
        columns = self.right.lines(right, self._column(0))
        parts = self._matrices(totals)
        for i, part in enumerate(parts):
            rows = self.left.lines(left, self._product_row(i))
            sums = self.e.group_mma(rows, columns, tuple(value for four in part for value in four))
            parts[i] = [sums[j : j + 4] for j in range(0, len(sums), 4)]
        return self._totals(parts)
