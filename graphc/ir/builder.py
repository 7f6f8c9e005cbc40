"""The builder: makes nodes, infers their types and interns them, so equal values are the same object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from graphc.errors import GraphcError
from graphc.ir import ops  # noqa: F401  fills the registry
from graphc.ir.graph import Graph
from graphc.ir.node import NO_LOCATIONS, AttrValue, Location, Node, attrs_key
from graphc.ir.opdef import OPS
from graphc.ir.sugar import OpMethods
from graphc.ir.types import TensorType


class Builder(OpMethods):
    """Makes interned nodes. Two calls with the same operator, operands and attributes give the same object.

    `locs` is the set of user lines given to nodes as they are made; set it with `at`.
    """

    def __init__(self) -> None:
        self._nodes: dict[tuple[object, ...], Node] = {}
        self._applied: dict[tuple[object, ...], Node] = {}  # the same nodes by what `apply` is given
        self._inputs: dict[tuple[object, ...], Node] = {}
        self._constants: dict[tuple[object, ...], Node] = {}  # of these too, those that equality tells apart
        self.functions: dict[tuple[object, ...], Node] = {}  # what whole functions of nodes gave; see `made`
        self.locs: frozenset[Location] = NO_LOCATIONS
        # What stands for a number of a float dtype, None where that is a constant; asked while it is set.
        self.numbers: Callable[[float, TensorType], Node | None] | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    @classmethod
    def of(cls, graph: Graph) -> Builder:
        """A builder that already knows the nodes of `graph`, so that what does not change stays the same object."""
        builder = cls()
        builder.know(graph.nodes)
        return builder

    def know(self, nodes: Iterable[Node]) -> None:
        """Take `nodes` for those that were made of their parts: who makes an equal one is given them."""
        for node in nodes:
            self._nodes[(node.op, node.inputs, attrs_key(node.attrs), node.type)] = node

    @contextmanager
    def at(self, locs: frozenset[Location]) -> Iterator[None]:
        """Give `locs` to nodes made inside the `with` block."""
        saved, self.locs = self.locs, locs
        try:
            yield
        finally:
            self.locs = saved

    def make(
        self, op: str, inputs: tuple[Node, ...], attrs: tuple[tuple[str, AttrValue], ...], type: TensorType
    ) -> Node:
        """The node with exactly these parts; `type` is trusted. Sources and readers of text use it directly."""
        key = (op, inputs, attrs_key(attrs), type)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(op, inputs, attrs, type, self.locs)
        elif self.locs is not node.locs and not self.locs <= node.locs:
            node.locs |= self.locs
        return node

    def input(self, index: int, type: TensorType, name: str = "") -> Node:
        """Input number `index` of the graph; `name` is a hint for printing."""
        key = (index, name, type)
        node = self._inputs.get(key)
        if node is None:
            node = self._inputs[key] = super().input(index, type, name)
        elif self.locs is not node.locs and not self.locs <= node.locs:
            node.locs |= self.locs
        return node

    def constant(self, value: float | int | bool, type: TensorType) -> Node:
        """A tensor of `type` with every element `value` (converted to the dtype's kind)."""
        if self.numbers is not None and type.dtype.is_float:
            node = self.numbers(value, type)
            if node is not None:
                return node
        if value != value or (value == 0 and value.__class__ is float):
            return super().constant(value, type)
        key = (value, value.__class__, type)
        node = self._constants.get(key)
        if node is None:
            node = self._constants[key] = super().constant(value, type)
        elif self.locs is not node.locs and not self.locs <= node.locs:
            node.locs |= self.locs
        return node

    def made(self, key: tuple[object, ...]) -> Node | None:
        """What was kept for `key` by `keep`, unless its nodes are to learn of a line that they do not know yet."""
        node = self.functions.get(key)
        return node if node is not None and (self.locs is node.locs or self.locs <= node.locs) else None

    def keep(self, key: tuple[object, ...], node: Node) -> Node:
        """`node`, found by `made` from now on. `key` is a function without state and the nodes it was given."""
        self.functions[key] = node
        return node

    def apply(self, op: str, inputs: tuple[Node, ...], attrs: dict[str, AttrValue] | None = None) -> Node:
        """The node `op(*inputs)`; infers its type. Raises ShapeError or DTypeError with both sides named."""
        record = OPS[op]
        given = attrs or {}
        ordered: tuple[tuple[str, AttrValue], ...] = ()
        if record.attrs:
            ordered = tuple([(a.name, given[a.name]) for a in record.attrs])
        key = (op, inputs, attrs_key(ordered) if ordered else ordered)
        known = self._applied.get(key)
        if known is not None:  # its type was inferred before
            locs = self.locs
            if locs is not known.locs and not locs <= known.locs:
                known.locs |= locs
            return known
        try:
            type = record.infer([i.type for i in inputs], given)
        except GraphcError as error:
            error.locs = self.locs
            raise
        node = self._applied[key] = self.make(op, inputs, ordered, type)
        return node
