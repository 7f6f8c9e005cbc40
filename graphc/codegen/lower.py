"""Lowering: a group of graph nodes and its schedule become one kernel of explicit loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from graphc.codegen import extremes
from graphc.codegen.kernel import INDEX, Kernel, Param, Value
from graphc.codegen.loops import CHUNK_VECTORS
from graphc.codegen.math import expand_cast
from graphc.codegen.prepare import Prepared
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.sites import Site, inner_dims, root_index, store_address
from graphc.codegen.target import Target
from graphc.codegen.values import Masks, Values, accumulator_dtype
from graphc.ir.access import Index
from graphc.ir.demand import demands, reduction_extents, reduction_reads
from graphc.ir.index import Ix, Var, linear
from graphc.ir.node import Node
from graphc.ir.schedule import Scratch
from graphc.ir.types import i64
from graphc.ir.visit import topological

GRID_PER_CORE = 8  # parallel pieces wanted for each core, so that an uneven finish costs little

_NOTHING: Mapping[Node, Node] = MappingProxyType({})

Point = dict[Var, Ix]
_Visit = Callable[[Point, Masks, list[Value]], list[Value]]


@dataclass(frozen=True)
class Lowered:
    """A kernel and the value behind each of its parameters."""

    kernel: Kernel
    buffers: tuple[Node | Scratch, ...]


def lower(prepared: Prepared, name: str, target: Target, merged: Mapping[Node, Node] = _NOTHING) -> Lowered:
    """The kernel of a prepared group. `merged` maps targets to the operands in whose memory they are written."""
    return _Lowering(prepared, target, merged).run(name)


class _Lowering:
    def __init__(self, prepared: Prepared, target: Target, merged: Mapping[Node, Node]) -> None:
        self.group = group = prepared.group
        self.nest = nest = prepared.nest
        self.schedule = schedule = prepared.schedule
        self.target = target
        self.e = ScopedEmitter()
        self.params = self._parameters(merged)
        self.values = Values(self.e, group.inside, self.params)
        self.values.lane_count = schedule.lanes
        self.lane = Var("lane", schedule.lanes - 1, lane=True)
        self.sites = {s.stage: s for s in nest.sites if s.stage is not None}
        order = topological([r.value for r in group.roots], stop=lambda n: n not in group.inside)
        self.rank = {n: i for i, n in enumerate(order)}

    def _parameters(self, merged: Mapping[Node, Node]) -> dict[Node, Param]:
        """A parameter for each buffer; a merged target shares its operand's."""
        targets = set(self.group.targets)
        taken = set(merged.values())
        nodes = dict.fromkeys(a.buffer for site in self.nest.sites for a in site.accesses)
        params: dict[Node, Param] = {}
        for node in sorted(nodes, key=targets.__contains__):
            if node not in merged:
                mode = "out" if node in targets else "inout" if node in taken else "in"
                params[node] = Param(f"p{len(params)}", node.dtype, node.type.size, mode)
        self.own = tuple(params)
        for target, operand in merged.items():
            params[target] = params[operand]
        return params

    def run(self, name: str) -> Lowered:
        index = self.e.bind(Value(INDEX, "g"))
        grid = self._domain(index)
        kernel = Kernel(
            name, tuple(self.params[n] for n in self.own), grid, index, tuple(self.e.body), self._flops(), self._bytes()
        )
        return Lowered(kernel, self.own)

    # the loops over the domain

    def _count(self, var: Var) -> int:
        return math.ceil((var.hi + 1) / self.schedule.tile[var])

    def _domain(self, index: Value) -> int:
        """Emit the loops over the domain; gives the size of the parallel range."""
        outer = [v for v in self.schedule.order if v is not self.schedule.lane]
        wanted = self.target.cores * GRID_PER_CORE
        shared: list[Var] = []
        grid = 1
        while outer and (grid < wanted or self._count(outer[0]) == 1):
            grid *= self._count(outer[0])
            shared.append(outer.pop(0))
        chunks = self._chunks(grid if not outer else wanted)
        rest = index
        lane_chunk: Value | None = None
        if chunks > 1 and self.schedule.lane_block and shared:  # the chunk is the outermost loop
            lane_chunk = self.e.op("floordiv", index, grid)
            rest = self.e.op("mod", index, grid)
        elif chunks > 1:
            lane_chunk = self.e.op("mod", index, chunks) if shared else index
            rest = self.e.op("floordiv", index, chunks)
        bases: dict[Var, tuple[Var, Value]] = {}
        for position, var in enumerate(shared):
            inner = math.prod(self._count(v) for v in shared[position + 1 :])
            if self._count(var) == 1:
                bases[var] = self._base(var, self.e.const(0, INDEX))
                continue
            number = self.e.op("floordiv", rest, inner) if inner > 1 else rest
            rest = self.e.op("mod", rest, inner) if inner > 1 else rest
            bases[var] = self._base(var, number)
        self._loops(outer, bases, lane_chunk, chunks)
        return grid * chunks

    def _chunks(self, grid: int) -> int:
        """Into how many parallel pieces the lane axis is cut, when the other axes give too few."""
        lane = self.schedule.lane
        if lane is None or (grid >= self.target.cores * 2 and not self.schedule.lane_block):
            return 1
        return max(1, math.ceil((lane.hi + 1) // self.schedule.lanes / self._chunk_vectors(lane)))

    def _chunk_vectors(self, lane: Var) -> int:
        tile = self.schedule.tile[lane]
        wanted = self.schedule.lane_block // self.schedule.lanes or CHUNK_VECTORS
        return math.ceil(wanted / tile) * tile

    def _base(self, var: Var, number: Value) -> tuple[Var, Value]:
        """The first index of tile `number` along `var`; the last tile is moved back so that it ends with the axis."""
        tile, extent = self.schedule.tile[var], var.hi + 1
        value = self.e.op("mul", number, tile) if tile > 1 else number
        if extent % tile:
            value = self.e.op("select", self.e.op("lt", value, extent - tile), value, extent - tile)
        return Var(var.name, extent - tile), value

    def _loops(self, outer: list[Var], bases: dict[Var, tuple[Var, Value]], chunk: Value | None, chunks: int) -> None:
        if outer:
            var = outer[0]
            if self._count(var) == 1:
                self._loops(outer[1:], {**bases, var: self._base(var, self.e.const(0, INDEX))}, chunk, chunks)
                return
            with self.e.loop(var.name, 0, self._count(var), 1) as loop:
                self._loops(outer[1:], {**bases, var: self._base(var, loop.var)}, chunk, chunks)
            return
        lane = self.schedule.lane
        if lane is None:
            self._body(bases, None, 0, None)
            return
        lanes, tile = self.schedule.lanes, self.schedule.tile[lane]
        full, tail = divmod(lane.hi + 1, lanes)
        whole = full // tile * tile
        if chunk is not None:
            size = self._chunk_vectors(lane) * lanes
            lo = self.e.op("mul", chunk, size)
            hi = self.e.op("add", lo, size)
            end = whole * lanes
            hi = self.e.op("select", self.e.op("lt", hi, end), hi, end)
            with self.e.loop(lane.name, lo, hi, tile * lanes) as loop:
                self._body(bases, (Var(lane.name, lane.hi), loop.var), tile, None)
            if whole < full or tail:
                with self.e.guard(self.e.op("eq", chunk, chunks - 1)):
                    self._lane_rest(bases, lane, whole, full, tail)
            return
        if whole > tile:
            with self.e.loop(lane.name, 0, whole * lanes, tile * lanes) as loop:
                self._body(bases, (Var(lane.name, lane.hi), loop.var), tile, None)
        elif whole:
            self._body(bases, (Var(lane.name, lane.hi), self.e.const(0, INDEX)), tile, None)
        self._lane_rest(bases, lane, whole, full, tail)

    def _lane_rest(self, bases: dict[Var, tuple[Var, Value]], lane: Var, whole: int, full: int, tail: int) -> None:
        """What the tiled lane loop leaves: whole vectors, then one masked vector."""
        lanes = self.schedule.lanes
        if whole < full:
            start = self.e.const(whole * lanes, INDEX)
            self._body(bases, (Var(lane.name, lane.hi), start), full - whole, None)
        if tail:
            mask = self.e.op("lt", self.e.lanes(i64, lanes), tail)
            start = self.e.const(full * lanes, INDEX)
            self._body(bases, (Var(lane.name, lane.hi), start), 1, mask)

    # one tile of the domain

    def _body(
        self, bases: dict[Var, tuple[Var, Value]], lane: tuple[Var, Value] | None, vectors: int, tail: Value | None
    ) -> None:
        """Compute all roots for one tile: `vectors` of the lane axis (the last one restricted by `tail`)."""
        values, schedule = self.values, self.schedule
        values.stages.clear()
        ranges: list[list[tuple[Var, Ix]]] = []
        for var in self.nest.axes:
            if var is schedule.lane:
                assert lane is not None
                values.env[lane[0]] = lane[1]
                across = Ix.of(lane[0]) + Ix.of(self.lane)
                ranges.append([(var, across + t * schedule.lanes) for t in range(vectors)])
            else:
                base, value = bases[var]
                values.env[base] = value
                ranges.append([(var, Ix.of(base) + t) for t in range(schedule.tile[var])])
        points = [dict(choice) for choice in product(*ranges)]
        masks = Masks(tail)
        places = [self._place(p) for p in points]
        self._stages(places, masks)
        # What is transposed in registers is stored place by place, or it would need too many registers.
        for together in [places] if schedule.turned is None else [[place] for place in places]:
            pending: list[tuple[Site, Index, Value]] = []
            for site in self.nest.sites:
                if site.root is not None and not site.loops:
                    for place in together:
                        at = root_index(site.root, place, {})
                        self._turn_to(place, bases)
                        pending.append((site, at, values.at(site.root.value, at, masks)))
            for site, at, value in pending:
                self._store(site, at, value, masks)
        values.turned = None
        for site in self.nest.sites:
            if site.root is not None and site.loops:
                self._store_loops(site, places, masks)

    def _turn_to(self, place: tuple[Ix, ...], bases: dict[Var, tuple[Var, Value]]) -> None:
        """Tell the values which place of a transposed block is computed next."""
        if self.schedule.turned is not None:
            base = bases[self.schedule.turned][0]
            (own,) = [ix for ix in place if ix.coefficient(base)]
            self.values.turned = base, own.const % self.schedule.lanes

    def _place(self, point: Point) -> tuple[Ix, ...]:
        """The index of each axis of the group's domain at a point of the nest."""
        return tuple(point[ix.terms[0][0]] if ix.terms else ix for ix in self.nest.place)  # type: ignore[index]

    def _store(self, site: Site, at: Index, value: Value, masks: Masks) -> None:
        assert site.root is not None
        address, stride, offsets = self.values.address(store_address(site.root, at))
        wide = stride != 0 or offsets is not None
        if wide:
            value = self.e.splat(value, self.schedule.lanes)
        assert wide or value.type.lanes == 1, "a vector is stored to one place"
        self.e.store(self.params[site.root.target], address, value, stride, offsets, masks.tail if wide else None)

    def _store_loops(self, site: Site, places: list[tuple[Ix, ...]], masks: Masks) -> None:
        root = site.root
        assert root is not None
        dims = inner_dims(root)

        def visit(point: Point, inner: Masks, carried: list[Value]) -> list[Value]:
            own = {k: point[v] for k, v in zip(dims, site.loops, strict=True)}
            indices = [root_index(root, place, own) for place in places]
            computed = [self.values.at(root.value, at, inner) for at in indices]
            for at, value in zip(indices, computed, strict=True):
                self._store(site, at, value, inner)
            return carried

        self._iterate(site, [[]], masks, visit)

    # reductions

    def _stages(self, places: list[tuple[Ix, ...]], masks: Masks) -> None:
        """Compute every reduction that the tile's roots need, those that others need first."""
        wanted: dict[Node, dict[Index, None]] = {}
        requests: list[tuple[Node, Index]] = []
        for site in self.nest.sites:
            if site.root is not None:
                dims = inner_dims(site.root)
                own = {k: Ix.of(v) for k, v in zip(dims, site.loops, strict=True)}
                requests.extend((site.root.value, root_index(site.root, place, own)) for place in places)
        while requests:
            found = demands(requests, self.group.inside)
            requests = []
            for stage, at in found.stages:
                if at not in wanted.setdefault(stage, {}):
                    wanted[stage][at] = None
                    over = tuple(Ix.of(v) for v in self.sites[stage].loops)
                    requests.extend(zip(stage.inputs, reduction_reads(stage, at, over), strict=True))
        ordered = sorted(wanted, key=self.rank.__getitem__)
        while ordered:
            together = [ordered.pop(0)]
            while ordered and self._may_join(together, ordered[0]):
                together.append(ordered.pop(0))
            self._reduce([(s, list(wanted[s])) for s in together], masks)

    def _may_join(self, together: list[Node], stage: Node) -> bool:
        """Whether `stage` can run in the same loops as `together`: same extents, none needing another's result."""
        first = together[0]
        if "contract" in (first.op, stage.op) or reduction_extents(first) != reduction_extents(stage):
            return False
        if extremes.is_place(first) != extremes.is_place(stage):
            return False
        below = set(topological([stage], stop=lambda n: n not in self.group.inside))
        return not any(s in below for s in together)

    def _reduce(self, stages: list[tuple[Node, list[Index]]], masks: Masks) -> None:
        site = self.sites[stages[0][0]]
        own_lane = self.schedule.site_lane.get(site)
        split = self.schedule.split.get(site, 1)
        items = [(stage, at) for stage, points in stages for at in points]
        is_product = stages[0][0].op == "contract"
        if is_product:
            items = _streamed(items, site)
        inits: list[Value] = []
        for stage, at in items:
            wide = own_lane is not None or any(self.lane in ix.symbols() for ix in at)
            inits += [self.e.splat(v, self.schedule.lanes) if wide else v for v in self.values.start(stage)]

        def visit(point: Point, inner: Masks, totals: list[Value]) -> list[Value]:
            result = list(totals)
            for choice in product(*(range(v.hi + 1) for v in self.schedule.unrolled[site])):
                taps = dict(zip(self.schedule.unrolled[site], map(Ix, choice), strict=True))
                self.e.epoch += 1
                position = 0
                for stage, at in items:
                    over = tuple(taps[v] if v in taps else point[v] for v in site.loops)
                    width = 2 if extremes.is_place(stage) else 1
                    old = result[position : position + width]
                    new = self._accumulate(stage, at, over, old, inner)
                    if inner.tail is not None and own_lane is not None:
                        new = [self.e.op("select", inner.tail, n, o) for n, o in zip(new, old, strict=True)]
                    result[position : position + width] = new
                    position += width
            return result

        pinned = self.e.pinned
        self.e.pinned = is_product
        partial = self._iterate(site, [list(inits) for _ in range(split)], masks, visit)
        self.e.pinned = pinned
        position = 0
        for stage, at in items:
            if extremes.is_place(stage):
                parts = [(p[position], p[position + 1]) for p in partial]
                value = extremes.combine(self.e, stage.op, parts, own_lane is not None)
                position += 2
            else:
                value = self._gather_up(stage, [p[position] for p in partial], own_lane is not None)
                position += 1
            self.values.stages[stage, at] = expand_cast(self.e, value, stage.dtype)

    def _gather_up(self, stage: Node, parts: list[Value], across: bool) -> Value:
        """Combine partial results pairwise, then across lanes."""
        op = "reduce_sum" if stage.op == "contract" else stage.op
        while len(parts) > 1:
            half = math.ceil(len(parts) / 2)
            parts = [
                self.values.combine(op, parts[i], parts[i + half]) if i + half < len(parts) else parts[i]
                for i in range(half)
            ]
        if not across:
            return parts[0]
        is_bool = parts[0].type.dtype.kind == "bool"
        name = {
            "reduce_sum": "reduce_or" if is_bool else "reduce_add",
            "reduce_prod": "reduce_mul",
            "reduce_max": "reduce_or" if is_bool else "reduce_maximum",
            "reduce_min": "reduce_and" if is_bool else "reduce_minimum",
        }[op]
        return self.e.op(name, parts[0])

    def _accumulate(self, stage: Node, at: Index, over: tuple[Ix, ...], old: list[Value], masks: Masks) -> list[Value]:
        e = self.e
        parts = [
            self.values.at(operand, read, masks)
            for operand, read in zip(stage.inputs, reduction_reads(stage, at, over), strict=True)
        ]
        dtype = accumulator_dtype(stage.inputs[0].dtype)
        if extremes.is_place(stage):
            number = self.values.number(linear(over, reduction_extents(stage)), extremes.number_dtype(stage))
            return list(extremes.step(e, stage.op, old[0], old[1], expand_cast(e, parts[0], dtype), number))
        wide = [expand_cast(e, p, dtype) for p in parts]
        if stage.op != "contract":
            return [self.values.combine(stage.op, old[0], wide[0])]
        if dtype.is_float and self.target.fma:
            return [e.op("fma", wide[0], wide[1], old[0])]
        return [e.op("add", old[0], e.op("mul", wide[0], wide[1]))]

    # loops of one site

    def _iterate(self, site: Site, carried: list[list[Value]], masks: Masks, visit: _Visit) -> list[list[Value]]:
        """Run `visit` over a site's looped variables. `carried` holds one list of values for each independent
        partial result.
        """
        order = self.schedule.loop_order[site]
        own_lane = self.schedule.site_lane.get(site)
        split = len(carried)

        def at_level(level: int, point: Point, totals: list[list[Value]]) -> list[list[Value]]:
            if level == len(order):
                return [visit(point, masks, totals[0]), *totals[1:]]
            var = order[level]
            if level < len(order) - 1:
                return looped(var, 0, var.hi + 1, 1, totals, lambda ix, t: at_level(level + 1, {**point, var: ix}, t))
            step = self.schedule.lanes if var is own_lane else 1
            across = Ix.of(self.lane) if var is own_lane else Ix()
            count, tail = divmod(var.hi + 1, step)
            whole = count // split * split

            def innermost(ix: Ix, t: list[list[Value]]) -> list[list[Value]]:
                return [visit({**point, var: ix + k * step + across}, masks, t[k]) for k in range(split)]

            totals = looped(var, 0, whole * step, split * step, totals, innermost)
            for k in range(count - whole):
                place = Ix((whole + k) * step) + across
                totals[k] = visit({**point, var: place}, masks, totals[k])
            if tail:
                mask = self.e.op("lt", self.e.lanes(i64, self.schedule.lanes), tail)
                last = visit(
                    {**point, var: Ix(count * step) + across}, Masks(mask, masks.conditions, masks.scalars), totals[-1]
                )
                totals = [*totals[:-1], last]
            return totals

        def looped(
            var: Var,
            lo: int,
            hi: int,
            step: int,
            totals: list[list[Value]],
            inside: Callable[[Ix, list[list[Value]]], list[list[Value]]],
        ) -> list[list[Value]]:
            if hi <= lo:
                return totals
            if hi - lo == step:
                return inside(Ix(lo), totals)
            flat = tuple(v for part in totals for v in part)
            with self.e.loop(var.name, lo, hi, step, flat) as loop:
                base = Var(var.name, hi - step)
                self.values.env[base] = loop.var
                after = inside(Ix.of(base), _regroup(loop.phis, totals))
                loop.yields = tuple(v for part in after for v in part)
            return _regroup(loop.results, totals)

        return at_level(0, {}, carried)

    # facts about the kernel

    def _flops(self) -> int:
        total = 0
        for site in self.nest.sites:
            count = self.nest.points * math.prod(v.hi + 1 for v in site.loops)
            total += count * (site.maps + 7 * site.heavy)
        return total

    def _bytes(self) -> int:
        return sum(n.type.nbytes for n in self.params)


def _streamed(items: list[tuple[Node, Index]], site: Site) -> list[tuple[Node, Index]]:
    """Points of a contraction in an order that uses up each element of the operand with more of them at once.

    Only the other operand's elements then stay in registers.
    """
    over = tuple(Ix.of(v) for v in site.loops)
    reads = [reduction_reads(stage, at, over) for stage, at in items]
    keys = [
        [linear(read[k], stage.inputs[k].shape) for (stage, _), read in zip(items, reads, strict=True)] for k in (0, 1)
    ]
    more = max(keys, key=lambda k: len(set(k)))
    first = {ix: i for i, ix in reversed(list(enumerate(more)))}
    return [item for _, item in sorted(zip(more, items, strict=True), key=lambda pair: first[pair[0]])]


def _regroup(flat: Sequence[Value], like: list[list[Value]]) -> list[list[Value]]:
    """`flat` cut into lists of the lengths of `like`."""
    result, position = [], 0
    for part in like:
        result.append(list(flat[position : position + len(part)]))
        position += len(part)
    return result
