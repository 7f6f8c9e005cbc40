"""Chains of contractions on a GPU: a block has rows of a large matrix, goes along them by tiles, and sums what it
computes from them, none of which is stored (T. Dao, "FlashAttention-2", 2023, has such kernels for attention).

A warp multiplies 16 rows with 16 steps at a time. The elements that its threads have of that product lie as an
instruction wants them that multiplies them further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from graphc.codegen.gpu_chain_tiles import (
    APART,
    HIGH,
    STAGES,
    ChainTiling,
    key_of,
    panel_size,
    right_matrices,
    width,
)
from graphc.codegen.gpu_contraction_block import loads_together, moved_axis, parameters, scattered
from graphc.codegen.gpu_contraction_problem import Flat, Points, moved
from graphc.codegen.kernel import INDEX, AsyncCopy, Kernel, Param, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import root_index, store_address
from graphc.codegen.target import WARP
from graphc.codegen.values import Values
from graphc.ir.access import Index
from graphc.ir.chains import ALIGNED, Matrix, Product, Sum
from graphc.ir.demand import demands
from graphc.ir.index import Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.schedule import Group
from graphc.ir.types import f32, i16, i32, i64, identity

WIDE = 8  # columns of one instruction
QUAD = 4  # threads that share a row of an instruction's matrix
OPEN = 63  # groups of copies: more than are ever under way
Four = tuple[Value, ...]  # a thread's elements of a matrix of 16 x 8


class ChainKernel:
    """Emits the kernel of a chain."""

    def __init__(self, group: Group, tiling: ChainTiling, merged: Mapping[Node, Node]) -> None:
        self.group = group
        self.chain, self.nest, self.tile = tiling.chain, tiling.nest, tiling.tile
        self.e = e = ScopedEmitter()
        self.merged = merged
        self.params = parameters(group, self.nest, merged, stores=True)
        self.values = Values(e, self.nest.inside, self.params)
        self.threads = self.values.lane_count = self.tile.threads
        self.rows, self.steps, self.batch = map(Flat, (self.chain.rows, self.chain.steps, self.chain.batch))
        self.tiles = -(-self.steps.length // self.tile.steps)
        self.is_ragged = self.steps.length % self.tile.steps > 0
        self.own: list[Param] = []
        lane = e.lanes(i64, self.threads)
        mine = e.op("urem", lane, WARP)
        self.warp = self._variable("warp", e.op("udiv", lane, WARP), self.threads // WARP - 1)
        self.group_row = self._variable("row", e.op("udiv", mine, QUAD), 7)
        self.pair = self._variable("pair", e.op("urem", mine, QUAD), QUAD - 1)
        # A thread names a row of one of four matrices, two by two.
        self.line = self._variable("line", e.op("urem", mine, 8), 7)
        self.second = self._variable("second", e.op("urem", e.op("udiv", mine, 8), 2), 1)
        self.third = self._variable("third", e.op("udiv", mine, 16), 1)

    def _variable(self, name: str, value: Value, hi: int) -> Var:
        """An index variable that is `value` in each thread, at most `hi`."""
        var = Var(name, hi)
        self.values.env[var] = value
        return var

    def _memory(self, name: str, matrix: Matrix, lines: int) -> Param:
        """Shared memory for `lines` lines of a matrix."""
        memory = Param(name, matrix.leaf.dtype, panel_size(matrix, lines), "own")
        self.own.append(memory)
        return memory

    def run(self, name: str) -> Lowered:
        e, chain = self.e, self.chain
        index = e.bind(Value(INDEX, "g"))
        down = -(-self.rows.length // self.tile.rows)
        place, number = (e.op("floordiv", index, down), e.op("mod", index, down)) if down > 1 else (index, None)
        self.first_row = Ix() if number is None else Ix.of(self._variable("rows", number, down - 1), self.tile.rows)
        self.batch_points = self.batch.points(Ix.of(self._variable("batch", place, self.batch.length - 1)))
        rights = right_matrices(chain)
        self.panels = [
            {key: self._memory(f"steps{k}_{n}", m, self.tile.steps) for n, (key, m) in enumerate(rights.items())}
            for k in range(min(STAGES, self.tiles))
        ]
        self.rights = rights
        self.lefts = [self._memory(f"rows{n}", p.left, self.tile.rows) for n, p in enumerate(chain.products)]
        for memory, one in zip(self.lefts, chain.products, strict=True):
            self._copy(memory, one.left, self.tile.rows, self.rows, self.first_row, fills=False)
        self._copy_step(Ix(), 0)
        totals = self._totals(self._sum())
        self._store(totals)
        params = tuple(dict.fromkeys(self.params.values()))
        seen: dict[Param, Node] = {}
        buffers = tuple(node for node, p in self.params.items() if seen.setdefault(p, node) is node)
        moved_bytes = sum(b.type.nbytes for b in buffers)
        kernel = Kernel(
            name,
            params,
            down * self.batch.length,
            index,
            tuple(e.body),
            chain.flops,
            moved_bytes,
            tuple(self.own),
            self.threads,
            aligned=True,
        )
        return Lowered(kernel, buffers)

    # copying

    def _copy(self, memory: Param, matrix: Matrix, lines: int, side: Flat, first: Ix, fills: bool) -> None:
        """Begin to copy `lines` lines of a matrix, from `first` of its side on. Past its end come zeros if it `fills`
        these, otherwise anything.
        """
        e, values = self.e, self.values
        pieces, extent = width(matrix) // ALIGNED, matrix.along.hi + 1
        lane = Ix.of(self._variable("lane", e.lanes(i64, self.threads), self.threads - 1))
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
            index, _, offsets = values.address(line * (width(matrix) + APART) + piece * ALIGNED)
            source_index, source_offsets = scattered(values, source)
            mask: Value | None = None
            for ix, limit in conditions:
                holds = e.splat(e.op("lt", values.index(ix), limit), self.threads)
                mask = holds if mask is None else e.op("and", mask, holds)
            assert offsets is not None
            buffer = values.buffers[matrix.leaf]
            e.copy(AsyncCopy(memory, index, offsets, buffer, source_index, source_offsets, ALIGNED, mask))

    def _copy_step(self, tile: Ix, number: int) -> None:
        """Begin to copy all that tile number `tile` of the steps is multiplied with."""
        for key, memory in self.panels[number].items():
            first = tile * self.tile.steps
            self._copy(memory, self.rights[key], self.tile.steps, self.steps, first, fills=self.is_ragged)

    # the sum

    def _sum(self) -> list[Value]:
        """Go along the steps; what each of the sums has in each thread."""
        e = self.e
        e.wait(0)
        self.held = [self._left_rows(number) for number in range(len(self.lefts))] if self.tile.holds else []
        totals = self._zeros()
        whole = self.tiles - 1  # the last one is computed by itself, as there is nothing more to copy
        stages = len(self.panels)
        rounds, rest = divmod(whole, stages)
        if rounds:
            with e.loop("step", 0, rounds * stages, stages, tuple(totals)) as loop:
                step = Var("step", (rounds - 1) * stages, multiple=stages)
                self.values.env[step] = loop.var
                now = list(loop.phis)
                for k in range(stages):
                    now = self._step(Ix.of(step) + k, k, now)
                loop.yields = tuple(now)
            totals = list(loop.results)
        for k in range(rest):
            totals = self._step(Ix(rounds * stages + k), k, totals)
        return self._compute(Ix(whole), self.panels[whole % stages], totals)

    def _step(self, tile: Ix, number: int, totals: list[Value]) -> list[Value]:
        """Compute a tile while the next one is copied."""
        self._copy_step(tile + 1, (number + 1) % len(self.panels))
        totals = self._compute(tile, self.panels[number], totals)
        self.e.wait(0)
        return totals

    def _zeros(self) -> list[Value]:
        """What the sums start from."""
        return [
            self.e.const(_start(one.stage), VType(f32, self.threads))
            for one in self.chain.sums
            for _ in self._places(one)
        ]

    def _places(self, one: Sum) -> list[tuple[int, ...]]:
        """The elements of a sum that a thread has: matrix along the rows, half of it, and for contractions the matrix
        along the columns and one of two neighbours.
        """
        down = product(range(self.tile.high), (0, 1))
        if one.right is None:
            return list(down)
        wide = (one.right.along.hi + 1) // WIDE
        return [(i, half, j, k) for (i, half), j, k in product(list(down), range(wide), (0, 1))]

    def _compute(self, tile: Ix, panels: Mapping[tuple[object, ...], Param], totals: list[Value]) -> list[Value]:
        """Add what a tile of steps gives to the totals."""
        self.e.epoch += 1
        parts: list[dict[tuple[int, ...], Value]] = []
        rest = iter(totals)
        for one in self.chain.sums:
            parts.append({place: next(rest) for place in self._places(one)})
        for first in range(0, self.tile.steps, HIGH):
            rights = [self._products_steps(p, panels[key_of(p.right)], first) for p in self.chain.products]
            for i in range(self.tile.high):
                found = [self._multiply(number, i, rights[number]) for number in range(len(rights))]
                for one, part in zip(self.chain.sums, parts, strict=True):
                    self._add(one, part, found, i, tile, first, panels)
        return [value for part in parts for value in part.values()]

    def _multiply(self, number: int, i: int, steps: list[list[Four]]) -> list[Four]:
        """The product of a warp's rows `i` with 16 steps: two matrices of 16 x 8."""
        one = self.chain.products[number]
        zero = self.e.const(0.0, VType(f32, self.threads))
        result = [(zero,) * 4, (zero,) * 4]
        for depth, columns in enumerate(steps):
            rows = self.held[number][i][depth] if self.tile.holds else self._left(number, i, depth * HIGH)
            for j in (0, 1):
                result[j] = self.e.mma(one.left.leaf.dtype, rows, columns[j], result[j])
        return result

    def _add(
        self,
        one: Sum,
        part: dict[tuple[int, ...], Value],
        found: list[list[Four]],
        i: int,
        tile: Ix,
        first: int,
        panels: Mapping[tuple[object, ...], Param],
    ) -> None:
        """Add the terms of 16 steps from `first` of a tile on, for the warp's rows `i`, to a sum."""
        e = self.e
        terms = {
            (half, j, k): self._term(one, found, (i, half), tile, first, (j, k))
            for half, j, k in product((0, 1), (0, 1), (0, 1))
        }
        if one.right is None:
            for half, j, k in terms:
                name = {"reduce_sum": "add", "reduce_max": "maximum", "reduce_min": "minimum"}[one.stage.op]
                part[i, half] = e.op(name, part[i, half], terms[half, j, k])
            return
        rows = tuple(self._pair(terms[half, j, 0], terms[half, j, 1]) for j, half in product((0, 1), (0, 1)))
        memory = panels[key_of(one.right)]
        wide = (one.right.along.hi + 1) // WIDE
        for j in range(0, wide, 2):
            count = 4 if j + 1 < wide else 2
            # Steps lie one after the other in memory: they are rows, which the instruction wants as columns.
            line = Ix.of(self.second, 8) + first + Ix.of(self.line)
            loaded = self._load(
                one.right, memory, line, Ix.of(self.third, 8) + WIDE * j if count == 4 else Ix(WIDE * j), count, True
            )
            for number in range(count // 2):
                at = [(i, half, j + number, k) for half, k in product((0, 1), (0, 1))]
                made = e.mma(
                    one.right.leaf.dtype, rows, loaded[2 * number : 2 * number + 2], tuple(part[p] for p in at)
                )
                part.update(zip(at, made, strict=True))

    def _pair(self, low: Value, high: Value) -> Value:
        """Two 16-bit floats as the halves of an i32."""
        e = self.e
        first, second = (e.op("cast", e.op("bitcast", value, to=i16), to=i32) for value in (low, high))
        return e.op("or", e.op("and", first, 0xFFFF), e.op("shl", second, 16))

    def _term(
        self, one: Sum, found: list[list[Four]], row: tuple[int, int], tile: Ix, first: int, column: tuple[int, int]
    ) -> Value:
        """The term of a sum at a thread's element of a product; nothing past the last step."""
        e, values, (j, k) = self.e, self.values, column
        step = tile * self.tile.steps + Ix.of(self.pair, 2) + (first + WIDE * j + k)
        exists = None
        if step.hi >= self.steps.length:
            exists = e.op("lt", values.index(step), self.steps.length)
            step = derived("clamp", step, self.steps.length - 1)
        points = {**self.batch_points, **self.rows.points(self._row(*row)), **self.steps.points(step)}
        at = _moved(one.at, points)
        values.stages.clear()
        for stage, index in demands([(one.term, at)], self.nest.inside).stages:
            number = next(n for n, p in enumerate(self.chain.products) if p.stage is stage)
            values.stages[stage, index] = expand_cast(e, found[number][j][2 * row[1] + k], stage.dtype)
        value = e.splat(values.at(one.term, at), self.threads)
        values.stages.clear()
        if one.right is None:
            value = expand_cast(e, value, f32)
        if exists is None:
            return value
        nothing = e.const(_start(one.stage), value.type)
        return e.op("select", e.splat(exists, self.threads), value, nothing)

    def _row(self, i: int, half: int) -> Ix:
        """A thread's row on the side of the rows; the last one where there is none."""
        ix = self.first_row + self._warp_row(i) + Ix.of(self.group_row) + half * (HIGH // 2)
        return derived("clamp", ix, self.rows.length - 1)

    def _warp_row(self, i: int) -> Ix:
        """The first of a warp's rows `i` in its block."""
        return Ix.of(self.warp, self.tile.high * HIGH) + i * HIGH

    # matrices

    def _left_rows(self, number: int) -> list[list[Four]]:
        """All that a warp multiplies steps with: for each of its matrices along the rows, and along the depth."""
        depth = width(self.chain.products[number].left)
        return [[self._left(number, i, d) for d in range(0, depth, HIGH)] for i in range(self.tile.high)]

    def _left(self, number: int, i: int, depth: int) -> Four:
        line = self._warp_row(i) + Ix.of(self.second, 8) + Ix.of(self.line)
        matrix = self.chain.products[number].left
        return self._load(matrix, self.lefts[number], line, Ix.of(self.third, 8) + depth, 4, False)

    def _products_steps(self, one: Product, memory: Param, first: int) -> list[list[Four]]:
        """16 steps from `first` on, for each 16 of the depth: two matrices of 8 columns."""
        result = []
        for depth in range(0, width(one.right), HIGH):
            line = Ix.of(self.third, 8) + first + Ix.of(self.line)
            four = self._load(one.right, memory, line, Ix.of(self.second, 8) + depth, 4, False)
            result.append([four[:2], four[2:]])
        return result

    def _load(self, matrix: Matrix, memory: Param, line: Ix, place: Ix, count: int, transposed: bool) -> Four:
        """`count` matrices of 8 x 8, of which the thread names a row."""
        index, _, offsets = self.values.address(line * (width(matrix) + APART) + place)
        assert offsets is not None
        return self.e.load_matrix(count, memory, index, offsets, transposed)

    # the results

    def _totals(self, totals: list[Value]) -> list[dict[tuple[int, ...], Value]]:
        """The sums, of which threads that share a row have had a part each."""
        rest = iter(totals)
        result = []
        for number, one in enumerate(self.chain.sums):
            part = {place: next(rest) for place in self._places(one)}
            result.append(part if one.right is not None else self._shared(number, one, part))
        return result

    def _shared(self, number: int, one: Sum, part: dict[tuple[int, ...], Value]) -> dict[tuple[int, ...], Value]:
        e, values = self.e, self.values
        memory = Param(f"parts{number}", f32, self.tile.rows * QUAD, "own")
        self.own.append(memory)

        def place(i: int, half: int, lane: Ix) -> Ix:
            return (self._warp_row(i) + Ix.of(self.group_row) + half * (HIGH // 2)) * QUAD + lane

        for (i, half), value in part.items():
            index, stride, offsets = values.address(place(i, half, Ix.of(self.pair)))
            e.store(memory, index, value, stride, offsets, None)
        name = {"reduce_sum": "add", "reduce_max": "maximum", "reduce_min": "minimum"}[one.stage.op]
        pinned, e.pinned = e.pinned, True
        e.epoch += 1
        result = {}
        for i, half in part:
            total: Value | None = None
            for lane in range(QUAD):
                index, stride, offsets = values.address(place(i, half, Ix(lane)))
                value = e.load(VType(f32, self.threads), memory, index, stride, offsets, None)
                total = value if total is None else e.op(name, total, value)
            assert total is not None
            result[i, half] = total
        e.pinned = pinned
        return result

    def _store(self, totals: list[dict[tuple[int, ...], Value]]) -> None:
        """Compute and store the roots at each of the thread's places that exist."""
        e = self.e
        of = {one.stage: part for one, part in zip(self.chain.sums, totals, strict=True)}
        by_columns = self.chain.sums[0].right
        wide = 1 if by_columns is None else (by_columns.along.hi + 1) // WIDE
        only = e.op("eq", self.values.index(Ix.of(self.pair)), 0) if by_columns is None else None
        for i, half, j in product(range(self.tile.high), (0, 1), range(wide)):
            row = self.first_row + self._warp_row(i) + Ix.of(self.group_row) + half * (HIGH // 2)
            mask = only
            if row.hi >= self.rows.length:
                exists = e.op("lt", self.values.index(row), self.rows.length)
                mask = exists if mask is None else e.op("and", mask, exists)
            point = {**self.batch_points, **self.rows.points(self._row(i, half))}
            places: list[tuple[Points, tuple[int, ...]]] = [(point, (i, half))]
            if by_columns is not None:
                (column,) = self.chain.columns
                places = [({**point, column: Ix.of(self.pair, 2) + (WIDE * j + k)}, (i, half, j, k)) for k in (0, 1)]
            self._store_at(places, of, mask)

    def _store_at(
        self,
        places: Sequence[tuple[Points, tuple[int, ...]]],
        of: Mapping[Node, Mapping[tuple[int, ...], Value]],
        mask: Value | None,
    ) -> None:
        """Store the roots at neighbours. Their loads stand together, and the stores come last."""
        e, values = self.e, self.values
        start = len(e.body)
        roots = [s.root for s in self.nest.sites if s.root is not None]
        made = []
        for point, place in places:
            at_axes = tuple(moved_axis(ix, point) for ix in self.nest.place)
            indices = [root_index(root, at_axes, {}) for root in roots]
            values.stages.clear()
            for root, at in zip(roots, indices, strict=True):
                for stage, index in demands([(root.value, at)], self.nest.inside).stages:
                    values.stages[stage, index] = expand_cast(e, of[stage][place], stage.dtype)
            made.append(
                [(at, e.splat(values.at(r.value, at), self.threads)) for r, at in zip(roots, indices, strict=True)]
            )
        values.stages.clear()
        e.body[start:] = loads_together(e.body[start:])
        for number, root in enumerate(roots):
            for results in made:
                at, value = results[number]
                index, offsets = scattered(values, store_address(root, at))
                e.store(self.params[root.target], index, value, 0, offsets, mask)


def _start(stage: Node) -> float:
    """What a sum, or extreme, starts from."""
    kind = {"contract": "sum"}.get(stage.op, stage.op.removeprefix("reduce_"))
    return float(identity(kind, f32))


def _moved(at: Index, points: Points) -> Index:
    return tuple(moved(ix, points) for ix in at)
