"""Layout: store intermediates with one axis cut into blocks of the vector width, the places in a block last.

Convolutions over few channels and small pictures leave most lanes of a vector empty when lanes run along a picture's
row. When an axis such as the batch is never mixed by any operator (`axes.py`), it can be cut everywhere: `[n, c, h, w]`
becomes `[n/16, c, h, w, 16]`, and all 16 lanes work whatever the channel counts. The rewritten graph is an ordinary
graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.contraction import ContractSpec, format_spec, is_plain, parse_spec
from graphc.ir.contraction import Dim as SpecDim
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.types import TensorType, boolean, i64, identity
from graphc.passes.axes import Axes, Dim, is_uniform
from graphc.passes.base import PRIMITIVE, Pass

MAX_WASTE = 1.34  # padded lanes over real ones: beyond it another schedule is better
MIN_USES = 6  # multiply-adds for each element that is stored in another order, or that costs more than it brings
MIN_USES_WIDE = 20  # the same where rows of pictures fill WIDE vectors by themselves
WIDE = 2
# Products of an element of a result from which on wide pictures are faster a row of tiles after the other, if each
# window has so many results: fewer wait for what they read.
DEEP, FEW = 140, 8
BLOCK, LANE = "vb", "vl"  # labels of the cut axis in contraction formulas


@record(slots=False)
class Layout(Pass):
    """Put a separable axis into the lanes when that makes convolutions faster; `lanes` is the vector width in
    elements.
    """

    name: ClassVar[str] = "layout"
    doc: ClassVar[str] = "store intermediates with a batch-like axis across vector lanes where convolutions gain"
    requires = (PRIMITIVE,)

    lanes: int = 16

    def run(self, graph: Graph) -> Graph:
        axes = Axes(graph)
        chosen = _choose(graph, axes, self.lanes)
        return graph if chosen is None else _Rewriter(graph, axes, chosen, self.lanes).run()


def _choose(graph: Graph, axes: Axes, lanes: int) -> Dim | None:
    """The axis that most sliding-window arithmetic has in common, if cutting it pays."""
    work: dict[Dim, int] = {}
    rows: dict[Dim, int] = {}  # the shortest ones along which windows move
    along: dict[Dim, tuple[int, int]] = {}  # products of results that have the axis, and elements of these
    total = 0
    for node in graph.nodes:
        if node.op != "contract":
            continue
        spec = parse_spec(node.text("spec"))
        extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
        flops = math.prod(extents.values())
        total += flops
        sliding = [dim for dims in spec.operands for dim in dims if _slides(dim, extents)]
        if not sliding:
            continue
        row = max(extents[label] for label, _ in sliding[-1])
        deep = flops if _channels(spec, extents) >= FEW else 0
        found = {axes.of((n, d)) for n in (node, *node.inputs) for d in range(n.type.rank)}
        for axis in found:
            if axes.separable(axis):
                work[axis] = work.get(axis, 0) + flops
                rows[axis] = min(rows.get(axis, row), row)
                if axes.position(node, axis) is not None:
                    products, size = along.get(axis, (0, 0))
                    along[axis] = products + deep, size + node.type.size
    order: dict[Dim, int] = {}  # of first appearance, which decides between equals
    for node in graph.nodes:
        for d in range(node.type.rank):
            order.setdefault(axes.of((node, d)), len(order))
    best = max(work, key=lambda a: (work[a], -order[a]), default=None)
    if best is None or work[best] * 2 < total:
        return None
    is_wide = rows[best] >= WIDE * lanes
    products, size = along.get(best, (0, 0))
    if is_wide and products >= DEEP * size > 0:
        return None  # `minimal_filtering.py`: samples in the lanes would be too many for a cache
    if work[best] < (MIN_USES_WIDE if is_wide else MIN_USES) * _turned(graph, axes, best):
        return None
    node, d = best
    extent = node.shape[d]
    padded = -(-extent // lanes) * lanes
    return best if extent >= lanes and padded <= extent * MAX_WASTE else None


def _turned(graph: Graph, axes: Axes, axis: Dim) -> int:
    """Elements that come from outside or go there, and so are stored anew in the other order."""
    return sum(n.type.size for n in (*graph.inputs, *graph.outputs) if axes.position(n, axis) is not None)


def _channels(spec: ContractSpec, extents: Mapping[str, int]) -> int:
    """Results that the weights of a convolution give for each window."""
    shared = set(spec.x_labels) & set(spec.y_labels)
    slid = next(
        labels for dims, labels in ((spec.x, spec.x_labels), (spec.y, spec.y_labels)) if any(len(d) > 1 for d in dims)
    )
    return math.prod(extents[label] for label in spec.out if label not in shared and label not in slid)


def _slides(dim: SpecDim, extents: Mapping[str, int]) -> bool:
    """Whether windows move along a dimension: not where they have one place."""
    return sum(extents[label] > 1 for label, _ in dim) > 1


class _Rewriter:
    """Rebuilds a graph with one axis cut. A value with the axis has a *cut* form, made on demand; every value has a
    plain one.
    """

    def __init__(self, graph: Graph, axes: Axes, axis: Dim, lanes: int) -> None:
        self.graph = graph
        self.axes = axes
        self.b = Builder.of(graph)
        self.lanes = lanes
        self.extent = axis[0].shape[axis[1]]
        self.blocks = -(-self.extent // lanes)
        self.position = {n: axes.position(n, axis) for n in graph.nodes}
        self._cut: dict[Node, Node] = {}
        self._plain: dict[Node, Node] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            with self.b.at(node.locs):
                if node.op == "input":
                    self._plain[node] = node
                elif self.position[node] is not None and node.op != "constant":
                    self._cut[node] = self._rewrite(node)
                elif any(self.position[i] is not None for i in node.inputs):
                    self._plain[node] = self._leave(node)
                else:
                    inputs = tuple(map(self.plain, node.inputs))
                    self._plain[node] = self.b.make(node.op, inputs, node.attrs, node.type)
        return self.graph.with_outputs(tuple(map(self.plain, self.graph.outputs)))

    # the two forms

    def _others(self, node: Node) -> tuple[int, ...]:
        d = self.position[node]
        return tuple(n for i, n in enumerate(node.shape) if i != d)

    def _shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the cut form: blocks, the other dimensions in order, lanes."""
        return (self.blocks, *self._others(node), self.lanes)

    def cut(self, node: Node) -> Node:
        """The cut form of a value that has the axis."""
        if node not in self._cut:
            if node.op == "constant":
                value = node.attr("value")
                self._cut[node] = self.b.constant(value, node.type.with_shape(self._shape(node)))  # type: ignore[arg-type]
            else:
                self._cut[node] = self._cut_plain(self.plain(node), node)
        return self._cut[node]

    def _cut_plain(self, x: Node, node: Node) -> Node:
        d = self.position[node]
        assert d is not None
        missing = self.blocks * self.lanes - self.extent
        rank = x.type.rank
        x = self.b.pad(x, (0,) * rank, tuple(missing if i == d else 0 for i in range(rank)))
        x = self.b.reshape(x, (*x.shape[:d], self.blocks, self.lanes, *x.shape[d + 1 :]))
        others = [i for i in range(rank + 1) if i not in (d, d + 1)]
        return self.b.apply("materialize", (self.b.permute(x, (d, *others, d + 1)),))

    def plain(self, node: Node) -> Node:
        """The ordinary form of any value."""
        if node not in self._plain:
            d = self.position[node]
            if node.op == "constant" or d is None:
                self._plain[node] = node
            else:
                x = self._cut[node]
                rank = node.type.rank
                back = (*range(1, d + 1), 0, rank, *range(d + 1, rank))
                x = self.b.permute(x, back)
                padded = tuple(self.blocks * self.lanes if i == d else n for i, n in enumerate(node.shape))
                x = self.b.reshape(x, padded)
                if padded != node.shape:
                    x = self.b.slice(x, (0,) * rank, node.shape, (1,) * rank)
                self._plain[node] = x
        return self._plain[node]

    def _dim(self, node: Node, d: int) -> int:
        """Dimension of the cut form that holds dimension `d` (not the axis itself) of `node`."""
        axis = self.position[node]
        assert axis is not None and d != axis
        return d + 1 if d < axis else d

    # values that keep the axis

    def _rewrite(self, node: Node) -> Node:
        kind = OPS[node.op].kind
        if kind == "elementwise":
            inputs = tuple(self._uniform(x, node) if is_uniform(x) else self.cut(x) for x in node.inputs)
            return self.b.make(node.op, inputs, node.attrs, node.type.with_shape(self._shape(node)))
        if node.op == "iota":
            return self._iota(node)
        if kind == "reduction":
            x = node.inputs[0]
            axes = tuple(self._dim(x, d) for d in node.ints("axes"))
            return self.b.apply(node.op, (self.cut(x),), {**dict(node.attrs), "axes": axes})
        if node.op == "contract":
            return self._contract(node)
        return getattr(self, f"_{node.op}")(node)

    def _uniform(self, x: Node, reader: Node) -> Node:
        """A uniform operand of an elementwise operator, which need not have the axis that its reader has."""
        shape = self._shape(reader)
        if x.op == "constant":
            return self.b.constant(x.attr("value"), x.type.with_shape(shape))  # type: ignore[arg-type]
        return self.b.broadcast(self.b.reshape(self.plain(x.inputs[0]), ()), shape)

    def _iota(self, node: Node) -> Node:
        b, type = self.b, node.type.with_shape(self._shape(node))
        axis = node.integer("axis")
        if axis != self.position[node]:
            return b.iota(self._dim(node, axis), type)
        return b.add(b.mul(b.iota(0, type), self.lanes), b.iota(len(type.shape) - 1, type))

    def _broadcast(self, node: Node) -> Node:
        x = node.inputs[0]
        d = self.position[node]
        assert d is not None
        missing = node.type.rank - x.type.rank
        shape = self._shape(node)
        if self.position[x] is not None:
            full = (self.blocks, *(1,) * missing, *self._others(x), self.lanes)
            return self.b.broadcast(self.b.reshape(self.cut(x), full), shape)
        sizes = (*(1,) * missing, *x.shape)
        others = tuple(n for i, n in enumerate(sizes) if i != d)
        return self.b.broadcast(self.b.reshape(self.plain(x), (1, *others, 1)), shape)

    def _permute(self, node: Node) -> Node:
        x = node.inputs[0]
        kept = [self._dim(x, p) for p in node.ints("perm") if p != self.position[x]]
        return self.b.permute(self.cut(x), (0, *kept, node.type.rank))

    def _reshape(self, node: Node) -> Node:
        return self.b.reshape(self.cut(node.inputs[0]), self._shape(node))

    def _around(self, node: Node, values: Sequence[int], edge: tuple[int, int]) -> tuple[int, ...]:
        """Per-dimension attribute values for the cut form: those of the other dimensions between two for the axis."""
        d = self.position[node]
        return (edge[0], *(v for i, v in enumerate(values) if i != d), edge[1])

    def _slice(self, node: Node) -> Node:
        start = self._around(node, node.ints("start"), (0, 0))
        size = self._around(node, node.ints("size"), (self.blocks, self.lanes))
        return self.b.slice(self.cut(node.inputs[0]), start, size, self._around(node, node.ints("step"), (1, 1)))

    def _pad(self, node: Node) -> Node:
        low, high, between = (self._around(node, node.ints(k), (0, 0)) for k in ("low", "high", "interior"))
        return self.b.pad(self.cut(node.inputs[0]), low, high, between, node.attr("value"))  # type: ignore[arg-type]

    def _concat(self, node: Node) -> Node:
        return self.b.concat(tuple(map(self.cut, node.inputs)), self._dim(node, node.integer("axis")))

    def _window(self, node: Node) -> Node:
        x = node.inputs[0]
        axes = tuple(self._dim(x, a) for a in node.ints("axes"))
        size, stride, dilation = node.ints("size"), node.ints("stride"), node.ints("dilation")
        wide = self.b.window(self.cut(x), axes, size, stride, dilation)
        lane, count = x.type.rank, len(axes)
        return self.b.permute(wide, (*range(lane), *range(lane + 1, lane + 1 + count), lane))

    def _fold(self, node: Node) -> Node:
        x = node.inputs[0]
        axes = tuple(self._dim(node, a) for a in node.ints("axes"))
        lane, count = node.type.rank, len(axes)
        wide = self.b.permute(self.cut(x), (*range(lane), lane + count, *range(lane, lane + count)))
        return self.b.fold(wide, self._shape(node), axes, node.ints("stride"), node.ints("dilation"))

    def _contract(self, node: Node) -> Node:
        """A contraction whose result has the axis: it has it from one operand or from both."""
        spec = parse_spec(node.text("spec"))
        label = spec.out[self.position[node] or 0]
        inputs, dims = [], []
        for operand, old in zip(node.inputs, spec.operands, strict=True):
            has = self.position[operand] is not None and any(d == ((label, 1),) for d in old)
            inputs.append(self.cut(operand) if has else self.plain(operand))
            dims.append(_split(old, label) if has else old)
        out = (BLOCK, *(x for x in spec.out if x != label), LANE)
        return self.b.contract(inputs[0], inputs[1], format_spec(dims[0], dims[1], out))

    # values that lose the axis

    def _leave(self, node: Node) -> Node:
        """A value without the axis, computed from values that have it."""
        if node.op == "contract":
            return self._contract_over(node)
        if OPS[node.op].kind == "reduction" and self.position[node.inputs[0]] in node.ints("axes"):
            x = node.inputs[0]
            axis = self.position[x]
            other = tuple(self._dim(x, d) for d in node.ints("axes") if d != axis)
            axes = (0, *other, x.type.rank)
            kept = self._masked(self.cut(x), identity(node.op.removeprefix("reduce_"), node.inputs[0].dtype))
            return self.b.apply(node.op, (kept,), {**dict(node.attrs), "axes": axes})
        inputs = tuple(map(self.plain, node.inputs))
        return self.b.make(node.op, inputs, node.attrs, node.type)

    def _masked(self, x: Node, value: float | int | bool) -> Node:
        """`x` in cut form with the padded lanes set to `value`."""
        if self.blocks * self.lanes == self.extent:
            return x
        b, type = self.b, TensorType(i64, x.shape, x.type.device)
        place = b.add(b.mul(b.iota(0, type), self.lanes), b.iota(x.type.rank - 1, type))
        real = b.make("lt", (place, b.constant(self.extent, type)), (), TensorType(boolean, x.shape, x.type.device))
        return b.select(real, x, value)

    def _contract_over(self, node: Node) -> Node:
        """A contraction that sums over the axis.

        With sliding windows the lanes are summed at the end. Without, the operand with more columns is stored
        transposed, so that its columns lie along the lanes and the other operand is read one element at a time.
        """
        spec = parse_spec(node.text("spec"))
        over = [i for i, operand in enumerate(node.inputs) if self.position[operand] is not None]
        label = next(iter(spec.operands[over[0]][self.position[node.inputs[over[0]]] or 0]))[0]
        if len(over) < 2:
            inputs = tuple(map(self.plain, node.inputs))
            return self.b.make(node.op, inputs, node.attrs, node.type)
        slides = not all(is_plain(dim) for dims in spec.operands for dim in dims)
        inputs = [self._masked(self.cut(x), 0) for x in node.inputs]
        dims = [_split(old, label) for old in spec.operands]
        if not slides:
            columns = [math.prod(self._others(x)) for x in node.inputs]
            wide = 0 if columns[0] > columns[1] else 1
            rank = inputs[wide].type.rank
            turned = self.b.permute(inputs[wide], (0, rank - 1, *range(1, rank - 1)))
            inputs[wide] = self.b.apply("materialize", (turned,))
            dims[wide] = (dims[wide][0], dims[wide][-1], *dims[wide][1:-1])
        return self.b.contract(inputs[0], inputs[1], format_spec(dims[0], dims[1], spec.out))


def _split(dims: tuple[SpecDim, ...], label: str) -> tuple[SpecDim, ...]:
    """Operand dimensions of the cut form: `label` becomes a block label in front and a lane label at the end."""
    return (((BLOCK, 1),), *(d for d in dims if d != ((label, 1),)), ((LANE, 1),))
