"""Chains of contractions on a GPU: a block has rows of a large matrix, goes along them by tiles, and sums what it
computes from them, none of which is stored (T. Dao, "FlashAttention-2", 2023, has such kernels for attention).

A warp multiplies 16 rows with 16 steps at a time. The elements that its threads have of that product lie as an
instruction wants them that multiplies them further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

from graphc.codegen.gpu_chain_panels import ChainPanels, Four
from graphc.codegen.gpu_chain_tiles import (
    HIGH,
    key_of,
    place_of,
    width,
)
from graphc.codegen.gpu_contraction_block import loads_together, scattered
from graphc.codegen.gpu_contraction_problem import Points, moved
from graphc.codegen.kernel import INDEX, Kernel, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand, expand_cast
from graphc.codegen.sites import Site, store_address
from graphc.ir.access import Index
from graphc.ir.chains import Sum, is_bounded
from graphc.ir.demand import demands
from graphc.ir.index import Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.types import f32, i16, i32, identity, least

WIDE = 8  # columns of one instruction
COMBINED = {"reduce_sum": "add", "reduce_max": "maximum", "reduce_min": "minimum"}
Part = dict[tuple[int, ...], Value]  # a thread's elements of a sum


class ChainKernel(ChainPanels):
    """Emits the kernel of a chain."""

    def run(self, name: str) -> Lowered:
        e, chain = self.e, self.chain
        index = e.bind(Value(INDEX, "g"))
        blocks = self.begin(index)
        totals = self._totals(self._sum())
        self._store(totals)
        kernel = Kernel(
            name,
            tuple(self.params.values()),
            blocks,
            index,
            tuple(e.body),
            chain.flops,
            sum(node.type.nbytes for node in self.params),
            tuple(self.own),
            self.threads,
            aligned=self.is_aligned,
        )
        return Lowered(kernel, tuple(self.params))

    # the sum

    def _sum(self) -> list[Value]:
        """Go along the steps by tiles, while the next one is copied; what each thread has of the sums."""
        e, totals = self.e, self._zeros()
        lo, hi = self.range()
        first = Ix(lo) if isinstance(lo, int) else Ix.of(self.variable("first", lo, self.tiles - 1))
        self.copy_step(first, first)
        e.wait(0)
        self.held = [self.left_rows(number) for number in range(len(self.lefts))] if self.tile.holds else []
        if self.whole:
            with e.loop("step", lo, hi, 1, tuple(totals)) as loop:
                tile = self.variable("step", loop.var, self.whole - 1)
                following = Ix.of(tile) + 1
                self.copy_step(derived("clamp", following, self.tiles - 1), following)
                loop.yields = tuple(self._compute(Ix.of(tile), list(loop.phis)))
                e.wait(0)
            totals = list(loop.results)
        if not self.is_ragged:
            return totals
        last = Ix(self.tiles - 1)
        if self.chain.limits:  # tiles may have been left out, and so another one is there
            self.copy_step(last, last)
            e.wait(0)
        return self._compute(last, totals)

    def _zeros(self) -> list[Value]:
        """What the sums start from; behind these what powers are relative to, for each row."""
        type = VType(f32, self.threads)
        starts = [self.e.const(_start(one.stage), type) for one in self.chain.sums for _ in self._places(one)]
        if self.chain.top is None:
            return starts
        return [*starts, *[self.e.const(least(self.chain.top.dtype), type)] * len(self._shifts())]

    def _places(self, one: Sum) -> list[tuple[int, ...]]:
        """The elements of a sum that a thread has: matrix along the rows, half of it, and for contractions the matrix
        along the columns and one of two neighbours.
        """
        down = list(product(range(self.tile.high), (0, 1)))
        if one.right is None:
            return list(down)
        wide = (one.right.along.hi + 1) // WIDE
        return [(i, half, j, k) for (i, half), j, k in product(down, range(wide), (0, 1))]

    def _shifts(self) -> list[tuple[int, ...]]:
        """The rows of a thread, where powers are relative to their largest so far."""
        return list(product(range(self.tile.high), (0, 1))) if self.chain.top is not None else []

    def _parts(self, totals: list[Value]) -> tuple[list[Part], Part]:
        """The sums by their places, and the shifts."""
        rest = iter(totals)
        parts = [{place: next(rest) for place in self._places(one)} for one in self.chain.sums]
        return parts, {place: next(rest) for place in self._shifts()}

    def _compute(self, tile: Ix, totals: list[Value]) -> list[Value]:
        """Add what a tile of steps gives to the totals. Loads of neighbours stand together."""
        self.e.epoch += 1
        start = len(self.e.body)
        parts, shifts = self._parts(totals)
        every = range(self.tile.high)
        if self.chain.top is None:
            for first in range(0, self.tile.steps, HIGH):
                found = self._products(tile, first)
                for i in every:
                    self._terms(found[i], parts, i, tile, first)
        else:
            pinned, self.e.pinned = self.e.pinned, True  # what depends on the shift is another value in each tile
            whole = {first: self._products(tile, first) for first in range(0, self.tile.steps, HIGH)}
            for i in every:
                self._shift({first: found[i] for first, found in whole.items()}, parts, shifts, i, tile)
            for first, found in whole.items():
                for i in every:
                    self._terms(found[i], parts, i, tile, first, shifts)
            self.e.pinned = pinned
        self.e.body[start:] = loads_together(self.e.body[start:])
        return [value for part in (*parts, shifts) for value in part.values()]

    def _products(self, tile: Ix, first: int) -> list[list[list[Four]]]:
        """Of each of a warp's rows each product with 16 steps from `first` on: two matrices of 16 x 8."""
        zero = self.e.const(0.0, VType(f32, self.threads))
        every = range(self.tile.high)
        found: list[list[list[Four]]] = [[] for _ in every]
        for number, one in enumerate(self.chain.products):
            made = [[(zero,) * 4, (zero,) * 4] for _ in every]
            depths = range(0, width(one.right), HIGH)
            loads = [partial(self.steps_at, one, tile, first, depth) for depth in depths]
            for depth, columns in zip(depths, _early(loads), strict=True):
                for i in every:
                    rows = self.held[number][i][depth // HIGH] if self.tile.holds else self.left(number, i, depth)
                    for j in (0, 1):
                        made[i][j] = self.e.mma(one.left.leaf.dtype, rows, columns[2 * j : 2 * j + 2], made[i][j])
            for i in every:
                found[i].append(made[i])
        return found

    def _shift(self, found: Mapping[int, list[list[Four]]], parts: list[Part], shifts: Part, i: int, tile: Ix) -> None:
        """Find the largest x so far of rows `i`, and bring the sums of powers to what they are relative to it."""
        e = self.e
        number = next(n for n, one in enumerate(self.chain.sums) if one.stage is self.chain.top)
        top = self.chain.sums[number]
        for half in (0, 1):
            largest = parts[number][i, half]
            for first, products in found.items():
                for j, k in product((0, 1), (0, 1)):
                    term = self._term(top, products, (i, half), tile, first, (j, k))
                    largest = e.op("maximum", largest, term)
            for bits in (1, 2):  # the threads that share a row
                largest = e.op("maximum", largest, e.exchange(largest, bits))
            parts[number][i, half] = largest
            before = shifts[i, half]
            now = shifts[i, half] = self._shift_at(largest, (i, half), tile)
            e.is_quick = True
            power = expand(e, "exp", e.op("sub", before, now))
            e.is_quick = False
            factor = e.op("select", e.op("eq", before, now), e.const(1.0, power.type), power)
            for one, part in zip(self.chain.sums, parts, strict=True):
                if one.shift is not None:
                    part.update({at: e.op("mul", v, factor) for at, v in part.items() if at[:2] == (i, half)})

    def _shift_at(self, largest: Value, row: tuple[int, int], tile: Ix) -> Value:
        """What powers of a row are relative to if this is the largest x; a number also if all are -inf."""
        one = next(one for one in self.chain.sums if one.shift is not None)
        assert one.shift is not None
        node, at = one.shift
        at = _moved(at, self._points(row, self.steps.points(tile * self.tile.steps)))
        for stage, index in demands([(node, at)], self.nest.inside).stages:
            number = self.e.op("maximum", largest, least(stage.dtype))
            self.values.stages[stage, index] = expand_cast(self.e, number, stage.dtype)
        value = expand_cast(self.e, self.e.splat(self.values.at(node, at), self.threads), f32)
        self.values.stages.clear()
        return value

    def _terms(
        self,
        found: list[list[Four]],
        parts: list[Part],
        i: int,
        tile: Ix,
        first: int,
        shifts: Part | None = None,
    ) -> None:
        """Add the terms of 16 steps from `first` of a tile on, for the warp's rows `i`, to the sums."""
        for one, part in zip(self.chain.sums, parts, strict=True):
            if one.stage is not self.chain.top:
                self._add(one, part, found, i, tile, first, shifts)

    def _add(
        self,
        one: Sum,
        part: Part,
        found: list[list[Four]],
        i: int,
        tile: Ix,
        first: int,
        shifts: Part | None,
    ) -> None:
        """Add the terms of 16 steps from `first` of a tile on, for the warp's rows `i`, to a sum."""
        e = self.e
        terms = {
            (half, j, k): self._term(one, found, (i, half), tile, first, (j, k), shifts)
            for half, j, k in product((0, 1), (0, 1), (0, 1))
        }
        if one.right is None:
            for half, j, k in terms:
                part[i, half] = e.op(COMBINED[one.stage.op], part[i, half], terms[half, j, k])
            return
        rows = tuple(self._pair(terms[half, j, 0], terms[half, j, 1]) for j, half in product((0, 1), (0, 1)))
        right = one.right
        memory, start = self.panels[key_of(right)], self.stage(right, tile)
        wide = (right.along.hi + 1) // WIDE
        # Steps lie one after the other in memory: they are rows, which the instruction wants as columns.
        line = Ix.of(self.second, 8) + first + Ix.of(self.line)

        def columns(j: int) -> Four:
            column = Ix.of(self.third, 8) + WIDE * j if j + 1 < wide else Ix(WIDE * j)
            return self.load(right, memory, line, start + column, 4 if j + 1 < wide else 2, True)

        for j, loaded in zip(range(0, wide, 2), _early([partial(columns, j) for j in range(0, wide, 2)]), strict=True):
            for number in range(len(loaded) // 2):
                at = [(i, half, j + number, k) for half, k in product((0, 1), (0, 1))]
                made = e.mma(right.leaf.dtype, rows, loaded[2 * number : 2 * number + 2], tuple(part[p] for p in at))
                part.update(zip(at, made, strict=True))

    def _pair(self, low: Value, high: Value) -> Value:
        """Two 16-bit floats as the halves of an i32."""
        e = self.e
        first, second = (e.op("cast", e.op("bitcast", value, to=i16), to=i32) for value in (low, high))
        return e.op("or", e.op("and", first, 0xFFFF), e.op("shl", second, 16))

    def _term(
        self,
        one: Sum,
        found: list[list[Four]],
        row: tuple[int, int],
        tile: Ix,
        first: int,
        column: tuple[int, int],
        shifts: Part | None = None,
    ) -> Value:
        """The term of a sum at a thread's element of a product; nothing past the last step."""
        e, values, (j, k) = self.e, self.values, column
        step = tile * self.tile.steps + Ix.of(self.pair, 2) + (first + WIDE * j + k)
        exists = None
        if step.hi >= self.steps.length:
            exists = e.op("lt", values.index(step), self.steps.length)
            step = derived("clamp", step, self.steps.length - 1)
        at = _moved(one.at, self._points(row, self.steps.points(step)))
        for stage, index in demands([(one.term, at)], self.nest.inside).stages:
            if stage is self.chain.top:
                # The shift of a maximum that is a shift itself is that one.
                assert shifts is not None
                values.stages[stage, index] = expand_cast(e, shifts[row], stage.dtype)
                continue
            number = next(n for n, p in enumerate(self.chain.products) if p.stage is stage)
            values.stages[stage, index] = expand_cast(e, found[number][j][2 * row[1] + k], stage.dtype)
        # Of what 16 bits hold then, or what is at most 1, powers need not be exact to the last bit.
        e.is_quick = one.right is not None or one.shift is not None
        value = e.splat(values.at(one.term, at), self.threads)
        e.is_quick = False
        values.stages.clear()
        if one.right is None:
            value = expand_cast(e, value, f32)
        if exists is None:
            return value
        nothing = e.const(_start(one.stage), value.type)
        return e.op("select", e.splat(exists, self.threads), value, nothing)

    def _points(self, row: tuple[int, int], steps: Points) -> Points:
        """Where a thread's row and a step are."""
        return {**self.batch_points, **self.rows.points(self.row(*row)), **steps}

    # the results

    def _totals(self, totals: list[Value]) -> list[Part]:
        """The sums, of which threads that share a row have had a part each."""
        e, result = self.e, []
        parts, _ = self._parts(totals)
        for one, part in zip(self.chain.sums, parts, strict=True):
            if one.right is None and one.stage is not self.chain.top:
                for place in part:
                    for bits in (1, 2):
                        part[place] = e.op(COMBINED[one.stage.op], part[place], e.exchange(part[place], bits))
            result.append(self._without_numbers(one, part, parts))
        return result

    def _without_numbers(self, one: Sum, part: Part, parts: list[Part]) -> Part:
        """NaN where powers are relative to -inf, which they were not on the way."""
        if one.shift is None or self.chain.top is None or is_bounded(one.shift[0]):
            return part
        e = self.e
        number = next(n for n, other in enumerate(self.chain.sums) if other.stage is self.chain.top)
        made = {}
        for place, value in part.items():
            is_empty = e.op("eq", parts[number][place[:2]], -math.inf)
            made[place] = e.op("select", is_empty, e.const(math.nan, value.type), value)
        return made

    def _store(self, totals: list[Part]) -> None:
        """Compute and store the roots at each of the thread's places that exist."""
        of = {one.stage: (one, part) for one, part in zip(self.chain.sums, totals, strict=True)}
        for site in self.nest.sites:
            if site.root is not None:
                wanted = demands([(site.root.value, place_of(self.nest, site))], self.nest.inside).stages
                columns = {of[stage][0].right.along for stage, _ in wanted if of[stage][0].right is not None}  # type: ignore[union-attr]
                self._store_root(site, next(iter(columns), None), of)

    def _store_root(self, site: Site, column: Var | None, of: Mapping[Node, tuple[Sum, Part]]) -> None:
        """Store a root, at each element of a row or, if it has no column, once."""
        e = self.e
        wide = 1 if column is None else (column.hi + 1) // WIDE
        only = e.op("eq", self.values.index(Ix.of(self.pair)), 0) if column is None else None
        for i, half, j in product(range(self.tile.high), (0, 1), range(wide)):
            row = self.first_row + self.warp_row(i) + Ix.of(self.group_row) + half * (HIGH // 2)
            mask = only
            if row.hi >= self.rows.length:
                exists = e.op("lt", self.values.index(row), self.rows.length)
                mask = exists if mask is None else e.op("and", mask, exists)
            point = self._points((i, half), {})
            places: list[tuple[Points, tuple[int, ...]]] = [(point, (i, half))]
            if column is not None:
                neighbours = {k: Ix.of(self.pair, 2) + (WIDE * j + k) for k in (0, 1)}
                places = [({**point, column: ix}, (i, half, j, k)) for k, ix in neighbours.items()]
            self._store_at(site, places, of, mask)

    def _store_at(
        self,
        site: Site,
        places: Sequence[tuple[Points, tuple[int, ...]]],
        of: Mapping[Node, tuple[Sum, Part]],
        mask: Value | None,
    ) -> None:
        """Store a root at neighbours. Their loads stand together, and the stores come last."""
        e, values, root = self.e, self.values, site.root
        assert root is not None
        start = len(e.body)
        made = []
        for point, place in places:
            at = _moved(place_of(self.nest, site), point)
            values.stages.clear()
            for stage, index in demands([(root.value, at)], self.nest.inside).stages:
                one, part = of[stage]
                total = part[place if one.right is not None else place[:2]]
                values.stages[stage, index] = expand_cast(e, total, stage.dtype)
            made.append((at, e.splat(values.at(root.value, at), self.threads)))
        values.stages.clear()
        e.body[start:] = loads_together(e.body[start:])
        for at, value in made:
            index, offsets = scattered(values, store_address(root, at))
            e.store(self.params[root.target], index, value, 0, offsets, mask)


def _early(loads: Sequence[Callable[[], Four]]) -> Iterator[Four]:
    """What each of `loads` gives, the one after it loaded already."""
    following = loads[0]()
    for load in loads[1:]:
        loaded, following = following, load()
        yield loaded
    yield following


def _start(stage: Node) -> float:
    """What a sum, or extreme, starts from."""
    kind = {"contract": "sum"}.get(stage.op, stage.op.removeprefix("reduce_"))
    return float(identity(kind, f32))


def _moved(at: Index, points: Points) -> Index:
    return tuple(moved(ix, points) for ix in at)
