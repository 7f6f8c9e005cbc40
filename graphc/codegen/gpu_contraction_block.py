"""What the kernels of a contraction on a GPU have in common: which block computes what, how the sum is cut into steps,
and what the group computes from the sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product

from graphc.codegen.gpu_contraction_panels import Panel, Sums, within
from graphc.codegen.gpu_contraction_problem import Flat, Points, Problem
from graphc.codegen.gpu_contraction_steps import cut_sums
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile
from graphc.codegen.kernel import INDEX, Affine, Kernel, Load, Param, Stmt, Value, VType
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Nest, root_index, store_address
from graphc.codegen.values import Values, accumulator_dtype
from graphc.ir.access import Index
from graphc.ir.demand import demands
from graphc.ir.index import Ix, Var, derived
from graphc.ir.node import Node
from graphc.ir.schedule import Group, Scratch
from graphc.ir.types import i64

GROUP = 8  # rows of tiles that are gone through together, so that the operands' tiles are read from the cache


def parameters(group: Group, nest: Nest, merged: Mapping[Node, Node], stores: bool) -> dict[Node, Param]:
    """A parameter for each buffer that the group reads (and writes, if it `stores`); a merged target shares its
    operand's.
    """
    targets = set(group.targets)
    taken = set(merged.values())
    used = dict.fromkeys(a.buffer for s in nest.sites for a in s.accesses if stores or s.stage is not None)
    params: dict[Node, Param] = {}
    for node in sorted(used, key=targets.__contains__):
        if node not in merged:
            mode = "out" if node in targets else "inout" if node in taken else "in"
            params[node] = Param(f"p{len(params)}", node.dtype, node.type.size, mode)
    params.update((target, params[operand]) for target, operand in merged.items() if operand in params)
    return params


class Epilogue:
    """Computes and stores what the group wants at points where the contraction is known."""

    def __init__(self, group: Group, problem: Problem, values: Values, params: Mapping[Node, Param]) -> None:
        self.group = group
        self.problem = problem
        self.values = values
        self.params = params
        self.roots = [s.root for s in problem.nest.sites if s.root is not None]

    def finish(self, places: Sequence[tuple[Points, list[Value], Value | None]]) -> None:
        """All roots at points, given the contraction's elements that each wants; stored where its mask holds.

        Loads of neighbours stand together, and the stores come last, those of a root one after the other: they may be
        one access.
        """
        e = self.values.e
        start = len(e.body)
        computed = [self._roots_at(point, sums) for point, sums, _ in places]
        e.body[start:] = loads_together(e.body[start:])
        for number, root in enumerate(self.roots):
            for results, (_, _, mask) in zip(computed, places, strict=True):
                at, value = results[number]
                index, offsets = scattered(self.values, store_address(root, at))
                e.store(self.params[root.target], index, value, 0, offsets, mask)

    def _roots_at(self, point: Points, sums: list[Value]) -> list[tuple[Index, Value]]:
        """The index and the value of each root at `point`."""
        values, e = self.values, self.values.e
        place = tuple(moved_axis(ix, point) for ix in self.problem.nest.place)
        indices = [root_index(root, place, {}) for root in self.roots]
        wanted: dict[Index, None] = {}
        for root, at in zip(self.roots, indices, strict=True):
            found = demands([(root.value, at)], self.problem.nest.inside)
            wanted.update(dict.fromkeys(index for _, index in found.stages))
        stage = self.problem.stage
        values.stages.clear()
        for index, total in zip(wanted, sums, strict=True):
            values.stages[stage, index] = expand_cast(e, total, stage.dtype)
        return [
            (at, e.splat(values.at(root.value, at), values.lane_count))
            for root, at in zip(self.roots, indices, strict=True)
        ]


def moved_axis(ix: Ix, point: Points) -> Ix:
    """The index of an axis of the group's domain at `point`; one axis of the nest or 0."""
    return point[ix.terms[0][0]] if ix.terms else ix  # type: ignore[index]


