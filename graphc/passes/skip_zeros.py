"""Contractions that multiply by zeros between elements become contractions of the elements alone.

The gradient of a convolution of stride s by its input slides a window over the cotangent with s-1 zeros between its
elements. Of the results whose position leaves the rest p when it is divided by s, only every s-th tap of the kernel
meets an element: these results, a *phase*, are a contraction of the cotangent as it is with those taps. The phases are
stored next to each other, element by element. Where the kernel is a multiple of s long, all phases have as many taps,
and become one contraction with the phase as one more label of the kernel.
"""

from __future__ import annotations

import math
from itertools import product

from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, Dim, format_spec, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass
from graphc.passes.phases import Axis, Phase, Spread, spread_of

COPY = 16  # products that storing an element of a phase once more counts for
STEP = 1 << 13  # products that one more kernel counts for
MAX_PHASES = 32  # more of them are too many kernels


@record(slots=False)
class SkipZeros(Pass):
    """Split contractions over an operand with zeros between its elements into phases, which read none of those zeros,
    and compute no results that a slice drops, where that takes fewer multiplications.

    As exact as the contraction, but that products of those zeros with infinities and NaN are gone.
    """

    name = "skip_zeros"
    doc = "split contractions over operands with zeros between elements into phases without them"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        while (result := _rewrite(graph)) is not graph:
            graph = result  # each round multiplies less: the other operand may have zeros too
        return graph


def _rewrite(graph: Graph) -> Graph:
    if not any(n.op == "contract" and any(x.op in ("pad", "slice") for x in n.inputs) for n in graph.nodes):
        return graph
    kept = set(graph.outputs)
    b = Builder.of(graph)
    done: dict[Node, Node] = {}
    for node in graph.nodes:
        operands = tuple(done[x] for x in node.inputs)
        with b.at(node.locs):
            made = node if operands == node.inputs else b.make(node.op, operands, node.attrs, node.type)
        source = node.inputs[0] if node.op == "slice" else node
        users = graph.users.get(source, ())
        if source.op == "contract":
            sliced = source not in kept and len(users) == 1 and next(iter(users)).op == "slice"
            if sliced == (node is not source):
                with b.at(source.locs):
                    made = _without_zeros(b, done[source] if sliced else made, made if sliced else None) or made
        if made.op in ("contract", "reduce_sum"):
            with b.at(source.locs):
                made = (_without_border if made.op == "contract" else _sum_without_border)(b, made) or made
        done[node] = made
    return graph.with_outputs(tuple(done[o] for o in graph.outputs))


def _sum_without_border(b: Builder, node: Node) -> Node | None:
    """A sum over all of a border of zeros without it."""
    x, axes = node.inputs[0], node.ints("axes")
    if x.op != "pad" or x.attr("value") != 0 or any(x.ints("interior")) or not node.dtype.is_float:
        return None
    edges = list(zip(x.ints("low"), x.ints("high"), strict=True))
    if any(min(edge) < 0 or (max(edge) and d not in axes) for d, edge in enumerate(edges)):
        return None
    return b.apply("reduce_sum", (x.inputs[0],), dict(node.attrs))


def _without_border(b: Builder, node: Node) -> Node | None:
    """The contraction `node` without those terms of its sums that a border of zeros makes; None where that is no gain:
    the gradient by the weights of a convolution, of whose results pooling drops the last.
    """
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    for side, x in enumerate(node.inputs):
        if x.op != "pad" or x.attr("value") != 0 or any(x.ints("interior")):
            continue
        edges: dict[str, tuple[int, int]] = {}
        pads = [list(x.ints("low")), list(x.ints("high"))]
        for dim, terms in enumerate(spec.operands[side]):
            (label, step), low, high = terms[0], pads[0][dim], pads[1][dim]
            if len(terms) == 1 and step == 1 and label not in spec.out and min(low, high) >= 0 < max(low, high):
                edges[label] = low, high
                pads[0][dim] = pads[1][dim] = 0
        if not edges or any(sum(label == k for dim in spec.operands[side] for k, _ in dim) > 1 for label in edges):
            continue
        left = {label: n - sum(edges.get(label, (0, 0))) for label, n in extents.items()}
        if math.prod(extents.values()) - math.prod(left.values()) < STEP or min(left.values()) < 1:
            continue  # infinities and NaN may be lost: not for a trifle
        y, dims = node.inputs[1 - side], spec.operands[1 - side]
        start = tuple(sum(c * edges.get(label, (0, 0))[0] for label, c in dim) for dim in dims)
        size = tuple(
            n - sum(c * sum(edges.get(label, (0, 0))) for label, c in dim) for n, dim in zip(y.shape, dims, strict=True)
        )
        inner = b.pad(x.inputs[0], tuple(pads[0]), tuple(pads[1]))
        part = b.slice(y, start, size, (1,) * len(dims))
        left, right = (part, inner) if side else (inner, part)
        return b.contract(left, right, node.text("spec"))
    return None


