"""Lowering: a group of graph nodes and its schedule become one kernel of explicit loops."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from functools import partial, reduce
from itertools import product
from types import MappingProxyType

from graphc.codegen import extremes
from graphc.codegen.borders import places_of
from graphc.codegen.dead_code import without_dead
from graphc.codegen.domain import Bases, Domain
from graphc.codegen.extremes import Search
from graphc.codegen.gpu_domain import GridDomain
from graphc.codegen.kernel import INDEX, Kernel, Param, Value
from graphc.codegen.lowered import Lowered
from graphc.codegen.math import expand_cast
from graphc.codegen.neighbours import neighbours_together
from graphc.codegen.prefetch import Ahead, choose_ahead, choose_picked
from graphc.codegen.prepare import Prepared
from graphc.codegen.products import Products
from graphc.codegen.schedule import Panel
from graphc.codegen.scope import ScopedEmitter
from graphc.codegen.site_loops import Parts, Point, SiteLoops, Visit
from graphc.codegen.sites import Site, inner_dims, root_index
from graphc.codegen.steps import Step, Steps
from graphc.codegen.stores import Stores
from graphc.codegen.taps import Item, Tap, by_elements, element_keys, one_by_one, streamed
from graphc.codegen.target import LINE, Target
from graphc.codegen.turns import store_turns
from graphc.codegen.values import Masks, Values, accumulator_dtype, factor_type
from graphc.ir.access import Index
from graphc.ir.demand import reduction_extents, reduction_reads
from graphc.ir.index import Ix, Var, linear
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import Scratch
from graphc.ir.types import pbf16

_NOTHING: Mapping[Node, Node] = MappingProxyType({})

FENCED = 32  # multiply-adds between which the back end may move instructions: of more it loads too much ahead


def lower(prepared: Prepared, name: str, target: Target, merged: Mapping[Node, Node] = _NOTHING) -> Lowered:
    """The kernel of a prepared group. `merged` maps targets to the operands in whose memory they are written."""
    return _Lowering(prepared, target, merged).run(name)


@record
class Reduction:
    """The reductions of a step, which share the loops of `site`: `items`, each with its index, in `groups` of (place of
    the unrolled loops, number of the item) whose elements are read once each.
    """

    step: Step
    site: Site
    items: list[Item]
    groups: list[list[Tap]]
    has_own_lane: bool
    has_steps: bool

    @property
    def is_product(self) -> bool:
        return self.items[0][0].op == "contract"

    @property
    def width(self) -> int:
        """How many values the loops carry for each item."""
        return 2 if extremes.is_place(self.items[0][0]) else 1

    @property
    def is_fenced(self) -> bool:
        """Whether the back end would load too much ahead."""
        return self.is_product and (self.has_steps or sum(map(len, self.groups)) > FENCED)


class _Lowering:
    def __init__(self, prepared: Prepared, target: Target, merged: Mapping[Node, Node]) -> None:
        self.group = group = prepared.group
        self.nest = nest = prepared.nest
        self.schedule = schedule = prepared.schedule
        self.target = target
        self.e = ScopedEmitter()
        self.params = self._parameters(merged)
        self.work: dict[Scratch, Param] = {}
        self.rows: dict[Node, Param] = {}
        panels = {p.operand: (p, self._panel(p)) for p in schedule.panels}
        sums = self._scratch(schedule.chunk.sums, "inout") if schedule.chunk is not None else None
        self.near = tuple(memory for panel, memory in panels.values() if panel.is_near)
        self.values = Values(self.e, nest.inside, self.params)
        self.values.lane_count = schedule.lanes
        self.values.kept = self._kept()
        self.values.dealt = schedule.dealt
        self.values.fuses = target.device == "cpu" and target.fma
        self.values.clamps = target.device == "cpu"
        self.ahead: Ahead | None = None
        self.inside: dict[Var, tuple[Value, Value]] = {}
        self.searches: dict[tuple[Node, Index], Search] = {}
        self.point: Point = {}
        self.picked = choose_picked(nest, schedule) if target.device == "cpu" else ()
        self.steps = Steps(group, nest, schedule)
        self.lane = Var("lane", schedule.lanes - 1, lane=True)
        self.stores = Stores(self.values, self.params, self.sums, schedule, target, self.lane)
        self.sites = {s.stage: s for s in nest.sites if s.stage is not None}
        product_site = next((s for n, s in self.sites.items() if n.op == "contract"), None)
        self.products = (
            Products(product_site, schedule, target, self.values, self.lane, panels, sums) if product_site else None
        )
        kind = GridDomain if target.device == "cuda" else Domain
        self.domain = kind(self.e, self.values.env, schedule, target, self._body, self._enter, self._begin)
        self.domain.turns = store_turns(nest, schedule, self.params)
        if self.products is not None:
            self.products.domain = self.domain

    def _parameters(self, merged: Mapping[Node, Node]) -> dict[Node, Param]:
        """A parameter for each buffer; a merged target shares its operand's."""
        targets = set(self.group.targets)
        self.sums = frozenset(r.target for r in self.group.roots if r.adds)
        taken = set(merged.values())
        own = {r.value for r in self.group.kept} - targets
        used = dict.fromkeys(a.buffer for site in self.nest.sites for a in site.accesses)
        nodes = [n for n in used if n not in own]
        params: dict[Node, Param] = {}
        for node in sorted(nodes, key=targets.__contains__):
            if node not in merged:
                mode = "out" if node in targets - self.sums else "inout" if node in self.sums | taken else "in"
                params[node] = Param(f"p{len(params)}", node.dtype, node.type.size, mode)
        self.own: tuple[Node | Scratch, ...] = tuple(params)
        for target, operand in merged.items():
            params[target] = params[operand]
        return params

    def _kept(self) -> dict[Node, int]:
        """For each value whose rows are kept the length of one in memory of the kernel's own; 0: it is a target."""
        targets = set(self.group.targets)
        kept: dict[Node, int] = {}
        for site in self.nest.sites:
            if site.root is not None and site.is_kept:
                node = site.root.value
                kept[node] = 0 if node in targets else math.prod(v.hi + 1 for v in site.loops)
                if kept[node]:
                    self.rows[node] = self.params[node] = Param(f"row{len(self.rows)}", node.dtype, kept[node], "own")
        return kept

    def _scratch(self, memory: Scratch, mode: str) -> Param:
        """A parameter for memory to work in."""
        param = self.work[memory] = Param(f"w{len(self.work)}", memory.type.dtype, memory.type.size, mode)
        self.own = (*self.own, memory)
        return param

    def _panel(self, panel: Panel) -> Param:
        """The memory of a panel: the kernel's own if it is near."""
        if not panel.is_near:
            return self._scratch(panel.memory, "in")
        slack = 0 if panel.is_lane else self.target.lanes(4)  # the last step is stored as a whole vector
        size = panel.length * panel.held + slack
        return Param(f"panel{panel.operand}", panel.memory.type.dtype, size, "own")

    def run(self, name: str) -> Lowered:
        index = self.e.bind(Value(INDEX, "g"))
        grid = self.domain.run(index)
        params = tuple(self.work[n] if isinstance(n, Scratch) else self.params[n] for n in self.own)
        own = (*self.rows.values(), *self.near)
        body, run = without_dead(self.e.body), self.schedule.side_by_side
        body = neighbours_together(body, run) if run > 1 else body
        kernel = Kernel(name, params, grid, index, body, *self._work(), own, self.schedule.threads, aligned=run > 1)
        return Lowered(kernel, self.own)

    # one tile of the domain

    def _enter(self, bases: Bases, lane: tuple[Var, Value], is_whole: bool) -> None:
        """Before all that is computed for a tile of the lane axis."""
        if self.products is not None:
            self.products.enter(bases, lane, is_whole)

    def _begin(self, bases: Bases, tiles: tuple[Value, Value]) -> None:
        """Before the lane axis is gone through for a block of tiles."""
        if self.products is not None:
            self.products.begin(bases, tiles)

    def _body(self, bases: Bases, lane: tuple[Var, Value] | None, vectors: range, tail: Value | None) -> None:
        """Compute all roots for one tile: `vectors` of the lane axis (the last one restricted by `tail`)."""
        values, schedule = self.values, self.schedule
        values.stages.clear()
        ranges: list[list[tuple[Var, Ix]]] = []
        for var in self.nest.axes:
            if var is schedule.lane:
                assert lane is not None
                values.env[lane[0]] = lane[1]
                across = Ix.of(lane[0]) + Ix.of(self.lane)
                ranges.append([(var, across + t * schedule.lanes) for t in vectors])
            elif var is schedule.whole:
                ranges.append([(var, Ix(t)) for t in range(var.hi + 1)])
            else:
                base, value = bases[var]
                values.env[base] = value
                ranges.append([(var, Ix.of(base) + t) for t in range(schedule.tile[var])])
        points = [dict(choice) for choice in product(*ranges)]
        masks = Masks(tail)
        places = [self._place(p) for p in points]
        steps, last = self.steps.before_stores(places), self.steps.stores()
        self.point = points[0]
        if self.target.device == "cpu":
            self.ahead = choose_ahead(self.nest, schedule, [*steps, *last])
        if lane is not None and tail is None:
            for early in self.picked:
                early.ask(self.values, bases, lane, len(vectors) * schedule.lanes)
        for step in steps:
            self._run(step, places, masks)
        if self.domain.part is not None and not self.domain.part.is_last:
            return
        turns = schedule.turned
        if turns is None and schedule.crossed not in (None, schedule.whole) and tail is None:
            # What is stored across the lanes may be combined with what is read so: whole blocks of it are transposed.
            turns = schedule.crossed if schedule.tile[schedule.crossed] % schedule.lanes == 0 else None
        # What is transposed in registers is stored place by place, or it would need too many registers.
        numbers = range(len(places))
        for together in [numbers] if schedule.turned is None else [[number] for number in numbers]:
            for site in self.domain.turn or self.nest.sites:
                if site.root is not None and not site.loops and not site.is_kept:
                    for number in together:
                        at = root_index(site.root, places[number], {})
                        if turns is not None:
                            values.turned = bases[turns][0], points[number][turns].const % schedule.lanes
                        value = values.at(site.root.value, at, masks)
                        self.stores.pend(site.root, at, value)
            with self.domain.stored_once(places[together[0]], bases):
                self.stores.store_pending(masks)
        values.turned = None
        for step in last:
            self._run(step, places, masks)

    def _place(self, point: Point) -> tuple[Ix, ...]:
        """The index of each axis of the group's domain at a point of the nest."""
        place: list[Ix] = []
        for axis in self.nest.place:
            ix = Ix(axis.const)
            for var, coefficient in axis.terms:
                ix = ix + point[var] * coefficient  # type: ignore[index]
            place.append(ix)
        return tuple(place)

    # reductions

    def _run(self, step: Step, places: list[tuple[Ix, ...]], masks: Masks) -> None:
        """The loops of one step."""
        if step.stages:
            self._reduce(step, places, masks)
            return
        loops = step.rows[0].loops

        def visit(point: Point, inner: Masks, carried: list[Value]) -> list[Value]:
            self._ask_ahead(step, point, inner)
            self._store_rows(step.rows, places, tuple(point[v] for v in loops), inner)
            return carried

        parts = self.schedule.split.get(step.rows[0], 1)
        self._iterate(step.rows[0], [[] for _ in range(parts)], masks, visit)

    def _ask_ahead(self, step: Step, over: Point, masks: Masks) -> None:
        """In the loop that has time for it, at the place `over`: ask for the lines of the next rows that begin here."""
        ahead = self.ahead
        if ahead is None or ahead.step is not step or masks.tail is not None:
            return
        (var,) = ahead.site.loops
        place = Ix(over[var].const, tuple((s, c) for s, c in over[var].terms if s is not self.lane))
        known = {**self.point, var: place}
        for access in ahead.accesses:
            if place.const * access.buffer.dtype.itemsize % LINE:
                continue
            ix = Ix(access.address.const + access.address.coefficient(self.nest.axes[-1]))
            for symbol, coefficient in access.address.terms:
                ix = ix + (known[symbol] if symbol in known else Ix.of(symbol)) * coefficient  # type: ignore[index]
            self.e.prefetch(self.params[access.buffer], self.values.address(ix)[0])

    def _store_rows(
        self, rows: tuple[Site, ...], places: list[tuple[Ix, ...]], at_loops: tuple[Ix, ...], masks: Masks
    ) -> None:
        """Store the elements of `rows` where their loops are at `at_loops`."""
        for site in rows:
            root = site.root
            assert root is not None
            own = dict(zip(inner_dims(root), site.place(at_loops), strict=True))
            indices = [root_index(root, place, own) for place in places]
            compute = self.values.kept_at if site.is_kept else self.values.at
            computed = [compute(root.value, at, masks) for at in indices]
            for at, value in zip(indices, computed, strict=True):
                self.stores.store(root, at, value, masks)

    def _reduce(self, step: Step, places: list[tuple[Ix, ...]], masks: Masks) -> None:
        """The reductions of one step, and the rows that are stored in the same loops."""
        todo = self._reduction(step)
        site, items = todo.site, todo.items
        parted = self.products if todo.is_product and self.domain.part is not None else None
        starts: list[Value] = []
        for stage, at in items:
            wide = todo.has_own_lane or any(self.lane in ix.symbols() for ix in at)
            starts += [self.e.splat(v, self.schedule.lanes) if wide else v for v in self.values.start(stage)]
        zeros = list(starts)
        self.inside = self._inside(site, items) if todo.is_product else {}
        searches = todo.has_steps and not todo.is_product
        self.searches = {item: Search(self.e, item[0].op) for item in items if searches}
        if parted is not None:
            parted.ask_for_sums(at for _, at in items)

        def visit(point: Point, inner: Masks, totals: list[Value]) -> list[Value]:
            self._ask_ahead(step, point, inner)
            return self._take_up(todo, places, point, inner, totals)

        split = self.schedule.split.get(site, 1)
        pinned, self.e.pinned = self.e.pinned, todo.is_product
        found = self._iterate(site, [starts, *(list(zeros) for _ in range(1, split))], masks, visit)
        self.e.pinned = pinned
        for number, item in enumerate(items):
            mine = slice(number * todo.width, (number + 1) * todo.width)
            if todo.width > 1:
                value = self._place_of(todo, item, [part[mine] for part in found], masks)
            else:
                value = self._total(todo, item, [part[number] for part in found], zeros[number])
            if value is not None:
                self.values.stages[item] = expand_cast(self.e, value, item[0].dtype)

    def _reduction(self, step: Step) -> Reduction:
        """What the reductions of a step take up in which order."""
        site = self.sites[step.stages[0][0]]
        items = [(stage, at) for stage, points in step.stages for at in points]
        unrolled = self.schedule.unrolled[site]
        if step.stages[0][0].op == "contract":
            items = streamed(items, site)
            registers = self.target.registers - (0 if self.target.fma else 1)
            groups = by_elements(items, site, unrolled, registers)
        else:
            groups = one_by_one(len(items), unrolled)
        has_own_lane = self.schedule.site_lane.get(site) is not None
        return Reduction(step, site, items, groups, has_own_lane, self.schedule.steps.get(site, 1) > 1)

    def _take_up(
        self, todo: Reduction, places: list[tuple[Ix, ...]], point: Point, masks: Masks, totals: list[Value]
    ) -> list[Value]:
        """`totals` and the elements, or products, of one body of the loops at `point`."""
        site, width, result = todo.site, todo.width, list(totals)
        unrolled, is_fenced = self.schedule.unrolled[site], todo.is_fenced
        at_taps: dict[tuple[int, ...], Index] = {}
        for group in todo.groups:
            self.e.epoch += 1
            elements: dict[Hashable, Value] = {}
            for number, (choice, item) in enumerate(group):
                if is_fenced and number % FENCED == 0:
                    self.e.fence()
                if choice not in at_taps:
                    taps = dict(zip(unrolled, map(Ix, choice), strict=True))
                    at_taps[choice] = tuple(taps[v] if v in taps else point[v] for v in site.loops)
                if todo.step.rows and not number:
                    self._store_rows(todo.step.rows, places, at_taps[choice], masks)
                stage, at = todo.items[item]
                mine = slice(item * width, (item + 1) * width)
                old = result[mine]
                over = self.sites[stage].place(at_taps[choice])
                new = self._accumulate(stage, at, over, old, masks, elements)
                if masks.tail is not None and todo.has_own_lane:
                    new = [self.e.op("select", masks.tail, n, o) for n, o in zip(new, old, strict=True)]
                result[mine] = new
        return result

    def _place_of(self, todo: Reduction, item: Item, parts: list[list[Value]], masks: Masks) -> Value:
        """The place that a search found, of its parts."""
        stage, at = item
        pairs = [(value, place) for value, place in parts]
        search = self.searches.get(item)
        if search is not None:
            return self._found(search, stage, at, todo.site, pairs[0], masks)
        return extremes.combine(self.e, stage.op, pairs, todo.has_own_lane)

    def _total(self, todo: Reduction, item: Item, parts: list[Value], zero: Value) -> Value | None:
        """A sum, or the like, of its parts; None where it goes on in the next part of the domain."""
        stage, at = item
        parted = self.products if todo.is_product and self.domain.part is not None else None
        if parted is None:
            return self._gather_up(stage, parts, todo.has_own_lane)
        sums = [*parts, parted.kept_sum(at, zero)]
        if parted.finishes:
            return self._gather_up(stage, sums, todo.has_own_lane)
        parted.keep_sum(at, self._gather_up(stage, sums, across=False))  # a sum that goes on stays in its lanes
        return None

    def _inside(self, site: Site, items: Sequence[tuple[Node, Index]]) -> dict[Var, tuple[Value, Value]]:
        """For loops of a contraction the steps in which the tile meets something other than zeros: from, and up to."""
        e, found, schedule = self.e, dict[Var, tuple[Value, Value]](), self.schedule
        parted = schedule.chunk.var if schedule.chunk is not None else None
        for var, border in schedule.borders.items():
            if var in (schedule.site_lane.get(site), parted):
                continue
            places = places_of(border, items, site.loops)
            across = [ix.coefficient(self.lane) for ix in places]
            bases = {tuple((s, c) for s, c in ix.terms if s is not self.lane) for ix in places}
            if len(bases) > 1 or min(across) < 0:
                continue
            base = self.values.index(Ix(0, bases.pop()))
            nearest = min(ix.const for ix in places)
            farthest = max(ix.const + c * self.lane.hi for ix, c in zip(places, across, strict=True))
            begin, end = (
                e.op("maximum", e.op("sub", e.const(edge + border.step - 1, INDEX), base), 0)
                for edge in (border.low - farthest, border.high - nearest)
            )
            if border.step > 1:
                begin, end = e.op("floordiv", begin, border.step), e.op("floordiv", end, border.step)
            found[var] = begin, e.op("minimum", end, var.hi + 1)
        return found

    def _found(
        self, search: Search, stage: Node, at: Index, site: Site, part: tuple[Value, Value], masks: Masks
    ) -> Value:
        """The place that a search by blocks gives, whose best block is read again."""
        lanes, extent = self.schedule.lanes, site.loops[0].hi + 1
        block = Var("block", extent - search.span(lanes))
        self.values.env[block] = search.begin(*part, extent, lanes)
        elements: list[Value] = []
        for k in range(extremes.BLOCK_VECTORS):
            over = site.place((Ix.of(block) + k * lanes + Ix.of(self.lane),))
            element = self.values.at(stage.inputs[0], reduction_reads(stage, at, over)[0], masks)
            elements.append(expand_cast(self.e, element, part[0].type.dtype))
        return search.finish(elements)

    def _gather_up(self, stage: Node, parts: list[Value], across: bool) -> Value:
        """Combine partial results pairwise, then across lanes."""
        op = "reduce_sum" if stage.op == "contract" else stage.op
        while len(parts) > 1:
            half = math.ceil(len(parts) / 2)
            parts = [reduce(partial(self.values.combine, op), parts[i::half]) for i in range(half)]
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

    def _accumulate(
        self, stage: Node, at: Index, over: Index, old: list[Value], masks: Masks, elements: dict[Hashable, Value]
    ) -> list[Value]:
        """`old` and one more element or product; `elements` has what the group of steps read before."""
        e, parts, reads = self.e, list[Value](), list[Index]()
        for number, key in enumerate(element_keys(stage, at, over)):
            part = elements.get(key)
            if part is None and stage.op == "contract" and self.products is not None and self.products.has(number):
                part = self.products.element(number, at, over)
            elif part is None:
                reads = reads or reduction_reads(stage, at, over)
                part = self.values.at(stage.inputs[number], reads[number], masks)
            elements[key] = part
            parts.append(part)
        dtype = accumulator_dtype(stage.inputs[0].dtype)
        if extremes.is_place(stage):
            part, search = expand_cast(e, parts[0], dtype), self.searches.get((stage, at))
            number = partial(
                self.values.number, linear(over, reduction_extents(stage)), extremes.number_dtype(stage)
            )  # fmt: skip
            if search is not None:
                return list(search.step(old[0], old[1], part, number))
            return list(extremes.step(e, stage.op, old[0], old[1], part, number()))
        wide = [expand_cast(e, p, factor_type(stage.inputs[0].dtype)) for p in parts]
        if stage.op != "contract":
            return [self.values.combine(stage.op, old[0], wide[0])]
        if wide[0].type.dtype is pbf16:
            return [e.op("fma_pairs", wide[0], wide[1], old[0])]
        if dtype.is_float and self.target.fma:
            return [e.op("fma", wide[0], wide[1], old[0])]
        return [e.op("add", old[0], e.op("mul", wide[0], wide[1]))]

    def _iterate(self, site: Site, carried: Parts, masks: Masks, visit: Visit) -> Parts:
        """Run `visit` over a site's looped variables."""
        known = self.e, self.values, self.schedule, self.lane, self.domain, self.products
        return SiteLoops(*known, site, masks, visit, self.inside).run(carried)

    # facts about the kernel

    def _work(self) -> tuple[int, int]:
        """Operations, and bytes of memory."""
        return self.nest.operations, sum(self.nest.moved(n) for n in self.params if n not in self.rows)