class BlockKernel:
    """Emits the kernel of `problem` in tiles. With `partial` memory each block stores its part of the sums there."""

    run_length = 1  # neighbours along the rows or columns that a thread computes

    def __init__(
        self,
        group: Group,
        problem: Problem,
        tile: Tile | MatrixTile,
        merged: Mapping[Node, Node],
        partial: Scratch | None,
        resident: int,
    ) -> None:
        self.resident = resident
        self.group = group
        self.problem = problem
        self.partial = partial
        self.e = e = ScopedEmitter()
        self.params = parameters(group, problem.nest, merged, partial is None)
        self.values = values = Values(e, problem.nest.inside, self.params)
        values.lane_count = self.threads = tile.threads
        self.dtype = accumulator_dtype(problem.stage.inputs[0].dtype)
        self.rows, self.columns, self.batch = Flat(problem.rows), Flat(problem.columns), Flat(problem.batch)
        self.size = tile.rows, tile.columns
        self.depth, self.splits = tile.depth, tile.splits
        self._cut_sums(tile)
        self.own: list[Param] = []
        self.sums_param: Param | None = None
        if partial is not None:
            self.sums_param = Param(f"p{len(self.params)}", partial.type.dtype, partial.type.size, "out")

    def sum(self) -> list[Value]:
        """Emit the steps of the sum: for each place of `down`, each of `across` and each point, its total."""
        raise NotImplementedError

    def down(self) -> list[Ix]:
        """The rows of the tile that a thread computes."""
        raise NotImplementedError

    def across(self) -> list[Ix]:
        """The columns of the tile that a thread computes."""
        raise NotImplementedError

    def only(self) -> Value | None:
        """Which threads store results; None: all of them."""
        return None

    def _cut_sums(self, tile: Tile | MatrixTile) -> None:
        """Split the loops of the sum into those that panels go along, `inner`, and those between panels, `outer`, so
        that few steps are wasted and few indices need divisions.
        """
        problem, depth, splits = self.problem, self.depth, self.splits
        self.outer, self.inner = cut_sums(problem, tile)
        self.inner_steps = -(-self.inner.length // depth)
        self.steps = -(-self.outer.length * self.inner_steps // splits)
        if not self.outer.variables:
            self.inner_steps = splits * self.steps
        self.pad = self.inner_steps * depth - self.inner.length  # zeros before the first step
        # What comes first between two steps: that which moves less through memory, so that lines are read again soon.
        operands = problem.left, problem.right
        far = max(o.step(self.inner.variables[-1]) * depth for o in operands) if self.inner.variables else 0
        near = max(sum(o.step(v) * v.hi for v in self.outer.variables) for o in operands)
        self.outer_first = self.inner_steps > 1 and near < far

    def variable(self, name: str, value: Value, hi: int) -> Var:
        """An index variable that is `value` in each thread, at most `hi`."""
        var = Var(name, hi)
        self.values.env[var] = value
        return var

    # the block

    def run(self, name: str) -> Lowered:
        e, problem = self.e, self.problem
        high, wide = self.size
        index = e.bind(Value(INDEX, "g"))
        down, across = -(-self.rows.length // high), -(-self.columns.length // wide)
        grid = down * across * self.splits * self.batch.length
        rest, number = self._divide(index, down * across)
        rest, part = self._divide(rest, self.splits)
        group = math.gcd(down, GROUP)
        number, low = self._divide(number, group)
        row, column = self._divide(number, across)
        row = e.op("add", e.op("mul", row, group), low) if group > 1 else row
        self.part = self.variable("part", part, self.splits - 1)
        self.first_row = Ix.of(self.variable("rows", row, down - 1), high)
        self.first_column = Ix.of(self.variable("columns", column, across - 1), wide)
        self.batch_points = self.batch.points(Ix.of(self.variable("batch", rest, self.batch.length - 1)))
        self._finish(self.sum())
        params = list(dict.fromkeys(self.params.values()))
        buffers: list[Node | Scratch] = [n for n, p in self.params.items() if n not in self._merged_targets()]
        if self.sums_param is not None and self.partial is not None:
            params.append(self.sums_param)
            buffers.append(self.partial)
        moved = sum(b.type.nbytes for b in buffers)
        flops = problem.flops
        body, own = tuple(e.body), tuple(self.own)
        kernel = Kernel(
            name,
            tuple(params),
            grid,
            index,
            body,
            flops,
            moved,
            own,
            self.threads,
            aligned=True,
            resident=self.resident,
        )
        return Lowered(kernel, tuple(buffers))

    def _merged_targets(self) -> set[Node]:
        """Values that share the parameter of one before them."""
        seen: dict[Param, Node] = {}
        return {n for n, p in self.params.items() if seen.setdefault(p, n) is not n}

    def _divide(self, value: Value, by: int) -> tuple[Value, Value]:
        """Quotient and remainder of a scalar."""
        if by == 1:
            return value, self.e.const(0, INDEX)
        return self.e.op("floordiv", value, by), self.e.op("mod", value, by)

    def base(self) -> Ix:
        """The first step of the block's part of the sum."""
        return Ix.of(self.part, self.steps) if self.splits > 1 else Ix()

    def start(self) -> tuple[Value, ...]:
        """The first step of the block's part of the sum, as counters: one for each loop that takes part in numbering
        steps, the fastest first. None where one number says it.
        """
        rest = self.base()
        counters = []
        for extent in self._extents():
            counters.append(self.values.index(derived("mod", rest, extent)))
            rest = derived("floordiv", rest, extent)
        return tuple(counters)

    def following(self, counters: tuple[Value, ...]) -> tuple[Value, ...]:
        """The step after `counters`; after the last one, some step."""
        e, result = self.e, []
        goes_on: Value | None = None  # whether the loops before begin again
        for counter, extent in zip(counters, self._extents(), strict=True):
            more = e.op("add", counter, 1)
            ends = e.op("ge", more, extent)
            after = e.op("select", ends, e.const(0, INDEX), more)
            if goes_on is not None:
                after = e.op("select", goes_on, after, counter)
            result.append(e.op("minimum", after, extent - 1))  # so that it is seen to stay below the extent
            goes_on = ends if goes_on is None else e.op("and", goes_on, ends)
        return tuple(result)

    def _extents(self) -> list[int]:
        """Steps along each loop that takes part in numbering them, the fastest first."""
        if not self.outer.variables:
            return []
        outer = [v.hi + 1 for v in reversed(self.outer.variables)]
        return [*outer, self.inner_steps] if self.outer_first else [self.inner_steps, *outer]

    def place_in_sums(self, step: Ix, counters: tuple[Value, ...] = (), first: bool = False) -> Sums:
        """Where step number `step` of the whole sum lies, which has these `counters`; `first`: that of a block's
        part.
        """
        inner = step
        outer: Points = {}
        if counters:
            along = [Ix.of(self.variable("k", c, n - 1)) for c, n in zip(counters, self._extents(), strict=True)]
            inner = along.pop() if self.outer_first else along.pop(0)
            outer = dict(zip(reversed(self.outer.variables), along, strict=True))
        is_short = self.pad > 0 and (first or bool(outer) or self.pad >= self.depth)
        return Sums(outer, inner * self.depth + -self.pad, is_short)

    def fetch(self, panels: tuple[Panel, Panel], sums: Sums) -> tuple[list[Value], list[Value]]:
        """Read what the thread copies of both panels at a place of the sum."""
        left, right = panels
        fetched = left.fetch(self.first_row, self.batch_points, sums)
        return fetched, right.fetch(self.first_column, self.batch_points, sums)

    # the results

    def _finish(self, totals: list[Value]) -> None:
        """Store what the group computes at each of the thread's places that exist."""
        epilogue = Epilogue(self.group, self.problem, self.values, self.params)
        points = self.problem.points
        down = self._places(1, self.rows, self.first_row, self.down(), self.size[0])
        across = self._places(self.run_length, self.columns, self.first_column, self.across(), self.size[1])
        only = self.only()
        together: list[tuple[Points, list[Value], Value | None]] = []
        for number, ((row, row_exists), (column, column_exists)) in enumerate(product(down, across)):
            mask = only
            for condition in (row_exists, column_exists):
                if condition is not None:
                    mask = condition if mask is None else self.e.op("and", mask, condition)
            point = {**self.batch_points, **row, **column}
            sums = totals[number * points : (number + 1) * points]
            if self.partial is not None:
                self._store_sums(point, sums, mask)
                continue
            together.append((point, sums, mask))
            if len(together) == self.run_length:
                epilogue.finish(together)
                together = []

    def _places(
        self, run: int, side: Flat, first: Ix, local: list[Ix], width: int
    ) -> list[tuple[Points, Value | None]]:
        """Each place of the thread along a side, with the condition under which there is one."""
        if side.together() % run:
            run = 1
        result = []
        for number, ix in enumerate(local):
            base, more = first + local[number - number % run], number % run
            exists = None
            if side.length % width:
                exists = self.e.op("lt", self.values.index(base if run > 1 else first + ix), side.length)
            result.append((side.points(within(base, side.length, run), more), exists))
        return result

    def _store_sums(self, point: Points, sums: list[Value], mask: Value | None) -> None:
        """Put this block's part of the sums where the kernel that adds them expects it."""
        assert self.sums_param is not None
        for p, total in enumerate(sums):
            at = sum_place(self.problem, point, Ix.of(self.part), p)
            index, offsets = scattered(self.values, at)
            self.e.store(self.sums_param, index, total, 0, offsets, mask)


def loads_together(statements: Sequence[Stmt]) -> list[Stmt]:
    """Statements that write no parameter, with loads of those that are the same but for a constant number of elements
    in a row, by their places, where the first of them was.
    """
    found: dict[tuple[object, ...], list[Load]] = {}
    for statement in statements:
        if isinstance(statement, Load) and statement.buffer.mode != "own":
            found.setdefault(_but_for_constants(statement), []).append(statement)
    result: list[Stmt] = []
    for statement in statements:
        if isinstance(statement, Load) and statement.buffer.mode != "own":
            result += sorted(found.pop(_but_for_constants(statement), ()), key=lambda load: load.index.const)
        else:
            result.append(statement)
    return result


def _but_for_constants(load: Load) -> tuple[object, ...]:
    return id(load.buffer), load.index.terms, id(load.offsets), id(load.mask), load.result.type


def scattered(values: Values, at: Ix) -> tuple[Affine, Value]:
    """`at` as what all threads have in common, and what each has by itself: 0 where a single element is left."""
    index, _, offsets = values.address(at)
    return index, offsets if offsets is not None else values.e.const(0, VType(i64, values.lane_count))


def sum_place(problem: Problem, point: Points, part: Ix, number: int) -> Ix:
    """Where part `part` of the sum for element `number` of `point` lies among all partial sums."""
    at = part * problem.points + number
    for var in problem.nest.axes:
        at = at * (var.hi + 1) + point[var]
    return at