def _without_zeros(b: Builder, node: Node, cut: Node | None) -> Node | None:
    """The contraction `node`, or the slice `cut` of it, in phases; None when that is no gain."""
    if not math.prod((node.type.size, *(x.type.size for x in node.inputs), 1 if cut is None else cut.type.size)):
        return None
    spec = parse_spec(node.text("spec"))
    for side in (0, 1):
        plan = _plan(node, cut, spec, side)
        if plan is not None:
            return plan.build(b)
    return None


def _plan(node: Node, cut: Node | None, spec: ContractSpec, side: int) -> _Plan | None:
    """How to compute `cut` or all of `node` from the elements of operand `side`, if that takes fewer products."""
    base, spreads = spread_of(node.inputs[side])
    if cut is None and all(d.step == 1 for d in spreads):
        return None
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    other = spec.operands[1 - side]
    axes = []
    for dim, terms in enumerate(spec.operands[side]):
        place = _place(terms, spec.out, other)
        if place is None:
            continue
        (label, coefficient), (tap_label, dilation) = place
        out = spec.out.index(label)
        start, size, step = _range(cut, out, extents[label])
        spread = spreads[dim]
        moved = Spread(spread.low - coefficient * start, spread.step, spread.first, spread.end, spread.size)
        taps, tap_dim = (1, -1) if tap_label is None else (extents[tap_label], other.index(((tap_label, 1),)))
        axes.append(Axis(dim, out, label, coefficient * step, tap_label, tap_dim, dilation, taps, size, moved))
    before = math.prod(extents[a.label] * a.taps for a in axes)
    after = math.prod(a.products for a in axes)
    joined = math.prod(a.count for a in axes if a.is_joined)
    rest = math.prod(extents.values()) // before
    moves = joined > 1 or any(a.is_merged for a in axes)
    cost = STEP if any(a.spread.step > 1 for a in axes) else 0  # infinities and NaN may be lost: not for a trifle
    if moves:
        cost += COPY * (node if cut is None else cut).type.size + STEP * joined
    if joined > MAX_PHASES or rest * after + cost >= rest * before:
        return None
    return _Plan(node, cut, spec, side, base, tuple(spreads), tuple(axes))


def _place(
    terms: Dim, out: tuple[str, ...], other: tuple[Dim, ...]
) -> tuple[tuple[str, int], tuple[str | None, int]] | None:
    """The label of the result and that of the kernel (or None) in a dimension of the operand, if it is of that form."""
    elsewhere = {label for dim in other for label, _ in dim}
    results = [t for t in terms if t[0] in out and t[0] not in elsewhere]
    taps = [t for t in terms if t[0] not in out and ((t[0], 1),) in other]
    if len(results) != 1 or len(results) + len(taps) != len(terms) or len(taps) > 1:
        return None
    return results[0], taps[0] if taps else (None, 0)


def _range(cut: Node | None, dim: int, extent: int) -> tuple[int, int, int]:
    """First, number and distance of the results that `cut` wants along a dimension, in ascending order."""
    if cut is None:
        return 0, extent, 1
    start, size, step = (cut.ints(name)[dim] for name in ("start", "size", "step"))
    return (start, size, step) if step > 0 else (start + (size - 1) * step, size, -step)


