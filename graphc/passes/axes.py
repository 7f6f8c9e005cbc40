"""Which dimensions of which values are one and the same axis, and whether nothing ever mixes positions along it."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.ir.contraction import is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.index import reshape_blocks
from graphc.ir.node import Node
from graphc.ir.opdef import OPS

Dim = tuple[Node, int]


def is_uniform(node: Node) -> bool:
    """Whether a value is one number everywhere by the way it is made: nothing has to lie along its dimensions."""
    return node.op == "constant" or (node.op == "broadcast" and node.inputs[0].type.size == 1)


class Axes:
    """Dimensions of a graph joined into axes (union-find). An axis is *separable* when no operator mixes its positions
    except by reducing over it or counting along it, so it may be cut and stored in another order everywhere at once.

    A uniform operand of an elementwise operator joins nothing: equal values are one node, so that the same `1.0` may
    stand for a number of each sample and of each channel.
    """

    def __init__(self, graph: Graph) -> None:
        self._parent: dict[Dim, Dim] = {}
        self._mixed: set[Dim] = set()
        for node in graph.nodes:
            self._visit(node)
        for node in graph.nodes:  # an axis that stands twice in one value cannot be moved as one
            axes = [self.of((node, d)) for d in range(node.type.rank)]
            self._mix(a for a in axes if axes.count(a) > 1)
        self._mixed = {self.of(d) for d in self._mixed}

    def of(self, dim: Dim) -> Dim:
        """The representative of the axis that `dim` belongs to."""
        root = dim
        while (up := self._parent.get(root, root)) != root:
            root = up
        while (up := self._parent.get(dim, dim)) != root:
            self._parent[dim] = root
            dim = up
        return root

    def separable(self, axis: Dim) -> bool:
        return axis not in self._mixed

    def position(self, node: Node, axis: Dim) -> int | None:
        """The dimension of `node` that lies along `axis`, if one does."""
        for d in range(node.type.rank):
            if self.of((node, d)) == axis:
                return d
        return None

    def _join(self, a: Dim, b: Dim) -> None:
        self._parent[self.of(a)] = self.of(b)

    def _mix(self, dims: Iterable[Dim]) -> None:
        self._mixed.update(dims)

    def _visit(self, node: Node) -> None:
        kind = OPS[node.op].kind
        if kind == "elementwise":
            for operand in node.inputs:
                for d in range(0 if is_uniform(operand) else node.type.rank):
                    self._join((operand, d), (node, d))
        elif kind == "movement":
            self._movement(node)
        elif kind == "reduction":
            self._reduction(node)
        elif kind == "contraction":
            self._contraction(node)
        elif kind != "source":
            self._mix((n, d) for n in (node, *node.inputs) for d in range(n.type.rank))

    def _movement(self, node: Node) -> None:
        x = node.inputs[0]
        if node.op == "permute":
            for i, d in enumerate(node.ints("perm")):
                self._join((x, d), (node, i))
        elif node.op == "broadcast":
            offset = node.type.rank - x.type.rank
            for d, n in enumerate(x.shape):
                if n == node.shape[offset + d]:
                    self._join((x, d), (node, offset + d))
        elif node.op == "reshape":
            self._reshape(node, x)
        else:
            moved = self._moved(node)
            for operand in node.inputs:
                for d in range(min(node.type.rank, operand.type.rank)):
                    if d in moved:
                        self._mix([(operand, d), (node, d)])
                    else:
                        self._join((operand, d), (node, d))
            longer = node if node.type.rank > x.type.rank else x
            self._mix((longer, d) for d in range(min(node.type.rank, x.type.rank), longer.type.rank))

    def _moved(self, node: Node) -> set[int]:
        """Dimensions along which the operator moves elements."""
        x = node.inputs[0]
        if node.op == "slice":
            parts = zip(node.ints("start"), node.ints("size"), node.ints("step"), x.shape, strict=True)
            return {d for d, (start, size, step, n) in enumerate(parts) if (start, size, step) != (0, n, 1)}
        if node.op == "pad":
            parts = zip(node.ints("low"), node.ints("high"), node.ints("interior"), strict=True)
            return {d for d, p in enumerate(parts) if any(p)}
        return {node.integer("axis")} if node.op == "concat" else set(node.ints("axes"))

    def _reshape(self, node: Node, x: Node) -> None:
        if node.type.size == 0:
            self._mix((n, d) for n in (node, x) for d in range(n.type.rank))
            return
        for theirs, mine in reshape_blocks(x.shape, node.shape):
            big_x = [d for d in theirs if x.shape[d] > 1]
            big = [d for d in mine if node.shape[d] > 1]
            if len(big_x) == len(big) == 1:
                self._join((x, big_x[0]), (node, big[0]))
            else:
                self._mix([(x, d) for d in big_x] + [(node, d) for d in big])

    def _reduction(self, node: Node) -> None:
        x, axes = node.inputs[0], node.ints("axes")
        kept = [d for d in range(x.type.rank) if d not in axes]
        for i, d in enumerate(kept):
            self._join((x, d), (node, i))
        if node.op.startswith("arg"):
            self._mix((x, d) for d in axes)

    def _contraction(self, node: Node) -> None:
        spec = parse_spec(node.text("spec"))
        first: dict[str, Dim] = {label: (node, i) for i, label in enumerate(spec.out)}
        slid: set[str] = set()  # labels of sliding windows
        for operand, dims in zip(node.inputs, spec.operands, strict=True):
            for d, dim in enumerate(dims):
                if not is_plain(dim):
                    self._mix([(operand, d)])
                    slid.update(label for label, _ in dim)
                    continue
                label = dim[0][0]
                if label in first:
                    self._join((operand, d), first[label])
                else:
                    first[label] = (operand, d)
        self._mix(first[label] for label in slid if label in first)
