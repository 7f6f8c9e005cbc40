"""The loops of a kernel and what each touches in memory: what the scheduler's cost model looks at.

A *site* is a reduction or a set of stores with its own loops inside the kernel's domain. Sites are found by walking
the roots at symbolic indices; adjacent axes that every access treats as one are collapsed first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from graphc.codegen.target import LINE
from graphc.ir.access import Index
from graphc.ir.demand import HEAVY, Demands, demands, reduction_extents, reduction_reads
from graphc.ir.index import ZERO, Derived, Ix, Symbol, Var, linear, reshape_index
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.row_sums import cut_of
from graphc.ir.schedule import Group, Root


@record
class Access:
    """One load or store of a site: which value, at which element."""

    buffer: Node
    address: Ix
    is_store: bool = False


@dataclass(eq=False, slots=True)
class Site:
    """`stage` is the reduction, or None for the stores of `root`. `loops` are the site's own variables besides the
    domain's, `over` is the index of each dimension that is reduced, or that the root does not share with the domain:
    a loop of its own, or several dimensions have one. What a site with `is_kept` stores is read again by others.
    """

    stage: Node | None
    root: Root | None
    loops: tuple[Var, ...]
    accesses: list[Access]
    maps: int
    heavy: int
    points: list[Index]  # for a stage: the indices at which one point of the domain wants it
    operands: list[list[tuple[Node, Ix]]] = field(
        default_factory=list
    )  # for a contraction: loads of x and of y, per point
    is_kept: bool = False
    over: tuple[Ix, ...] = ()

    @property
    def operations(self) -> int:
        """Scalar operations in a round of its loops, a heavy one counted as `HEAVY`."""
        return self.maps + (HEAVY - 1) * self.heavy

    def place(self, at: tuple[Ix, ...]) -> tuple[Ix, ...]:
        """The index of each dimension in `over` where the loops are at `at`."""
        if len(self.loops) == len(self.over):
            return at
        where = dict(zip(self.loops, at, strict=True))
        return tuple(where[ix.terms[0][0]] if ix.terms else ix for ix in self.over)  # type: ignore[index]


@dataclass(eq=False, slots=True)
class Nest:
    """Domain variables (collapsed axes included: axis -> variable, or None for an axis that always reads 0), and all
    sites.
    """

    axes: tuple[Var, ...]
    place: tuple[Ix, ...]  # index of each axis of the group's domain
    sites: list[Site]
    other: dict[Ix, None]  # indices whose value is used other than as an address
    inside: frozenset[Node]  # what is computed here, without values whose rows are kept

    def extent(self, var: Var) -> int:
        return var.hi + 1

    @property
    def points(self) -> int:
        return math.prod(v.hi + 1 for v in self.axes)

    @property
    def rows(self) -> tuple[Var, ...]:
        """The axes along which all rows are added to the same one."""
        sums = [s.accesses[-1].address for s in self.sites if s.root is not None and s.root.adds]
        return tuple(v for v in self.axes if sums and v.hi > 0 and not any(a.coefficient(v) for a in sums))

    @property
    def operations(self) -> int:
        """Arithmetic operations of the whole nest."""
        counts = (math.prod(v.hi + 1 for v in site.loops) * site.operations for site in self.sites)
        return self.points * sum(counts)

    def moved(self, buffer: Node) -> int:
        """Bytes of a buffer that the whole nest touches, at most: lines of what is picked or strided, or all of it."""
        total, itemsize = 0, buffer.dtype.itemsize
        for site in self.sites:
            variables = (*self.axes, *site.loops)
            points = math.prod(v.hi + 1 for v in variables)
            for address in (a.address for a in site.accesses if a.buffer is buffer):
                row = max((v.hi + 1 for v in variables if abs(address.coefficient(v)) == 1), default=1)
                total += points // row * max(LINE, row * itemsize)
        return min(buffer.type.nbytes, total or buffer.type.nbytes)


def store_address(root: Root, at: Index) -> Ix:
    """The element of the target that the value at index `at` goes to, where it has a place there (`kept_where`)."""
    for node in root.scatter:
        at = _index_after(node, root.part, at)
    return linear(at, root.target.shape)


def kept_where(root: Root, at: Index) -> tuple[tuple[Ix, int], ...]:
    """Indices that must be less than a number, or the value at index `at` has no place in the target."""
    found: list[tuple[Ix, int]] = []
    for node in root.scatter if root.is_cut else ():
        at = _index_after(node, root.part, at)
        if node.op == "slice":
            found += ((ix, extent) for ix, extent in zip(at, node.shape, strict=True) if ix.hi >= extent)
    return tuple(found)


def _index_after(node: Node, part: int, at: Index) -> Index:
    """The index into `node`, which a store goes through, of what has the index `at` in its operand number `part`."""
    if node.op == "slice":  # which keeps the beginning
        return at
    if node.op == "reshape":
        return reshape_index(at, node.inputs[0].shape, node.shape)
    if node.op == "reduce_sum":
        return tuple(ix for d, ix in enumerate(at) if d not in node.ints("axes"))
    if node.op == "pad":
        low, between = node.ints("low"), node.ints("interior")
        return tuple(ix * (gap + 1) + first for ix, first, gap in zip(at, low, between, strict=True))
    if node.op == "concat":
        axis = node.integer("axis")
        before = sum(x.shape[axis] for x in node.inputs[:part])
        return (*at[:axis], at[axis] + before, *at[axis + 1 :])
    rank = node.type.rank
    out = list(at[:rank])
    for k, axis in enumerate(node.ints("axes")):
        out[axis] = at[axis] * node.ints("stride")[k] + at[rank + k] * node.ints("dilation")[k]
    return tuple(out)


def root_index(root: Root, place: tuple[Ix, ...], inner: dict[int, Ix]) -> Index:
    """The index at which `root` is computed, from the indices of the domain's axes and of its own inner dimensions."""
    return tuple(place[d] if d >= 0 else inner.get(k, ZERO) for k, d in enumerate(root.dims))


