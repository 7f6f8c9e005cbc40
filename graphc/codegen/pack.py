"""The kernel that copies an operand of a contraction into panels."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.panels import Panel
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.codegen.values import transposed
from graphc.ir.index import Var
from graphc.ir.types import i64


def lower_panel(panel: Panel, name: str, target: Target) -> Lowered:
    """The kernel that fills `panel`. Its parallel range covers the outer axes and the tiles."""
    source = Param("p0", panel.source.dtype, panel.source.type.size, "in")
    out = Param("p1", panel.memory.type.dtype, panel.memory.type.size, "out")
    return _Packing(panel, target, ScopedEmitter(), source, out).run(name)


def fill_near(
    panel: Panel,
    target: Target,
    e: ScopedEmitter,
    source: Param,
    memory: Param,
    first: Value,
    outer: Mapping[Var, Value],
    is_whole: bool,
) -> None:
    """Emit the copy of one tile of a near panel: that which begins at `first`, at these places of the outer axes."""
    _Packing(panel, target, e, source, memory).tile(first, outer, is_whole)


class _Packing:
    def __init__(self, panel: Panel, target: Target, e: ScopedEmitter, source: Param, out: Param) -> None:
        self.panel = panel
        self.e = e
        self.source = source
        self.out = out
        self.lanes = target.lanes(max(4, panel.memory.type.dtype.itemsize))
        self.extent = panel.axis.hi + 1
        self.step = panel.address.coefficient(panel.axis)
        self.is_partial = panel.is_lane and self.extent % panel.width != 0  # lanes past the end

    def tile(self, first: Value, outer: Mapping[Var, Value], is_whole: bool) -> None:
        """Fill the memory with the tile that begins at `first`, at these places of the outer axes."""
        self.is_partial = not is_whole
        read = [(outer[v], self.panel.address.coefficient(v)) for v in self.panel.outer]
        self._loops(list(self.panel.loops), first, read, [])

    def run(self, name: str) -> Lowered:
        panel, e = self.panel, self.e
        grid = e.bind(Value(INDEX, "g"))
        rest, read, write = grid, [], []
        tile = e.op("mod", rest, panel.tiles) if panel.tiles > 1 else e.const(0, INDEX)
        rest = e.op("floordiv", rest, panel.tiles) if panel.tiles > 1 else rest
        for var in reversed(panel.outer):
            place = e.op("mod", rest, var.hi + 1)
            rest = e.op("floordiv", rest, var.hi + 1)
            read.append((place, panel.address.coefficient(var)))
            write.append((place, panel.stride(var)))
        write.append((tile, panel.length))
        first = e.op("mul", tile, panel.width)
        if not panel.is_lane and self.extent % panel.width:
            first = e.op("minimum", first, self.extent - panel.width)
        self._loops(list(panel.loops), first, read, write)
        size = panel.memory.type.size
        count = panel.tiles * math.prod(v.hi + 1 for v in panel.outer)
        moved = panel.source.type.nbytes + panel.memory.type.nbytes
        kernel = Kernel(name, (self.source, self.out), count, grid, tuple(e.body), size, moved)
        return Lowered(kernel, (panel.source, panel.memory))

    def _loops(
        self, loops: list[Var], first: Value, read: list[tuple[Value, int]], write: list[tuple[Value, int]]
    ) -> None:
        """Loop over all but one of the steps, then copy along that one."""
        panel, e = self.panel, self.e
        along = next((v for v in loops if panel.address.coefficient(v) == 1), None)
        turn = (
            along is not None
            and self.step != 1
            and panel.width * 2 >= self.lanes
            and along.hi + 1 >= self.lanes
            and panel.source.dtype.itemsize == 4
        )
        ordered = [v for v in loops if v is not along or not turn]

        def nest(level: int, read: list[tuple[Value, int]], write: list[tuple[Value, int]]) -> None:
            if level == len(ordered):
                if turn:
                    assert along is not None
                    self._turned(along, first, read, write)
                else:
                    self._rows(first, read, write)
                return
            var = ordered[level]
            with e.loop(var.name, 0, var.hi + 1, 1) as loop:
                nest(
                    level + 1,
                    [*read, (loop.var, panel.address.coefficient(var))],
                    [*write, (loop.var, panel.stride(var))],
                )

        nest(0, read, write)

    def _rows(self, first: Value, read: list[tuple[Value, int]], write: list[tuple[Value, int]]) -> None:
        """The elements of one step: vectors along the tile where they lie side by side, else one by one.

        What is left after whole vectors goes by halves of them: storing a part of a vector is slow on some processors.
        """
        panel, e = self.panel, self.e
        start = [(first, self.step)]
        low = 0
        while low < panel.width:
            count = min(self.lanes, 1 << (panel.width - low).bit_length() - 1)
            if count < self.lanes and self.step != 1:
                count = 1
            mask = None
            if self.is_partial:
                mask = e.op("lt", e.lanes(i64, count), e.op("sub", self.extent - low, first))
            place = Affine(panel.address.const + low * self.step, (*read, *start))
            step = self.step if count > 1 else 0
            value = e.load(VType(panel.source.dtype, count), self.source, place, step, None, mask)
            stored = expand_cast(e, value, self.out.dtype)
            e.store(self.out, Affine(low, tuple(write)), stored, min(count - 1, 1), None, None)
            low += count

    def _turned(self, along: Var, first: Value, read: list[tuple[Value, int]], write: list[tuple[Value, int]]) -> None:
        """Square blocks, loaded along the steps, transposed in registers and stored along the tile."""
        panel, e, lanes = self.panel, self.e, self.lanes
        rows = []
        for j in range(panel.width):
            row = e.op("add", first, j) if j else first
            if self.is_partial:  # the rows that fill up the last tile are never used
                row = e.op("minimum", row, self.extent - 1)
            rows.append(row)
        whole, tail = divmod(along.hi + 1, lanes)

        def blocks(step: tuple[tuple[Value, int], ...], at: int, count: int, mask: Value | None) -> None:
            for low in range(0, panel.width, lanes):
                here = rows[low : low + lanes]
                part = e.op("lt", e.lanes(i64, lanes), len(here)) if len(here) < lanes else None
                here += here[-1:] * (lanes - len(here))
                loaded = [
                    e.load(
                        VType(panel.source.dtype, lanes),
                        self.source,
                        Affine(panel.address.const + at, (*read, (row, self.step), *step)),
                        1,
                        None,
                        mask,
                    )
                    for row in here
                ]
                for k, value in enumerate(transposed(e, loaded)[:count]):
                    to = (*write, *((v, panel.stride(along)) for v, _ in step))
                    place = Affine(low + (at + k) * panel.stride(along), to)
                    e.store(self.out, place, expand_cast(e, value, self.out.dtype), 1, None, part)

        with e.loop(along.name, 0, whole * lanes, lanes) as loop:
            blocks(((loop.var, 1),), 0, lanes, None)
        if tail:
            blocks((), whole * lanes, tail, e.op("lt", e.lanes(i64, lanes), tail))
