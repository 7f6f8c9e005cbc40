"""What is computed of a value that is put together from parts is computed of the parts.

An element of a concatenation that is computed in line is computed from every part, and then chosen: the places are
those of a loop. Parts that are stored side by side take no choice, so bias, ReLU and the like, and a transposition,
move before the concatenation. Where parts take many operations the whole is stored before it is transposed: a kernel
that only moves elements does that in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.index import reshape_blocks
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.record import record
from graphc.passes.base import PRIMITIVE, Pass
from graphc.passes.shown import is_cut, is_joined, movement_base

MOST = 8  # parts: what is done to them stands in the kernel for each
MOST_TRANSPOSED = 12  # operations for an element of each part up to which it may be transposed while it is computed
MAX_STEPS = 32  # operators among which all that is made of a value must have become one value again


@record
class _Rows:
    """A value whose `length` rows along dimension `dim` are taken from `parts` in turns: row `k + i * len(parts)` is
    row `i` of part `k`. The last rows of some parts may be left over.
    """

    dim: int
    parts: tuple[Node, ...]
    length: int

    @property
    def each(self) -> int:
        """Rows of a part."""
        return self.parts[0].shape[self.dim]


@record(slots=False)
class SinkConcats(Pass):
    """Move elementwise operators, permutations and reshapes that leave rows as they are before the concatenation of
    parts whose rows take turns, as minimal filtering makes them, also where the last rows are left out.

    Where something else reads such a value it is put together, once.
    """

    name: ClassVar[str] = "sink_concats"
    doc: ClassVar[str] = "compute what is wanted of interleaved parts before they are put together"
    requires = (PRIMITIVE,)

    def run(self, graph: Graph) -> Graph:
        if not any(_interleaved(node) for node in graph.nodes):
            return graph
        return _Sinking(graph).run()


class _Sinking:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.b = Builder.of(graph)
        self.outputs = frozenset(graph.outputs)
        self.order = {node: number for number, node in enumerate(graph.nodes)}
        self.rows: dict[Node, _Rows] = {}  # of values that nothing wants in one piece
        self.done: dict[Node, Node] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            with self.b.at(node.locs):
                found = self._rows(node)
                if found is None or (_interleaved(node) and self._is_wanted_whole(node, found)):  # as it is
                    operands = tuple(map(self._whole, node.inputs))
                    if _is_transposition(node) and _is_much(_parts_of(operands[0])):
                        operands = (self.b.apply("materialize", operands),)
                    same = operands == node.inputs
                    self.done[node] = node if same else self.b.make(node.op, operands, node.attrs, node.type)
                elif self._is_wanted_whole(node, found):
                    self.done[node] = self._joined(node, found)
                else:
                    self.rows[node] = found
        return self.graph.with_outputs(tuple(self.done[o] for o in self.graph.outputs))

    def _rows(self, node: Node) -> _Rows | None:
        """The parts of a value, if it has some."""
        if _interleaved(node):
            (whole,) = node.inputs
            dim = whole.integer("axis") - 1
            return _Rows(dim, tuple(self._without(self._whole(x), dim + 1) for x in whole.inputs), node.shape[dim])
        first = next((x for x in node.inputs if x in self.rows), None)
        if first is None:
            return None
        old = self.rows[first]
        dim = _dim_after(node, old.dim)
        if dim is None or (_is_transposition(node) and _is_much(old.parts)):
            return None
        if any(x in self.rows and not self._agrees(x, old) for x in node.inputs):
            return None
        if node.op == "slice":
            return _Rows(dim, old.parts, node.shape[dim])
        return _Rows(dim, tuple(self._part(node, old, k, dim) for k in range(len(old.parts))), old.length)

    def _without(self, x: Node, dim: int) -> Node:
        """`x` without a dimension that has one place."""
        shape = (*x.shape[:dim], *x.shape[dim + 1 :])
        if x.op == "reshape" and x.inputs[0].shape == shape:
            return x.inputs[0]
        return self.b.reshape(x, shape)

    def _agrees(self, x: Node, rows: _Rows) -> bool:
        mine = self.rows[x]
        return (mine.dim, len(mine.parts), mine.length) == (rows.dim, len(rows.parts), rows.length)

    def _part(self, node: Node, old: _Rows, k: int, dim: int) -> Node:
        """Part `k` of `node`, whose rows lie along `dim`."""
        shape = tuple(old.each if d == dim else n for d, n in enumerate(node.shape))
        operands = tuple(
            self.rows[x].parts[k] if x in self.rows else self._every(self._whole(x), old, k) for x in node.inputs
        )
        if node.op == "reshape":
            return self.b.reshape(operands[0], shape)
        return self.b.make(node.op, operands, node.attrs, node.type.with_shape(shape))

    def _every(self, x: Node, rows: _Rows, first: int) -> Node:
        """The rows of a whole operand that belong to part `first`, zeros for those that are left over."""
        dim, step = rows.dim, len(rows.parts)
        shape = tuple(rows.each if d == dim else n for d, n in enumerate(x.shape))
        if x.op == "constant":
            return self.b.constant(x.attr("value"), x.type.with_shape(shape))  # type: ignore[arg-type]
        if x.op == "broadcast":
            own = dim - (x.type.rank - x.inputs[0].type.rank)
            if own < 0 or x.inputs[0].shape[own] == 1:
                return self.b.broadcast(x.inputs[0], shape)
        rank, missing = x.type.rank, rows.each * step - rows.length
        x = self.b.pad(x, (0,) * rank, tuple(missing if d == dim else 0 for d in range(rank))) if missing else x
        start = tuple(first if d == dim else 0 for d in range(rank))
        return self.b.slice(x, start, shape, tuple(step if d == dim else 1 for d in range(rank)))

    def _is_wanted_whole(self, node: Node, rows: _Rows) -> bool:
        """Whether something reads a value that cannot read it by parts, or several values are made of it, of which each
        would compute the parts.
        """
        is_much = _is_much(rows.parts)
        made = {node: rows.dim}  # the last values on all ways from it, and where their rows lie
        for _ in range(MAX_STEPS):
            first = min(made, key=self.order.__getitem__)
            dim = made.pop(first)
            if first in self.outputs:
                return True
            for user in self.graph.users[first]:
                after = _dim_after(user, dim)
                if after is None or (is_much and _is_transposition(user)) or made.setdefault(user, after) != after:
                    return True
            if len(made) == 1:
                return False
        return True

    def _whole(self, x: Node) -> Node:
        if x not in self.done:
            self.done[x] = self._joined(x, self.rows[x])
        return self.done[x]

    def _joined(self, node: Node, rows: _Rows) -> Node:
        """`node` put together from its parts."""
        d = rows.dim + 1
        shape = rows.parts[0].shape
        parts = tuple(self.b.reshape(x, (*shape[:d], 1, *shape[d:])) for x in rows.parts)
        whole = self.b.reshape(self.b.concat(parts, d), (*shape[: d - 1], shape[d - 1] * len(parts), *shape[d:]))
        if whole.shape == node.shape:
            return whole
        return self.b.slice(whole, (0,) * node.type.rank, node.shape, (1,) * node.type.rank)


def _interleaved(node: Node) -> bool:
    """Whether a value is a concatenation whose parts take turns along the dimension before the new one, and rows of
    which hold several elements.
    """
    if node.op != "reshape" or not is_joined(node.inputs[0]) or len(node.inputs[0].inputs) > MOST:
        return False
    (whole,) = node.inputs
    axis = whole.integer("axis")
    if not axis or whole.shape[axis] != len(whole.inputs) or axis == whole.type.rank - 1:
        return False
    before, after = whole.shape[: axis - 1], whole.shape[axis + 1 :]
    return node.shape == (*before, whole.shape[axis - 1] * whole.shape[axis], *after)


def _is_much(parts: Sequence[Node]) -> bool:
    """Whether computing parts takes so many operations that blocks of them are not transposed in registers at once."""
    seen: set[Node] = set()
    todo = list(parts)
    while todo and len(seen) <= MOST_TRANSPOSED:
        node = movement_base(todo.pop())
        if node not in seen and OPS[node.op].kind == "elementwise" and node.op != "materialize":
            seen.add(node)
            todo.extend(node.inputs)
    return len(seen) > MOST_TRANSPOSED


def _parts_of(node: Node) -> Sequence[Node]:
    """The parts that take turns in a value; none where it has not been put together from such."""
    whole = node.inputs[0] if is_cut(node) else node
    return whole.inputs[0].inputs if _interleaved(whole) else ()


def _is_transposition(node: Node) -> bool:
    """Whether the value puts others side by side in memory."""
    return node.op == "permute" and node.ints("perm")[-1] != node.type.rank - 1


def _dim_after(node: Node, dim: int) -> int | None:
    """The dimension of `node` that has the rows along `dim` of its operands, if there is one before the last."""
    kind = OPS[node.op].kind
    last = node.type.rank - 1
    if kind == "elementwise":
        return dim if node.op != "materialize" else None
    if node.op == "slice":
        rest = [n for d, n in enumerate(node.inputs[0].shape) if d != dim]
        return dim if is_cut(node) and rest == [n for d, n in enumerate(node.shape) if d != dim] else None
    if node.op == "permute":
        to = node.ints("perm").index(dim)
        return to if to < last else None
    if node.op == "reshape" and node.type.size:
        for theirs, mine in reshape_blocks(node.inputs[0].shape, node.shape):
            if dim in theirs:
                return mine[0] if len(theirs) == len(mine) == 1 and mine[0] < last else None
    return None
