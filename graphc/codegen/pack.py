"""The kernel that copies an operand of a contraction into panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from graphc.codegen.dealing import transposed
from graphc.codegen.kernel import INDEX, Affine, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.panels import Panel
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.target import Target
from graphc.ir.index import Var
from graphc.ir.types import i64

PIECES_PER_CORE = 2  # of work, at least
GROUP = 4  # tiles that one piece of work copies side by side: stretches of memory that a machine foresees


def lower_panel(panel: Panel, name: str, target: Target) -> Lowered:
    """The kernel that fills `panel`. Its parallel range covers the outer axes and groups of tiles."""
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
    packing = _Packing(panel, target, e, source, memory)
    packing.is_partial = not is_whole
    packing.steps_from(lambda read, write: packing.tile(first, read, write), packing.outer(outer), [])


def fill_block(
    panel: Panel,
    target: Target,
    e: ScopedEmitter,
    source: Param,
    memory: Param,
    tiles: tuple[Value, Value],
    outer: Mapping[Var, Value],
    part: tuple[Value | int, int] | None,
) -> None:
    """Emit the copy of a block of a near panel: so many tiles (second) from a number on (first), at these places of the
    outer axes, for the whole sum or so many steps (second) of a chunk of it from a step on (first).
    """
    packing = _Packing(panel, target, e, source, memory)
    read = packing.outer(outer)
    if part is not None and panel.chunk is not None:
        packing.count = part[1]
        step = panel.address.coefficient(panel.chunk.var)
        read.append((part[0] if isinstance(part[0], Value) else e.const(part[0], INDEX), step))
    packing.overlaps = True
    lo, count = tiles
    packing.tiles(count, lambda number: e.op("add", lo, number), read, [])


_Terms = list[tuple[Value, int]]
"""Indices with what one step of each adds to an address."""


@dataclass(frozen=True, slots=True)
class _Loop:
    """Steps of the sum at one distance in the operand (`read`) and in the panel (`write`). A loop whose steps go on
    where those of the next one end is one with it.

    `chunked` counts the steps in one step of the chunk; 0 where all of them are in the panel.
    """

    name: str
    steps: int
    read: int
    write: int
    chunked: int


def _loops(panel: Panel) -> list[_Loop]:
    """The loops of a panel, outermost first."""
    loops: list[_Loop] = []
    for var in reversed(panel.loops):
        read, write, steps = panel.address.coefficient(var), panel.stride(var), panel.steps(var)
        is_chunked = panel.chunk is not None and panel.chunk.var is var
        inner = loops[-1] if loops else None
        if (
            inner is not None
            and not inner.chunked
            and (read, write) == (inner.read * inner.steps, inner.write * inner.steps)
        ):
            chunked = inner.steps if is_chunked else 0
            loops[-1] = _Loop(inner.name, steps * inner.steps, inner.read, inner.write, chunked)
        else:
            loops.append(_Loop(var.name, steps, read, write, int(is_chunked)))
    return loops[::-1]


class _Packing:
    def __init__(self, panel: Panel, target: Target, e: ScopedEmitter, source: Param, out: Param) -> None:
        self.panel = panel
        self.e = e
        self.source = source
        self.out = out
        self.lanes = target.lanes(max(4, panel.memory.type.dtype.itemsize))
        self.cores = target.cores
        self.extent = panel.axis.hi + 1
        self.step = panel.address.coefficient(panel.axis)
        self.is_partial = False  # lanes past the end
        self.overlaps = False  # stores may write over what follows, which is filled later
        self.count = 0  # steps of the chunk
        self.loops = _loops(panel)
        self.along = self._along()

    def outer(self, places: Mapping[Var, Value]) -> _Terms:
        """Where in the operand these places of the outer axes lie."""
        return [(places[v], self.panel.address.coefficient(v)) for v in self.panel.outer]

    def run(self, name: str) -> Lowered:
        panel, e = self.panel, self.e
        grid = e.bind(Value(INDEX, "g"))
        # Tiles past the last whole one of the lane axis are filled with a mask, by a piece of their own.
        whole = self.extent // panel.width if panel.is_lane and self.along is None else panel.tiles
        group = GROUP if self.step == 1 else 1
        if self.cores > 1:
            group = max(1, min(group, whole // (self.cores * PIECES_PER_CORE)))
        groups = -(-whole // group)
        pieces = groups + (whole < panel.tiles)
        rest = grid
        read: _Terms = []
        write: _Terms = []
        number = e.op("mod", rest, pieces) if pieces > 1 else e.const(0, INDEX)
        rest = e.op("floordiv", rest, pieces) if pieces > 1 else rest
        for var in reversed(panel.outer):
            place = e.op("mod", rest, var.hi + 1)
            rest = e.op("floordiv", rest, var.hi + 1)
            read.append((place, panel.address.coefficient(var)))
            write.append((place, panel.stride(var)))
        lo = e.op("mul", number, group) if group > 1 else number
        if groups:
            count = e.op("minimum", e.op("sub", whole, lo), group) if whole % group else e.const(group, INDEX)
            with e.guard(e.op("lt", number, groups)) if pieces > groups else nullcontext():
                self.is_partial = panel.is_lane and whole * panel.width > self.extent
                self.tiles(count, lambda n: e.op("add", lo, n), read, [*write, (lo, panel.length)])
        if pieces > groups:
            with e.guard(e.op("eq", number, groups)):
                self.is_partial = True
                last = e.const(whole, INDEX)
                self.tiles(e.const(1, INDEX), lambda _: last, read, [*write, (last, panel.length)])
        size = panel.memory.type.size
        kernel = Kernel(
            name,
            (self.source, self.out),
            pieces * math.prod(v.hi + 1 for v in panel.outer),
            grid,
            tuple(e.body),
            size,
            panel.source.type.nbytes + panel.memory.type.nbytes,
        )
        return Lowered(kernel, (panel.source, panel.memory))

    def tiles(self, count: Value, number_of: Callable[[Value], Value], read: _Terms, write: _Terms) -> None:
        """Fill so many tiles, whose numbers are given by that function.

        Where elements of a tile lie side by side, so do those of the next one: a row of all tiles is read at once.
        """

        def each(read: _Terms, write: _Terms, inside: Callable[[Value, _Terms, _Terms], None]) -> None:
            with self.e.loop("tile", 0, count, 1) as loop:
                first = self.e.op("mul", number_of(loop.var), self.panel.width)
                if not self.panel.is_lane and self.extent % self.panel.width:
                    first = self.e.op("minimum", first, self.extent - self.panel.width)
                inside(first, read, [*write, (loop.var, self.panel.length)])

        if self.step == 1:
            self.steps_from(lambda r, w: each(r, w, self.tile), read, write)
        else:
            each(read, write, lambda first, r, w: self.steps_from(lambda r, w: self.tile(first, r, w), r, w))

    def tile(self, first: Value, read: _Terms, write: _Terms) -> None:
        """The steps that `steps_from` leaves, for the tile that begins at `first`."""
        if self.along is not None:
            self._turned(self.along, first, read, write)
        else:
            self._rows(first, read, write)

    def _steps(self, loop: _Loop) -> int:
        return self.count * loop.chunked if loop.chunked else loop.steps

    def _along(self) -> _Loop | None:
        """The loop along which elements are loaded as vectors, to be transposed in registers."""
        panel = self.panel
        along = next((v for v in self.loops if v.read == 1), None)
        if along is None or self.step == 1 or panel.source.dtype.itemsize not in (4, 8):
            return None
        is_long = panel.width * 2 >= self.lanes and along.steps >= self.lanes
        return along if is_long else None

    def steps_from(self, inside: Callable[[_Terms, _Terms], None], read: _Terms, write: _Terms) -> None:
        """Loop over all steps, but for those that are loaded as vectors."""
        ordered = [v for v in self.loops if v is not self.along]

        def nest(level: int, read: _Terms, write: _Terms) -> None:
            if level == len(ordered):
                inside(read, write)
                return
            over = ordered[level]
            with self.e.loop(over.name, 0, self._steps(over), 1) as loop:
                nest(level + 1, [*read, (loop.var, over.read)], [*write, (loop.var, over.write)])

        nest(0, read, write)

    def _rows(self, first: Value, read: _Terms, write: _Terms) -> None:
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

    def _turned(self, along: _Loop, first: Value, read: _Terms, write: _Terms) -> None:
        """Square blocks, loaded along the steps, transposed in registers and stored along the tile."""
        panel, e, lanes = self.panel, self.e, self.lanes
        rows = []
        for j in range(panel.width):
            row = e.op("add", first, j) if j else first
            if self.is_partial:  # the rows that fill up the last tile are never used
                row = e.op("minimum", row, self.extent - 1)
            rows.append(row)
        whole, tail = divmod(self._steps(along), lanes)

        def blocks(step: tuple[tuple[Value, int], ...], at: int, count: int, mask: Value | None) -> None:
            columns: list[list[Value]] = []
            for low in range(0, panel.width, lanes):
                here = rows[low : low + lanes]
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
                columns.append(transposed(e, loaded))
            to = (*write, *((v, along.write) for v, _ in step))
            # Where other loops lie inside, what follows the last of their steps was filled before.
            overlaps = self.overlaps and along.write == panel.width
            for k in range(count):  # in order, where each step writes over the beginning of the next one
                for part, low in enumerate(range(0, panel.width, lanes)):
                    left = panel.width - low
                    some = e.op("lt", e.lanes(i64, lanes), left) if left < lanes and not overlaps else None
                    value = expand_cast(e, columns[part][k], self.out.dtype)
                    e.store(self.out, Affine(low + (at + k) * along.write, to), value, 1, None, some)

        with e.loop(along.name, 0, whole * lanes, lanes) as loop:
            blocks(((loop.var, 1),), 0, lanes, None)
        if tail:
            blocks((), whole * lanes, tail, e.op("lt", e.lanes(i64, lanes), tail))