def inner_dims(root: Root) -> list[int]:
    """The dimensions of the root's value that need an inner loop."""
    return [k for k, (d, n) in enumerate(zip(root.dims, root.value.shape, strict=True)) if d < 0 and n > 1]


def build_nest(group: Group, apart: int = 0, merge_loops: bool = False) -> Nest:
    """Walk `group` with one variable per axis, then again with adjacent axes collapsed where that changes no
    address. The first `apart` axes stay apart from the others. With `merge_loops` the loops of sites are collapsed too.
    """
    domain, join = _cut_rows(group)
    axes = tuple(Var(f"i{a}", max(n - 1, 0)) for a, n in enumerate(domain))
    nest = _walk(group, axes, join(tuple(ZERO if v.hi == 0 else Ix.of(v) for v in axes)), merge_loops)
    addresses = [*(a.address for site in nest.sites for a in site.accesses), *nest.other]
    runs = _collapsible(axes, addresses, axes[apart - 1] if apart else None)
    if all(len(run) == 1 for run in runs) and all(v.hi > 0 for v in axes):
        return nest
    merged: list[Var] = []
    place: list[Ix] = [ZERO] * len(axes)
    replaced: dict[Var, Ix] = {}
    for run in runs:
        extent = math.prod(v.hi + 1 for v in run)
        if extent == 1:
            continue
        var = Var(f"i{len(merged)}", extent - 1)
        merged.append(var)
        place[axes.index(run[-1])] = Ix.of(var)
        replaced.update(dict.fromkeys(run[:-1], ZERO) | {run[-1]: Ix.of(var)})
    collapsed = _walk(group, tuple(merged), join(tuple(place)), merge_loops)
    if _same(nest, collapsed, replaced):
        return collapsed
    kept = tuple(v for v in axes if v.hi > 0)
    return _walk(group, kept, join(tuple(Ix.of(v) if v.hi > 0 else ZERO for v in axes)), merge_loops)


