"""Channels last: store pictures with the channels of a place side by side where convolutions multiply matrices of 16
bits.

Instructions on matrices take eight neighbours along a sum, or along rows, at once. In `[n, c, h, w]` windows begin
anywhere in a line, so that each element is copied by itself; in `[n, h, w, c]` sixteen bytes of channels move together.
An order of dimensions goes from a convolution through what is computed from it, up to where elements must be in the
order of the graph: its outputs, and operators that count places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, format_spec, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.index import reshape_blocks
from graphc.ir.narrow import factor_dtype, is_widening
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.ir.types import bf16, f16, f32
from graphc.passes.base import PRIMITIVE, Pass

Order = tuple[int, ...]  # dimension i of what is stored is dimension order[i] of the value
MIN_USES = 512  # multiply-adds for each element that is stored anew in another order
TOGETHER = 16  # bytes of channels that move at once


@record(slots=False)
class ChannelsLast(Pass):
    """Move channels last around convolutions of 16-bit floats, and of f32 where products may round them to `tf32`."""

    name: ClassVar[str] = "channels_last"
    doc: ClassVar[str] = "store pictures with their channels side by side where convolutions multiply small matrices"
    requires = (PRIMITIVE,)

    tf32: bool = False

    def run(self, graph: Graph) -> Graph:
        found = {n: roles for n in graph.nodes if n.op == "contract" and (roles := _roles(n)) is not None}
        dtypes = (f16, bf16, f32) if self.tf32 else (f16, bf16)
        fitting = {n for n, roles in found.items() if factor_dtype(n) in dtypes and roles.fits(n)}
        work = sum(roles.work for n, roles in found.items() if n in fitting and roles.slides)
        if not work:
            return graph
        rewriter = _Rewriter(graph, found, fitting)
        result = rewriter.run()
        return result if work >= MIN_USES * rewriter.turned else graph


@record
class _Roles:
    """The tensors of a convolution, or of one of its gradients: the one that windows slide over, that of positions, and
    the kernel. Numbers are 0 and 1 for the operands, 2 for the result.

    `orders` are those with the channels last, by the same numbers; of the kernel, with the places of a window before
    them. `channels` are the extents of the two kinds of channels.
    """

    kernel: int
    orders: tuple[Order, Order, Order]
    channels: tuple[int, int]
    work: int
    slides: bool

    def fits(self, node: Node) -> bool:
        """Whether all copies can be of whole pieces."""
        return not any(extent * factor_dtype(node).itemsize % TOGETHER for extent in self.channels)


def _roles(node: Node) -> _Roles | None:
    """What the tensors of a contraction are to it; None where no windows slide, or there are several kinds of channels
    (groups).
    """
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    dims: tuple[tuple[Dim, ...], ...] = (*spec.operands, tuple(((label, 1),) for label in spec.out))
    pairs = [[dim for dim in tensor if len(dim) > 1] for tensor in dims]
    if bool(pairs[0]) == bool(pairs[1]) or any(len(dim) > 2 for dim in (*pairs[0], *pairs[1])):
        return None
    image = 0 if pairs[0] else 1
    other = 1 - image
    slid = {label for dim in pairs[image] for label, _ in dim}
    labels = [{label for dim in tensor for label, _ in dim} for tensor in dims]
    theirs, results = slid & labels[other], slid & labels[2]
    if theirs & results or theirs | results != slid:
        return None
    # A window has fewer places than there are positions.
    kernel, positions = (other, 2) if _size(extents, theirs) <= _size(extents, results) else (2, other)
    windows = slid & labels[kernel]
    of_image = (labels[image] & labels[kernel]) - labels[positions] - slid
    of_positions = (labels[positions] & labels[kernel]) - labels[image] - slid
    if len(of_image) != 1 or len(of_positions) != 1 or labels[image] & labels[kernel] & labels[positions]:
        return None
    (mine,), (its,) = of_image, of_positions
    orders = [_with_last(dims[t], {image: mine, positions: its}.get(t), windows) for t in range(3)]
    slides = any(min(extents[label] for label, _ in dim) > 1 for dim in pairs[image])
    return _Roles(
        kernel, (orders[0], orders[1], orders[2]), (extents[mine], extents[its]), math.prod(extents.values()), slides
    )


def _size(extents: dict[str, int], labels: set[str]) -> int:
    return math.prod(extents[label] for label in labels)


def _with_last(dims: Sequence[Dim], label: str | None, windows: set[str]) -> Order:
    """The order of `dims` with `label` at the end. Without one, the channels that come last there stay last, and the
    places of windows stand before them: the same order for the kernel of a convolution and those of its gradients.
    """
    if label is not None:
        return tuple(sorted(range(len(dims)), key=lambda d: dims[d] == ((label, 1),)))
    channels = [d for d, dim in enumerate(dims) if dim[0][0] not in windows]
    return (*channels[:-1], *(d for d in range(len(dims)) if d not in channels), channels[-1])


def _like(out: Sequence[str], operands: Sequence[tuple[Dim, ...]]) -> Order:
    """The order of the result's labels that the larger operand has them in, with those of the other one at the end."""
    larger = max(operands, key=len)
    known = [label for dim in larger for label, _ in dim]
    return tuple(sorted(range(len(out)), key=lambda d: known.index(out[d]) if out[d] in known else len(known) + d))