@record
class _Plan:
    """A contraction `node`, or a slice `cut` of it, over `base` in operand `side`, in phases along `axes`."""

    node: Node
    cut: Node | None
    spec: ContractSpec
    side: int
    base: Node
    spreads: tuple[Spread, ...]
    axes: tuple[Axis, ...]

    def build(self, b: Builder) -> Node:
        """The whole result, in order."""
        if not all(axis.phases for axis in self.axes):
            return b.zeros_like(self.node if self.cut is None else self.cut)
        operand, before = self._operand(b)
        parts = {
            tuple(phase.rest for phase in chosen): self._phase(b, operand, before, chosen)
            for chosen in product(*(axis.phases for axis in self.axes))
        }
        return self._cut_rest(b, self._apart(b, self._together(b, parts)))

    def _operand(self, b: Builder) -> tuple[Node, list[int]]:
        """The elements, with as many zeros at the ends as any phase walks over, and how many those in front are."""
        rank = self.base.type.rank
        along = {axis.dim: axis for axis in self.axes}
        ranges = [
            (0, n) if d not in along else (s.first, s.end)
            for d, (n, s) in enumerate(zip(self.base.shape, self.spreads, strict=True))
        ]
        x = self.base
        if any(r != (0, n) for r, n in zip(ranges, x.shape, strict=True)):
            x = b.slice(x, tuple(lo for lo, _ in ranges), tuple(hi - lo for lo, hi in ranges), (1,) * rank)
        low, high, interior, before = [0] * rank, [0] * rank, [0] * rank, [0] * rank
        for d, (spread, (lo, hi)) in enumerate(zip(self.spreads, ranges, strict=True)):
            axis = along.get(d)
            if axis is None:
                low[d], interior[d] = spread.low, spread.step - 1
                high[d] = spread.size - 1 - (spread.low + spread.step * (hi - 1))
                continue
            low[d] = max(0, *(lo - phase.offset for phase in axis.phases))
            high[d] = max(0, *(phase.offset + axis.reach(phase) - hi for phase in axis.phases))
            before[d] = low[d] - lo
        return b.pad(x, tuple(low), tuple(high), tuple(interior)), before

    def _phase(self, b: Builder, x: Node, before: list[int], chosen: tuple[Phase, ...]) -> Node:
        """The results of one phase along each axis."""
        x_dims, start, size = list(self.spec.operands[self.side]), [0] * x.type.rank, list(x.shape)
        for axis, phase in zip(self.axes, chosen, strict=True):
            d = axis.dim
            start[d], size[d], x_dims[d] = before[d] + phase.offset, axis.reach(phase), axis.terms(phase)
        x = _slice(b, x, start, size, [1] * x.type.rank)
        y, y_dims, out, merged = self._taps(b, chosen)
        dims, operands = [tuple(x_dims), y_dims], [x, y]
        if self.side:
            dims.reverse()
            operands.reverse()
        result = b.contract(operands[0], operands[1], format_spec(dims[0], dims[1], out))
        return self._interleaved(b, result, out, merged) if merged else result

    def _interleaved(self, b: Builder, x: Node, labels: tuple[str, ...], merged: dict[int, str]) -> Node:
        """A contraction with merged phases as further dimensions as what is wanted of its results in order."""
        order = [n for d, label in enumerate(self.spec.out) for n in ((label, merged[d]) if d in merged else (label,))]
        x = b.permute(x, tuple(labels.index(label) for label in order))
        shape = [x.shape[order.index(label)] for label in self.spec.out]
        start, size = [0] * len(shape), list(shape)
        for axis in self.axes:
            if axis.is_merged:
                shape[axis.out] *= axis.spread.step
                start[axis.out], size[axis.out] = axis.merged_start, axis.size
        return _slice(b, b.reshape(x, tuple(shape)), start, size, [1] * len(shape))

    def _taps(
        self, b: Builder, chosen: tuple[Phase, ...]
    ) -> tuple[Node, tuple[Dim, ...], tuple[str, ...], dict[int, str]]:
        """The taps of one phase along each axis, what their dimensions stand for, the labels of the result, and those
        among them that stand for merged phases, by the dimension of the whole's result.

        A dimension of taps of merged phases becomes one of the taps of a phase, and one of the phases.
        """
        y = self.node.inputs[1 - self.side]
        along = {axis.tap_dim: (axis, phase) for axis, phase in zip(self.axes, chosen, strict=True)}
        start, size, step = [0] * y.type.rank, list(y.shape), [1] * y.type.rank
        shape: list[int] = []
        dims: list[Dim] = []
        turned: list[int] = []
        merged: dict[int, str] = {}
        out = list(self.spec.out)
        for d, dim in enumerate(self.spec.operands[1 - self.side]):
            if d not in along:
                dims.append(dim)
                shape.append(y.shape[d])
                continue
            axis, phase = along[d]
            if not axis.is_merged:
                start[d], size[d], step[d] = phase.tap, phase.taps, axis.every if phase.taps > 1 else 1
            if phase.taps > 1:
                dims.append(dim)
                shape.append(phase.taps)
            if axis.is_merged:
                turned.append(len(shape))
                label = _fresh({*self.spec.labels, *out})
                dims.append(((label, 1),))
                shape.append(axis.spread.step)
                out.insert(0, label)  # phases one after the other: rows of results are stored side by side
                merged[axis.out] = label
        y = b.reshape(_slice(b, y, start, size, step), tuple(shape))
        if turned:
            y = b.flip(y, tuple(turned))
        is_kernel = all(phase.taps <= axis.extent(phase) for axis, phase in along.values())
        if is_kernel and any(axis.every > 1 and (phase.taps > 1 or axis.is_merged) for axis, phase in along.values()):
            # Whole lines of taps, in the order in which they are summed up, rather than a few out of each.
            perm = sorted(range(len(dims)), key=lambda d: any(label in out for label, _ in dims[d]))
            y = b.apply("materialize", (b.permute(y, tuple(perm)),))
            dims = [dims[d] for d in perm]
        return y, tuple(dims), tuple(out), merged

    def _together(self, b: Builder, parts: dict[tuple[int, ...], Node]) -> Node:
        """The results of all phases, in order."""
        joined = [(k, axis) for k, axis in enumerate(self.axes) if axis.is_joined]
        first = next(iter(parts.values()))
        if not joined:
            return first
        order = sorted(joined, key=lambda pair: pair[1].out)
        after = {axis.out for _, axis in order}
        split = tuple(n for d, size in enumerate(first.shape) for n in ((size, 1) if d in after else (size,)))
        zeros = b.zeros_like(first)
        rests = [range(axis.count) if axis.is_joined else (axis.phases[0].rest,) for axis in self.axes]
        level = {at: b.reshape(parts.get(at, zeros), split) for at in product(*rests)}
        for position, (k, axis) in reversed(list(enumerate(order))):
            heads = dict.fromkeys((*at[:k], 0, *at[k + 1 :]) for at in level)
            ranks = {at: tuple(level[(*at[:k], rest, *at[k + 1 :])] for rest in range(axis.count)) for at in heads}
            level = {at: b.concat(ranks[at], axis.out + position + 1) for at in heads}
        (whole,) = level.values()
        counts = {axis.out: axis.count for _, axis in order}
        x = b.reshape(whole, tuple(n * counts.get(d, 1) for d, n in enumerate(first.shape)))
        wanted = list(x.shape)
        for _, axis in order:
            wanted[axis.out] = axis.size
        return _slice(b, x, [0] * x.type.rank, wanted, [1] * x.type.rank)

    def _apart(self, b: Builder, x: Node) -> Node:
        """Zeros around the results of phases that stand alone."""
        low, high, interior = ([0] * x.type.rank for _ in range(3))
        for axis in self.axes:
            if axis.stands_alone:
                (phase,), d = axis.phases, axis.out
                low[d], interior[d] = phase.rest, axis.count - 1
                high[d] = axis.size - 1 - (phase.rest + axis.count * (x.shape[d] - 1))
        return b.pad(x, tuple(low), tuple(high), tuple(interior))

    def _cut_rest(self, b: Builder, x: Node) -> Node:
        """What is left of the slice: other dimensions, and the order along those of the axes."""
        if self.cut is None:
            return x
        start, size, step = (list(self.cut.ints(name)) for name in ("start", "size", "step"))
        for axis in self.axes:
            backwards = step[axis.out] < 0
            start[axis.out], step[axis.out] = (axis.size - 1, -1) if backwards else (0, 1)
        return _slice(b, x, start, size, step)


def _fresh(known: set[str]) -> str:
    """A label that is not in use."""
    return next(label for label in (f"t{k}" for k in range(len(known) + 1)) if label not in known)


def _slice(b: Builder, x: Node, start: list[int], size: list[int], step: list[int]) -> Node:
    """A slice, or `x` itself when that is all of it."""
    if not any(start) and tuple(size) == x.shape and all(n == 1 for n in step):
        return x
    return b.slice(x, tuple(start), tuple(size), tuple(step))