def cut_axes(group: Group, nest: Nest) -> Nest | None:
    """The nest of `group` with axes cut where indices begin anew, as those of a reshaped permutation do: quotients and
    remainders become axes of their own. None where no axis can be cut so.
    """
    cuts = _cuts(nest)
    if not cuts:
        return None
    axes: list[Var] = []
    place = nest.place
    for var in nest.axes:
        steps = [1, *cuts.get(var, ()), var.hi + 1]
        total = ZERO
        for step, end in reversed(list(pairwise(steps))):
            axes.append(Var(f"i{len(axes)}", end // step - 1))
            total += Ix.of(axes[-1], step)
        place = tuple(_replaced(ix, var, total) for ix in place)
    return _walk(group, tuple(axes), place, merge_loops=False)


def _cuts(nest: Nest) -> dict[Var, list[int]]:
    """The numbers of places after which indices begin anew along an axis, each a multiple of the one before it."""
    found: dict[Var, set[int]] = {}
    for ix in (*(a.address for site in nest.sites for a in site.accesses), *nest.other):
        for symbol in ix.symbols():
            if not isinstance(symbol, Derived) or symbol.op == "clamp":
                continue
            for var, step in symbol.of.terms:
                while isinstance(var, Derived) and var.op == "mod" and len(var.of.terms) == 1 and step == 1:
                    ((var, step),) = var.of.terms  # the rest of an axis is cut as it is
                if isinstance(var, Var) and var in nest.axes and 0 < step < symbol.number < step * (var.hi + 1):
                    found.setdefault(var, set()).add(symbol.number // step if symbol.number % step == 0 else 0)
    cuts = {var: sorted(numbers) for var, numbers in found.items()}
    return {
        var: numbers
        for var, numbers in cuts.items()
        if all(n and m % n == 0 for n, m in zip(numbers, [*numbers[1:], var.hi + 1], strict=True))
    }


def _replaced(ix: Ix, var: Var, value: Ix) -> Ix:
    """`ix`, an affine index, with `value` for `var`."""
    coefficient = ix.coefficient(var)
    return ix + Ix.of(var, -coefficient) + value * coefficient if coefficient else ix


_Place = tuple[Ix, ...]


def _cut_rows(group: Group) -> tuple[tuple[int, ...], Callable[[_Place], _Place]]:
    """The domain with one axis cut where the parts of sums over rows begin, and what gives the place in the group's
    domain from the one in this.
    """
    cut = cut_of(group.roots, group.domain)
    if cut is None or cut[1] in (1, group.domain[cut[0]]):
        return group.domain, lambda place: place
    axis, pieces = cut
    each = group.domain[axis] // pieces

    def join(place: _Place) -> _Place:
        return (*place[:axis], place[axis] * each + place[axis + 1], *place[axis + 2 :])

    return (*group.domain[:axis], pieces, each, *group.domain[axis + 1 :]), join


def leading(axes: Sequence[Var], count: int) -> tuple[Var, ...]:
    """The first of `axes`, as many as have `count` places together; none when there are not such ones."""
    places = 1
    for number, var in enumerate(axes):
        if places == count:
            return tuple(axes[:number])
        places *= var.hi + 1
    return tuple(axes) if places == count else ()


def _collapsible(variables: Sequence[Var], addresses: Sequence[Ix], last: Var | None) -> list[list[Var]]:
    """Runs of neighbouring variables that all addresses step through as one; `last` is the last one of its run."""
    runs: list[list[Var]] = []
    for var in variables:
        previous = runs[-1][-1] if runs else None
        if (
            previous is not None
            and previous is not last
            and all(a.coefficient(previous) == a.coefficient(var) * (var.hi + 1) for a in addresses)
        ):
            runs[-1].append(var)
        else:
            runs.append([var])
    return runs


def _same(nest: Nest, collapsed: Nest, replaced: dict[Var, Ix]) -> bool:
    """Whether the collapsed walk reads and writes the same addresses."""
    if len(nest.sites) != len(collapsed.sites) or len(nest.other) != len(collapsed.other):
        return False
    return all(_same_site(*pair, replaced) for pair in zip(nest.sites, collapsed.sites, strict=True))


def _same_site(before: Site, after: Site, replaced: dict[Var, Ix]) -> bool:
    """Whether `after` touches the addresses of `before`, with variables replaced."""

    def substituted(ix: Ix) -> tuple[object, ...]:
        result = Ix(ix.const)
        for symbol, coefficient in ix.terms:
            result = result + (replaced[symbol] if symbol in replaced else Ix.of(symbol)) * coefficient  # type: ignore[index]
        return result.const, frozenset((_name(s), c) for s, c in result.terms)

    def plain(ix: Ix) -> tuple[object, ...]:
        return ix.const, frozenset((_name(s), c) for s, c in ix.terms)

    def _name(symbol: Symbol) -> object:
        return symbol.name if isinstance(symbol, Var) else symbol

    a = {(x.buffer, substituted(x.address), x.is_store) for x in before.accesses}
    b = {(x.buffer, plain(x.address), x.is_store) for x in after.accesses}
    return a == b and before.maps == after.maps


_Take = Callable[[Demands], None]
_Make = Callable[[tuple[Var, ...], tuple[Ix, ...], _Take], Site]


def _walk(group: Group, axes: tuple[Var, ...], place: tuple[Ix, ...], merge_loops: bool) -> Nest:
    sites: list[Site] = []
    other: dict[Ix, None] = {}
    wanted: dict[Node, dict[Index, None]] = {}

    def take(found: Demands) -> None:
        other.update(found.other)
        for stage, at in found.stages:
            wanted.setdefault(stage, {})[at] = None

    kept = {r.value for r in group.kept}
    inside = group.inside - kept
    make = _with_merged_loops if merge_loops else _with_loops
    for root in (*group.kept, *(r for r in group.roots if r.target not in kept)):
        inner = tuple(Var(f"q{k}", root.value.shape[k] - 1) for k in inner_dims(root))
        sites.append(make(partial(_root_site, root, place, inside, root.value in kept), inner, take))
    done: set[Node] = set()
    while len(done) < len(wanted):
        for stage in [s for s in wanted if s not in done]:
            done.add(stage)
            loops = tuple(Var(f"r{i}", max(n - 1, 0)) for i, n in enumerate(reduction_extents(stage)))
            each = _with_loops if stage.op == "contract" else make
            sites.append(each(partial(_stage_site, stage, list(wanted[stage]), inside), loops, take))
    return Nest(axes, place, sites, other, inside)


def _with_loops(make: _Make, loops: tuple[Var, ...], take: _Take) -> Site:
    """The site with a loop for each dimension."""
    return make(loops, tuple(map(Ix.of, loops)), take)


def _with_merged_loops(make: _Make, loops: tuple[Var, ...], take: _Take) -> Site:
    """The site with one loop for neighbouring dimensions where that changes no address."""
    found: list[Demands] = []
    site = _with_loops(make, loops, found.append)
    noted = [ix for walk in found for ix in walk.other]
    runs = _collapsible(loops, [*(a.address for a in site.accesses), *noted], None)
    if any(len(run) > 1 for run in runs):
        merged = [Var(run[-1].name, math.prod(v.hi + 1 for v in run) - 1) for run in runs]
        replaced: dict[Var, Ix] = {}
        for run, var in zip(runs, merged, strict=True):
            replaced.update(dict.fromkeys(run[:-1], ZERO) | {run[-1]: Ix.of(var)})
        again: list[Demands] = []
        shorter = make(tuple(merged), tuple(replaced[v] for v in loops), again.append)
        if _same_site(site, shorter, replaced) and sum(len(w.other) for w in again) == len(noted):
            site, found = shorter, again
    for walk in found:
        take(walk)
    return site


def _root_site(
    root: Root,
    place: tuple[Ix, ...],
    inside: frozenset[Node],
    is_kept: bool,
    loops: tuple[Var, ...],
    over: tuple[Ix, ...],
    take: _Take,
) -> Site:
    at = root_index(root, place, dict(zip(inner_dims(root), over, strict=True)))
    found = demands([(root.value, at)], inside | {root.value} if is_kept else inside)
    found.other.update(dict.fromkeys(ix for ix, _ in kept_where(root, at)))
    take(found)
    accesses = [Access(leaf, ix) for leaf, ix in found.loads]
    address = store_address(root, at)
    if root.adds:
        accesses.append(Access(root.target, address))
    accesses.append(Access(root.target, address, True))
    return Site(None, root, loops, accesses, found.maps + root.adds, found.heavy_maps, [], is_kept=is_kept, over=over)


def unrolled(nest: Nest, var: Var) -> Demands:
    """What the nest's roots want when all places of the axis `var` are computed together."""
    requests: list[tuple[Node, Index]] = []
    for k in range(var.hi + 1):
        place = tuple(_replaced(ix, var, Ix(k)) for ix in nest.place)
        requests.extend((s.root.value, root_index(s.root, place, {})) for s in nest.sites if s.root is not None)
    return demands(requests, nest.inside)


def tile_work(nest: Nest, lane: Var, lanes: int, count: int) -> int:
    """Operations for `count` vectors of the axis `lane` that begin at a multiple of all their lanes, each made once."""
    start = Ix.of(Var(lane.name, lane.hi, multiple=lanes * count)) + Ix.of(Var("lane", lanes - 1, lane=True))
    requests: list[tuple[Node, Index]] = []
    for t in range(count):
        place = tuple(_replaced(ix, lane, start + t * lanes) for ix in nest.place)
        requests.extend((s.root.value, root_index(s.root, place, {})) for s in nest.sites if s.root is not None)
    return demands(requests, nest.inside).operations


def _stage_site(
    stage: Node,
    points: list[Index],
    inside: frozenset[Node],
    loops: tuple[Var, ...],
    over: tuple[Ix, ...],
    take: _Take,
) -> Site:
    accesses: dict[Access, None] = {}
    operands: list[list[tuple[Node, Ix]]] = []
    maps = heavy = 0
    for at in points:
        reads = reduction_reads(stage, at, over)
        per_point = []
        for operand, read in zip(stage.inputs, reads, strict=True):
            found = demands([(operand, read)], inside)
            take(found)
            accesses.update(dict.fromkeys(Access(leaf, ix) for leaf, ix in found.loads))
            per_point.extend(found.loads)
            maps += found.maps + 1
            heavy += found.heavy_maps
        operands.append(per_point)
    return Site(stage, None, loops, list(accesses), maps, heavy, points, operands, over=over)