def _usual(rank: int) -> Order:
    return tuple(range(rank))


class _Rewriter:
    """Rebuilds a graph. Each value is made in one order, its `home`; others are permuted from that. What is as quickly
    made in any order (`flexible`) is made where it is asked for.
    """

    def __init__(self, graph: Graph, convolutions: dict[Node, _Roles], fitting: set[Node]) -> None:
        self.graph = graph
        self.convolutions = convolutions
        self.fitting = fitting
        self.b = Builder.of(graph)
        self.turned = 0  # elements that are stored anew, or given out in another order
        self.home: dict[Node, Order] = {}
        self.flexible: set[Node] = set()
        self._forms: dict[tuple[Node, Order], Node] = {}
        self._stored: dict[Node, Node] = {}
        self._rules: dict[str, Callable[[Node], None]] = {
            "contract": self._contract,
            "broadcast": self._broadcast,
            "reshape": self._reshape,
            "permute": self._permute,
            "concat": self._concat,
            "window": self._window,
            "fold": self._fold,
        }

    def run(self) -> Graph:
        for node in self.graph.nodes:
            with self.b.at(node.locs):
                self._visit(node)
        outputs = []
        for node in self.graph.outputs:
            if self.home[node] != _usual(node.type.rank):
                self.turned += node.type.size
            outputs.append(self.form(node, _usual(node.type.rank)))
        return self.graph.with_outputs(tuple(outputs))

    # forms

    def _made(self, node: Node, made: Node, home: Order) -> None:
        self.home[node] = home
        self._forms[node, home] = made

    def form(self, node: Node, order: Order) -> Node:
        """`node` in an order."""
        known = self._forms.get((node, order))
        if known is None:
            if node in self.flexible:
                known = self._emit(node, order)
            else:
                known = self._turn(self._forms[node, self.home[node]], self.home[node], order)
            self._forms[node, order] = known
        return known

    def _turn(self, made: Node, home: Order, order: Order) -> Node:
        perm = tuple(home.index(d) for d in order)
        moved = [d for d in perm if made.shape[d] > 1]
        if moved == sorted(moved):
            return self.b.reshape(made, tuple(made.shape[d] for d in perm))
        return self.b.permute(made, perm)

    def stored(self, node: Node, order: Order) -> Node:
        """`node` in an order in which it is read in pieces: permuted in memory where it is not at home in it."""
        if node.op in ("pad", "slice") and node not in self.flexible and self.home[node] != order:
            return self._moved(node, self.stored(node.inputs[0], order), order)
        if is_widening(node) and node not in self.flexible and self.home[node] != order:
            return self.b.cast(self.stored(node.inputs[0], order), node.dtype)
        made = self.form(node, order)
        if made.op != "permute":
            return made
        if made not in self._stored:
            self.turned += made.type.size
            self._stored[made] = self.b.apply("materialize", (made,))
        return self._stored[made]

    def _order(self, nodes: Sequence[Node], rank: int) -> Order:
        """The order in which most of `nodes` are made that are of this rank and not made on demand."""
        homes = Counter(self.home[n] for n in nodes if n not in self.flexible and n.type.rank == rank)
        usual = _usual(rank)
        return max(homes, key=lambda order: (homes[order], order == usual), default=usual)

    # values

    def _visit(self, node: Node) -> None:
        usual, kind = _usual(node.type.rank), OPS[node.op].kind
        if node.op == "input":
            self._made(node, node, usual)
        elif node.op in ("constant", "iota"):
            self.home[node] = usual
            self.flexible.add(node)
        elif kind == "elementwise" and node.op != "materialize":
            if all(x in self.flexible for x in node.inputs):
                self.home[node] = usual
                self.flexible.add(node)
            else:
                self._made(node, self._emit(node, order := self._order(node.inputs, node.type.rank)), order)
        elif kind == "reduction":
            self._reduce(node)
        elif node.op in ("pad", "slice"):
            order = self._order(node.inputs, node.type.rank)
            self._made(node, self._moved(node, self.form(node.inputs[0], order), order), order)
        elif node.op in self._rules:
            self._rules[node.op](node)
        else:
            self._leave(node)

    def _leave(self, node: Node) -> None:
        """A value whose operands are in the order of the graph."""
        inputs = tuple(self.form(x, _usual(x.type.rank)) for x in node.inputs)
        self._made(node, self.b.make(node.op, inputs, node.attrs, node.type), _usual(node.type.rank))

    def _emit(self, node: Node, order: Order) -> Node:
        """An elementwise operator, or what is made on demand, in an order."""
        type = node.type.with_shape(tuple(node.shape[d] for d in order))
        if node.op == "constant":
            return self.b.constant(node.attr("value"), type)  # type: ignore[arg-type]
        if node.op == "iota":
            return self.b.iota(order.index(node.integer("axis")), type)
        if node.op == "broadcast":
            x = node.inputs[0]
            missing = node.type.rank - x.type.rank
            whole = self.form(x, tuple(d - missing for d in order if d >= missing))
            sizes = iter(whole.shape)
            return self.b.broadcast(
                self.b.reshape(whole, tuple(1 if d < missing else next(sizes) for d in order)), type.shape
            )
        return self.b.make(node.op, tuple(self.form(x, order) for x in node.inputs), node.attrs, type)

    def _broadcast(self, node: Node) -> None:
        self.home[node] = _usual(node.type.rank)
        self.flexible.add(node)
        x = node.inputs[0]
        home = self.home[x]
        if x not in self.flexible and home != _usual(x.type.rank):
            missing = node.type.rank - x.type.rank
            order = (*range(missing), *(d + missing for d in home))
            made = self._emit(node, order)
            self.flexible.remove(node)
            self._made(node, made, order)

    def _moved(self, node: Node, x: Node, order: Order) -> Node:
        """A `pad` or `slice` of `x`, which is its operand in `order`."""

        def turned(name: str) -> tuple[int, ...]:
            return tuple(node.ints(name)[d] for d in order)

        if node.op == "slice":
            return self.b.slice(x, turned("start"), turned("size"), turned("step"))
        value = node.attr("value")
        return self.b.pad(x, turned("low"), turned("high"), turned("interior"), value)  # type: ignore[arg-type]

    def _reduce(self, node: Node) -> None:
        x, axes = node.inputs[0], node.ints("axes")
        order = self._order(node.inputs, x.type.rank)
        if node.op.startswith("arg") and [order.index(a) for a in axes] != sorted(order.index(a) for a in axes):
            order = _usual(x.type.rank)  # it counts places along the axes
        kept = [d for d in range(x.type.rank) if d not in axes]
        home = tuple(kept.index(d) for d in order if d not in axes)
        places = tuple(sorted(order.index(a) for a in axes))
        made = self.b.apply(node.op, (self.form(x, order),), {**dict(node.attrs), "axes": places})
        self._made(node, made, home)

    def _permute(self, node: Node) -> None:
        x, perm = node.inputs[0], node.ints("perm")
        rank = node.type.rank
        # A tensor in the memory format `channels_last` is the permutation of what lies in memory.
        is_last = x.op == "input" and rank > 2 and perm == (0, rank - 1, *range(1, rank - 1))
        if x in self.flexible or (self.home[x] == _usual(rank) and not is_last):
            self._leave(node)
            return
        self._made(node, self._forms[x, self.home[x]], tuple(perm.index(d) for d in self.home[x]))

    def _reshape(self, node: Node) -> None:
        """Dimensions that are cut or joined stay together, in the place of the first of them."""
        x = node.inputs[0]
        order, rank = self._order(node.inputs, x.type.rank), x.type.rank
        if order == _usual(rank) or node.type.size == 0:
            self._leave(node)
            return

        def place(block: tuple[range, range]) -> int:
            moving = [d for d in block[0] if x.shape[d] > 1] or list(block[0])
            return order.index(moving[0]) if moving else rank

        blocks = sorted(reshape_blocks(x.shape, node.shape), key=place)
        home = tuple(d for _, mine in blocks for d in mine)
        made = self.b.reshape(
            self.form(x, tuple(d for theirs, _ in blocks for d in theirs)), tuple(node.shape[d] for d in home)
        )
        self._made(node, made, home)

    def _concat(self, node: Node) -> None:
        order = self._order(node.inputs, node.type.rank)
        parts = tuple(self.form(x, order) for x in node.inputs)
        self._made(node, self.b.concat(parts, order.index(node.integer("axis"))), order)

    def _window(self, node: Node) -> None:
        x = node.inputs[0]
        order, count = self._order(node.inputs, x.type.rank), len(node.ints("axes"))
        axes = tuple(order.index(a) for a in node.ints("axes"))
        if axes != tuple(sorted(axes)):
            self._leave(node)
            return
        attributes = (node.ints(name) for name in ("size", "stride", "dilation"))
        made = self.b.window(self.form(x, order), axes, *attributes)
        self._made(node, made, (*order, *range(x.type.rank, x.type.rank + count)))

    def _fold(self, node: Node) -> None:
        x, rank = node.inputs[0], node.type.rank
        order = self._order(node.inputs, x.type.rank)
        if order[rank:] != tuple(range(rank, x.type.rank)):  # the places of a window, which stay last
            self._leave(node)
            return
        order = order[:rank]
        axes = tuple(order.index(a) for a in node.ints("axes"))
        if axes != tuple(sorted(axes)):
            self._leave(node)
            return
        whole = self.form(x, (*order, *range(rank, x.type.rank)))
        shape = tuple(node.shape[d] for d in order)
        self._made(node, self.b.fold(whole, shape, axes, node.ints("stride"), node.ints("dilation")), order)

    def _contract(self, node: Node) -> None:
        """A contraction reads and gives whatever order its formula says."""
        spec, roles = parse_spec(node.text("spec")), self.convolutions.get(node)
        inputs, dims = [], []
        for number, (x, old) in enumerate(zip(node.inputs, spec.operands, strict=True)):
            order = self._order([x], x.type.rank)
            if roles is not None and node in self.fitting:
                order = roles.orders[number]
                inputs.append(self.stored(x, order))
            else:
                inputs.append(self.form(x, order))
            dims.append(tuple(old[d] for d in order))
        home = _usual(node.type.rank)
        if roles is not None and (node in self.fitting or roles.kernel != 2):
            home = roles.orders[2]
        elif roles is None and inputs != [self.form(x, _usual(x.type.rank)) for x in node.inputs]:
            home = _like(spec.out, dims)
        out = tuple(spec.out[d] for d in home)
        self._made(node, self.b.contract(inputs[0], inputs[1], format_spec(dims[0], dims[1], out)), home)
