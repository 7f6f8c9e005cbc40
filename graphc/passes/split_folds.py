"""Sums of what windows have at their places, element by element of the result, become sums of shifted values.

An element whose place leaves the rest p when it is divided by the stride s is in those windows only of which it is
the place r with r*dilation = p modulo s: the elements of one rest, a *phase*, are a sum of some places of the windows,
each shifted by a fixed number of windows. The phases are stored next to each other, element by element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.demand import HEAVY, is_reduction, is_zero, needs_loop, reduction_extents
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.types import TensorType, bf16, f16, f32
from graphc.passes.base import PRIMITIVE, Pass
from graphc.passes.shown import MOVEMENT, SOURCES, is_scatter
from graphc.passes.stored import SPREAD

MAX_PLACES = 36  # places of a window; the sum of more of them is too long for one kernel
MAX_PHASES = 32

Ints = tuple[int, ...]


@record(slots=False)
class SplitFolds(Pass):
    """Compute the gradient of windows without storing it for each place of each window.

    What all places of a window share, such as where its maximum stands, is computed once for each window. As exact as
    the fold: the same terms are added in the same order.
    """

    name: ClassVar[str] = "split_folds"
    doc: ClassVar[str] = "split sums over windows into sums of shifted values, one for each remainder of the place"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        folds = {n: plan for n in graph.nodes if n.op == "fold" and (plan := _plan(graph, n)) is not None}
        if not folds:
            return graph
        roots = {plan.root: plan for plan in folds.values()}
        b = Builder.of(graph)
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            with b.at(node.locs):
                plan = roots.get(node)
                if plan is not None and (made := _Split(b, plan, done[plan.fold.inputs[0]]).build()) is not None:
                    done[node] = made
                    continue
                operands = tuple(done[x] for x in node.inputs)
                done[node] = node if operands == node.inputs else b.make(node.op, operands, node.attrs, node.type)
        return graph.with_outputs(tuple(done[o] for o in graph.outputs))


@record
class _Axis:
    """Windows along one axis: element `stride*m + p` of the result is place `r` of window `m + c` for each (r, c) in
    `taps[p]`. The result has `size` elements, `count` for each phase.
    """

    dim: int
    windows: int
    size: int
    count: int
    taps: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def shifts(self) -> tuple[int, ...]:
        """The distances between elements and windows."""
        return tuple(c for phase in self.taps for _, c in phase)


@record
class _Plan:
    """The sum `fold`, or the slice `root` of it, along `axes`."""

    fold: Node
    root: Node
    axes: tuple[_Axis, ...]


def _plan(graph: Graph, fold: Node) -> _Plan | None:
    """How to split `fold`, if it is not too large."""
    windows = fold.inputs[0]
    rank, dims = fold.type.rank, fold.ints("axes")
    if not windows.type.size or fold.dtype.kind == "bool":
        return None
    strides, dilations = fold.ints("stride"), fold.ints("dilation")
    if math.prod(windows.shape[rank:]) > MAX_PLACES or math.prod(strides) > MAX_PHASES:
        return None
    if is_scatter(fold) and math.prod(strides) == 1:
        return None
    root, start = fold, (0,) * rank
    users = graph.users[fold]
    if len(users) == 1 and fold not in graph.outputs:
        (user,) = users
        if user.op == "slice" and _cuts_only(user, dims):
            root, start = user, user.ints("start")
    axes = []
    for k, dim in enumerate(dims):
        stride, dilation, size = strides[k], dilations[k], root.shape[dim]
        if size < stride:
            return None
        taps = tuple(
            tuple(
                (r, (rest + start[dim] - dilation * r) // stride)
                for r in range(windows.shape[rank + k])
                if (rest + start[dim] - dilation * r) % stride == 0
            )
            for rest in range(stride)
        )
        axes.append(_Axis(dim, windows.shape[dim], size, -(-size // stride), taps))
    return _Plan(fold, root, tuple(axes))


def _cuts_only(cut: Node, dims: Ints) -> bool:
    """Whether a slice takes neighbours, and all there is but along `dims`."""
    whole = (n == m for d, (n, m) in enumerate(zip(cut.shape, cut.inputs[0].shape, strict=True)) if d not in dims)
    return all(step == 1 for step in cut.ints("step")) and all(whole) and cut.type.size > 0


@dataclass
class _Split:
    """The construction of a plan's result from the values in `windows`."""

    b: Builder
    plan: _Plan
    windows: Node
    moved: dict[tuple[Node, Ints], Node] = field(default_factory=dict)
    padded: dict[Node, Node] = field(default_factory=dict)
    found: dict[Node, Node | None] = field(default_factory=dict)
    is_spread: bool = True  # whether all places of a window are made of what they have in common

    @property
    def rank(self) -> int:
        return self.plan.fold.type.rank

    def build(self) -> Node | None:
        """The result; None where each place is one of its own, and goes to one place of its own in any case."""
        b, axes = self.b, self.plan.axes
        parts = [self._phase(chosen) for chosen in product(*(axis.taps for axis in axes))]
        if not self.is_spread and is_scatter(self.plan.fold):
            return None
        x = parts[0]
        if len(parts) > 1:
            steps = tuple(len(axis.taps) for axis in axes)
            shape = list(x.shape)
            for axis, step in zip(axes, steps, strict=True):
                shape[axis.dim] *= step
            together = b.concat(tuple(b.reshape(part, (*part.shape, 1)) for part in parts), self.rank)
            spread = b.reshape(together, (*parts[0].shape, *steps))
            x = b.fold(spread, tuple(shape), tuple(axis.dim for axis in axes), steps, (1,) * len(axes))
        if x.shape == self.plan.root.shape:
            return x
        return b.slice(x, (0,) * self.rank, self.plan.root.shape, (1,) * self.rank)

    def _phase(self, chosen: tuple[tuple[tuple[int, int], ...], ...]) -> Node:
        """The sum of some places of the windows, added up in the order in which a fold does."""
        b, dtype = self.b, self.windows.dtype
        wide = f32 if dtype in (f16, bf16) else dtype
        total: Node | None = None
        for taps in product(*chosen):
            place, shift = tuple(r for r, _ in taps), tuple(c for _, c in taps)
            term = b.cast(self._term(self.windows, place, shift, {}), wide)
            total = term if total is None else b.add(total, term)
        if total is None:
            total = b.constant(0, self._type(self.windows).with_dtype(wide))
        return b.cast(total, dtype)

    def _term(self, node: Node, place: Ints, shift: Ints, known: dict[Node, Node]) -> Node:
        """`node` at one place of its windows, shifted; zero past the ends."""
        b = self.b
        if node.op == "select" and (is_zero(node.inputs[1]) or is_zero(node.inputs[2])):
            condition = self._anything(node.inputs[0], place, shift, known)
            if condition is not None:
                x, y = (self._term(operand, place, shift, known) for operand in node.inputs[1:])
                return b.select(condition, x, y)
        if node.op == "cast":
            return b.cast(self._term(node.inputs[0], place, shift, known), node.dtype)
        if is_zero(node):
            return b.constant(0, self._type(node))
        shared = self._shared(node)
        if shared is None:
            self.is_spread = False
            at = (0,) * self.rank + place
            size = (*node.shape[: self.rank], *(1 for _ in place))
            shared = b.reshape(b.slice(node, at, size, (1,) * node.type.rank), node.shape[: self.rank])
        return self._moved(shared, shift)

    def _anything(self, node: Node, place: Ints, shift: Ints, known: dict[Node, Node]) -> Node | None:
        """`node` at one place of its windows, shifted, and what there may be past the ends; None where it is easier to
        compute it and then shift it.
        """
        if node in known:
            return known[node]
        b = self.b
        made: Node | None
        if node.op == "constant":
            made = b.make("constant", (), node.attrs, self._type(node))
        elif (shared := self._shared(node)) is not None:
            made = self._moved(shared, shift)
        elif node.op == "iota" and node.integer("axis") >= self.rank:
            made = b.constant(place[node.integer("axis") - self.rank], self._type(node))
        elif OPS[node.op].kind == "elementwise":
            operands = [self._anything(x, place, shift, known) for x in node.inputs]
            some = tuple(x for x in operands if x is not None)
            made = b.make(node.op, some, node.attrs, self._type(node)) if len(some) == len(operands) else None
        else:
            made = None
        if made is not None:
            known[node] = made
        return made

    def _type(self, node: Node) -> TensorType:
        shape = list(node.shape[: self.rank])
        for axis in self.plan.axes:
            shape[axis.dim] = axis.count
        return node.type.with_shape(tuple(shape))

    def _shared(self, node: Node) -> Node | None:
        """What all places of a window have in common, if `node` is a copy of that for each."""
        if node not in self.found:
            self.found[node] = self._find_shared(node)
        return self.found[node]

    def _find_shared(self, node: Node) -> Node | None:
        if node.op == "constant":
            return self.b.make("constant", (), node.attrs, node.type.with_shape(node.shape[: self.rank]))
        if node.op != "broadcast":
            return None
        (source,) = node.inputs
        shape = (1,) * (node.type.rank - source.type.rank) + source.shape
        if any(n != 1 for n in shape[self.rank :]):
            return None
        head, wanted = shape[: self.rank], node.shape[: self.rank]
        value = source.inputs[0] if source.op == "reshape" and source.inputs[0].shape == head else source
        value = self.b.reshape(value, head)
        windows = math.prod(len(set(axis.shifts)) for axis in self.plan.axes)  # in which an element is
        if _work(value) * (windows - 1) > SPREAD:
            value = self.b.apply("materialize", (value,))
        return self.b.broadcast(value, wanted)

    def _moved(self, node: Node, shift: Ints) -> Node:
        """`node`, which has one value for each window, at the windows of each element; zero past the ends."""
        key = node, shift
        if key not in self.moved:
            low, high = [0] * self.rank, [0] * self.rank
            start, size = [0] * self.rank, list(node.shape)
            for axis, c in zip(self.plan.axes, shift, strict=True):
                low[axis.dim] = max(0, -min(axis.shifts))
                high[axis.dim] = max(0, axis.count + max(axis.shifts) - axis.windows)
                start[axis.dim], size[axis.dim] = low[axis.dim] + c, axis.count
            x = self.b.pad(node, tuple(low), tuple(high))
            if any(start) or tuple(size) != x.shape:
                x = self.b.slice(x, tuple(start), tuple(size), (1,) * self.rank)
            self.moved[key] = x
        return self.moved[key]


def _work(root: Node) -> int:
    """Operations for one element of `root` in line; those in loops are done once in any case."""
    stack, seen, work = [root], {root}, 0
    while stack:
        node = stack.pop()
        if node.op in SOURCES or needs_loop(node) or node.op == "materialize":
            continue
        if OPS[node.op].kind == "elementwise":
            work += HEAVY if OPS[node.op].is_heavy else 1
        elif node.op not in MOVEMENT and node.op != "pad":
            work += math.prod(reduction_extents(node)) if is_reduction(node) else 1
        stack.extend(x for x in node.inputs if x not in seen)
        seen.update(node.inputs)
    return work
