"""Reductions read memory in an order that suits them.

A reduction of a transposed value reads it as it lies, and what is kept is transposed: also where it is computed in
line of such values.

A reduction over the elements of two rows, for each pair of them (the distances of all points to all others), has a
result for each row along its last axis, and vectors run along that. So the rows' elements that belong together are put
side by side before: vectors along the rows would be combined across lanes for each pair.

The first few of an order are selected from elements that lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.demand import UNROLLED_REDUCTION
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass, rebuild
from graphc.passes.rules.reduction import keeps_order, reduced_as_it_lies

REUSED = 8  # times that each element is read, from which on another order in memory pays
FEW = 64  # elements that are sorted as fast where they lie
_REDUCTIONS = frozenset({"reduce_sum", "reduce_prod", "reduce_max", "reduce_min"})


@record(slots=False)
class ReductionOrder(Pass):
    """Reduce transposed values as they lie, and put elements side by side of rows that are reduced for each pair of
    them, or that few are selected from.

    `lanes` are those of a vector of 4 bytes each. Reductions that are computed in line load rows as they lie.
    """

    name: ClassVar[str] = "reduction_order"
    doc: ClassVar[str] = "reduce transposed values as they lie, and rows for each pair of them side by side"
    requires = (PRIMITIVE,)

    lanes: int = 4

    def run(self, graph: Graph) -> Graph:
        return rebuild(graph, self._ordered)

    def _ordered(self, b: Builder, node: Node) -> Node | None:
        if node.op == "argselect":
            return _selected_in_rows(b, node)
        if node.op not in _REDUCTIONS or OPS[node.inputs[0].op].kind != "elementwise":
            return None
        return _as_it_lies(b, node) or self._side_by_side(b, node)

    def _side_by_side(self, b: Builder, node: Node) -> Node | None:
        (x,) = node.inputs
        last = x.type.rank - 1
        if node.ints("axes") != (last,) or x.shape[last] <= UNROLLED_REDUCTION or x.shape[last - 1] < self.lanes:
            return None
        rows: list[Node] = []
        for leaf in _leaves(x):
            kept = (1, 1, *leaf.inputs[0].shape) if leaf.op == "broadcast" else (1, 1)
            if leaf.op not in ("broadcast", "constant"):
                return None
            if kept[-2] > 1:
                if kept[-1] == 1 or leaf.inputs[0].type.size * REUSED > leaf.type.size:
                    return None
                rows.append(leaf)
        if not rows:
            return None

        def turned(leaf: Node) -> Node:
            if leaf not in rows:
                return leaf
            (y,) = leaf.inputs
            swapped = (*range(y.type.rank - 2), y.type.rank - 1, y.type.rank - 2)
            side_by_side = b.apply("materialize", (b.permute(y, swapped),))
            return b.broadcast(b.permute(side_by_side, swapped), leaf.shape)

        return b.make(node.op, (_rebuilt(b, x, turned),), node.attrs, node.type)


def _as_it_lies(b: Builder, node: Node) -> Node | None:
    """The reduction of what is computed of values that are all permuted alike, over their own dimensions."""
    (x,) = node.inputs
    leaves = _leaves(x)
    perms = {leaf.ints("perm") for leaf in leaves if leaf.op == "permute"}
    if len(perms) != 1 or any(leaf.op not in ("permute", "broadcast", "constant") for leaf in leaves):
        return None
    (perm,) = perms
    if not keeps_order(node, perm):
        return None
    back = tuple(perm.index(d) for d in range(len(perm)))

    def unpermuted(leaf: Node) -> Node:
        shape = tuple(leaf.shape[d] for d in back)
        if leaf.op == "permute":
            return leaf.inputs[0]
        if leaf.op == "constant":
            return b.make("constant", (), leaf.attrs, leaf.type.with_shape(shape))
        (y,) = leaf.inputs
        y = b.reshape(y, (1,) * (len(perm) - y.type.rank) + y.shape)
        return b.broadcast(b.permute(y, back), shape)

    return reduced_as_it_lies(b, node, _rebuilt(b, x, unpermuted), perm)


def _selected_in_rows(b: Builder, node: Node) -> Node | None:
    """A selection along another dimension than the last one as one along that."""
    (x,), axis = node.inputs, node.integer("axis")
    last = x.type.rank - 1
    if axis == last or x.shape[axis] <= FEW:
        return None
    perm = (*(d for d in range(last + 1) if d != axis), axis)
    rows = b.apply("materialize", (b.permute(x, perm),))
    selected = b.apply("argselect", (rows,), {**dict(node.attrs), "axis": last})
    return b.permute(selected, tuple(perm.index(d) for d in range(last + 1)))


def _leaves(x: Node) -> list[Node]:
    """What elementwise operators compute `x` of."""
    found: dict[Node, None] = {}
    seen, todo = {x}, [x]
    while todo:
        node = todo.pop()
        if OPS[node.op].kind != "elementwise" or node.op == "materialize":
            found[node] = None
            continue
        fresh = [i for i in dict.fromkeys(node.inputs) if i not in seen]
        seen.update(fresh)
        todo += fresh
    return list(found)


def _rebuilt(b: Builder, x: Node, replace: Callable[[Node], Node]) -> Node:
    """`x` computed by the same elementwise operators of `replace(leaf)` for each of its leaves."""
    made = {leaf: replace(leaf) for leaf in _leaves(x)}
    todo = [x]
    while todo:
        node = todo[-1]
        missing = [i for i in node.inputs if i not in made]
        if node not in made and missing:
            todo += missing
            continue
        todo.pop()
        if node not in made:
            operands = tuple(made[i] for i in node.inputs)
            made[node] = b.make(node.op, operands, node.attrs, node.type.with_shape(operands[0].shape))
    return made[x]
