"""The loops that a tile of a kernel runs one after another: which reductions and which stored rows share one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.codegen import extremes
from graphc.codegen.schedule import Schedule
from graphc.codegen.sites import Nest, Site, inner_dims, root_index
from graphc.ir.access import Index
from graphc.ir.demand import demands, reduction_extents, reduction_reads
from graphc.ir.index import Ix, Symbol, Var
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import Group
from graphc.ir.visit import topological


@record
class Step:
    """Reductions, with the indices at which they are wanted, and sites that store rows, all in one loop.

    At each place of the loop the rows come first, in order: a reduction may take up an element that is stored there.
    """

    stages: tuple[tuple[Node, tuple[Index, ...]], ...]
    rows: tuple[Site, ...]


class Steps:
    """Finds the steps of a group."""

    def __init__(self, group: Group, nest: Nest, schedule: Schedule) -> None:
        self._nest = nest
        self._inside = group.inside
        self._schedule = schedule
        self._sites: Mapping[Node, Site] = {s.stage: s for s in nest.sites if s.stage is not None}
        self._kept = {s.root.value: s for s in nest.sites if s.root is not None and s.is_kept}
        order = topological([r.value for r in group.roots], stop=lambda n: n not in group.inside)
        self._rank = {n: i for i, n in enumerate(order)}

    def before_stores(self, places: Sequence[tuple[Ix, ...]]) -> list[Step]:
        """All reductions that the roots need at `places`, and the rows that are kept."""
        wanted: dict[Node, dict[Index, None]] = {}
        requests: list[tuple[Node, Index]] = []
        for site in self._nest.sites:
            if site.root is not None:
                dims = inner_dims(site.root)
                own = dict(zip(dims, site.over, strict=True))
                requests.extend((site.root.value, root_index(site.root, place, own)) for place in places)
        inside = self._nest.inside | frozenset(self._kept)
        while requests:
            found = demands(requests, inside)
            requests = []
            for stage, at in found.stages:
                if at not in wanted.setdefault(stage, {}):
                    wanted[stage][at] = None
                    requests.extend(zip(stage.inputs, reduction_reads(stage, at, self._sites[stage].over), strict=True))
        steps = []
        for together in self._grouped(sorted((*wanted, *self._kept), key=self._rank.__getitem__)):
            stages = tuple((n, tuple(wanted[n])) for n in together if n not in self._kept)
            steps.append(Step(stages, tuple(self._kept[n] for n in together if n in self._kept)))
        return steps

    def stores(self) -> list[Step]:
        """The rows that are stored at last."""
        steps: list[Step] = []
        for site in self._nest.sites:
            if site.root is None or not site.loops or site.is_kept:
                continue
            number = next((i for i, step in enumerate(steps) if self._same_loops(step.rows[0], site)), None)
            if number is None:
                steps.append(Step((), (site,)))
            else:
                steps[number] = Step((), (*steps[number].rows, site))
        return steps

    def _grouped(self, items: list[Node]) -> list[list[Node]]:
        """Reductions and kept values that share loops; each group needs only those before it."""
        groups = []
        while items:
            together, rest = [items[0]], []
            for item in items[1:]:
                below = set(topological([item], stop=lambda n: n not in self._inside))
                if not below.intersection(rest) and self._may_join(together, item, below):
                    together.append(item)
                else:
                    rest.append(item)
            groups.append(together)
            items = rest
        return groups

    def _extents(self, item: Node) -> tuple[int, ...]:
        return tuple(v.hi for v in self._site(item).loops)

    def _site(self, item: Node) -> Site:
        return self._kept[item] if item in self._kept else self._sites[item]

    def _may_join(self, together: list[Node], item: Node, below: set[Node]) -> bool:
        """Whether `item` can run in the same loops as `together`: the same extents, nothing needed before it is
        whole.

        Costly rows run apart from reductions: those take several elements at once, for which there are not enough
        registers, and a row that is stored costs little to read again.
        """
        site = self._site(item)
        if any(n in self._kept and self._kept[n].heavy for n in (*together, item)):
            return False
        for other in together:
            if "contract" in (other.op, item.op) or extremes.is_place(other) != extremes.is_place(item):
                return False
            if other in self._kept or item in self._kept:
                if not self._same_loops(self._site(other), site):
                    return False
            elif reduction_extents(other) != reduction_extents(item) or self._extents(other) != self._extents(item):
                return False
            if other in below and not (other in self._kept and _at_same_place(self._kept[other], site)):
                return False
        return True

    def _same_loops(self, first: Site, second: Site) -> bool:
        """Whether the loops of two sites are the same, one by one."""
        return self._loops(first) == self._loops(second)

    def _loops(self, site: Site) -> tuple[object, ...]:
        schedule = self._schedule
        number = {v: i for i, v in enumerate(site.loops)}
        lane = schedule.site_lane.get(site)
        return (
            tuple(v.hi for v in site.loops),
            None if lane is None else number[lane],
            tuple(number[v] for v in schedule.loop_order[site]),
            tuple(number[v] for v in schedule.unrolled[site]),
        )


def _at_same_place(kept: Site, reader: Site) -> bool:
    """Whether `reader`, in loops like those of `kept`, reads only the element that is stored at the same place."""
    own: dict[Symbol, Var] = dict(zip(reader.loops, kept.loops, strict=True))
    store = kept.accesses[-1]
    return all(
        access.address.const == store.address.const
        and {own.get(s, s): c for s, c in access.address.terms} == dict(store.address.terms)
        for access in reader.accesses
        if access.buffer is store.buffer
    )
