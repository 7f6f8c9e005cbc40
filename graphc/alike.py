"""Whether graphs do the same, but for the sizes of their operands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from graphc.extents import Axes, Factors, Sizes, changes, extent, factorised
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node, attrs_key
from graphc.ir.types import TensorType

Measure = tuple[tuple[Sizes, ...], int, int]  # what a number is: so many times the product of sizes, and c
# For an attribute the number for each dimension, which is added to an extent where there is one.
Ends = Mapping[str, Sequence[tuple[int, Factors | None]]]
# Of a node: one like it, the number of its type, whether that changes, the numbers of its operands, what its value is,
# where it has its ends.
Known = tuple[Node, int, bool, tuple[int, ...], Measure | None, Ends | None]
_SHAPED = frozenset({"reshape", "broadcast"})  # whose attribute is the shape
_WITH_NUMBERS = frozenset({"constant", "pad"})  # of which zero may be negative


class _Given(NamedTuple):
    """Nodes that are compared with known ones, the types that these have now, and the sizes."""

    inputs: Sequence[Node]
    order: Sequence[Node]
    outputs: Sequence[Node]
    types: Sequence[TensorType]
    sizes: Mapping[Sizes, int]


class Pattern:
    """What two graphs that `with_room` understood tell of others: whether these do the same for their sizes."""

    def __init__(self, first: Graph, second: Graph, pairs: Sequence[Sizes]) -> None:
        self._numbers = {pair: i for i, pair in enumerate(pairs)}
        *operands, self._outputs = _operands(first)
        self._count = len(first.inputs)
        self._extents = factorised(first, second, pairs)
        self._sizes = [*pairs, *self._extents.derived]
        # The sizes that are sums of others: of which, and a number.
        self.sums = [(tuple([self._numbers[base] for base in bases]), n) for bases, n in self._extents.derived.values()]
        types: dict[tuple[TensorType, tuple[tuple[int, Factors], ...]], int] = {}
        self._known: list[Known] = []
        for i, (node, other) in enumerate(zip(first.nodes, second.nodes, strict=True)):
            axes = self._extents.axes[i]
            type = types.setdefault((node.type, tuple(sorted(axes.items()))), len(types))
            rule, ends = self._rule(node, other), self._ends(i, node, other, operands[i])
            self._known.append((node, type, bool(axes), operands[i], rule, ends))
        self._types = [(type, dict(axes)) for type, axes in types]

    def _rule(self, node: Node, other: Node) -> Measure | None:
        """What a constant is that changes."""
        if node.op != "constant" or is_same(node, other):
            return None
        values = node.attr("value"), other.attr("value")
        measure = measure_of(list(self._numbers), values)  # type: ignore[arg-type]
        assert measure is not None  # or there had been no graph with room
        return measure

    def _ends(self, i: int, node: Node, other: Node, operands: Sequence[int]) -> Ends | None:
        """Where parts begin and how much is padded; None where that does not depend on sizes."""
        if node.op not in ("slice", "pad") or not (self._extents.axes[i] or self._extents.axes[operands[0]]):
            return None
        is_part = node.op == "slice"
        axes = self._extents.axes[operands[0] if is_part else i]
        whole, others = (each.inputs[0].shape if is_part else each.shape for each in (node, other))
        made: dict[str, list[tuple[int, Factors | None]]] = {}
        for name in ("start", "step") if is_part else ("low", "high", "interior"):
            pairs = zip(node.ints(name), other.ints(name), strict=True)
            made[name] = [
                begin_of(pair, (whole[axis], others[axis]), axes.get(axis), self._sizes) or (pair[0], None)
                for axis, pair in enumerate(pairs)
            ]
        return made

    def numbers(self) -> dict[Sizes, int]:
        """The numbers of the sizes, those that are sums last."""
        return {pair: i for i, pair in enumerate(self._sizes)}

    def fits(
        self, inputs: Sequence[Node], order: Sequence[Node], outputs: Sequence[Node], sizes: Sequence[int]
    ) -> bool:
        """Whether the nodes `order`, operands before users, make of `inputs` the same for `sizes`, on any device."""
        now = self._extents.all_sizes({pair: sizes[i] for pair, i in self._numbers.items()})
        count = len(inputs)
        if count != self._count or len(order) > len(self._known) - count:
            return False
        types = [type.with_shape(_shape(type, axes, now)) if axes else type for type, axes in self._types]
        if order and (device := order[0].type.device) != "cpu":
            types = [type.on(device) for type in types]
        if any(node.type is not types[known[1]] for node, known in zip(inputs, self._known, strict=False)):
            return False
        if len(order) == len(self._known) - count:
            return self._is_in_order(_Given(inputs, order, outputs, types, now))
        return self._is_merged(_Given(inputs, order, outputs, types, now))

    def _is_in_order(self, recorded: _Given) -> bool:
        inputs, order, outputs, types, now = recorded
        number = {node: i for i, node in enumerate((*inputs, *order))}
        if tuple(map(number.__getitem__, outputs)) != self._outputs:
            return False
        for node, known in zip(order, self._known[len(inputs) :], strict=True):
            like, type, changes, given, rule, ends = known
            if node.op != like.op or node.type is not types[type] or tuple([number[x] for x in node.inputs]) != given:
                return False
            if rule is None and ends is None and ((changes and node.op in _SHAPED) or is_same(node, like)):
                continue  # the attributes of some are the shape
            if attrs_key(node.attrs) != attrs_key(_attrs(known, node.shape, now)):
                return False
        return True

    def _is_merged(self, recorded: _Given) -> bool:
        """Whether nodes of which some are the same one, as their sizes are, do the same."""
        inputs, order, outputs, types, now = recorded
        nodes = {(node.op, node.inputs, attrs_key(node.attrs), node.type): node for node in order}
        found = [*inputs]
        for known in self._known[len(inputs) :]:
            like, number, _, given, _, _ = known
            type = types[number]
            attrs = attrs_key(_attrs(known, type.shape, now))
            node = nodes.get((like.op, tuple([found[i] for i in given]), attrs, type))
            if node is None:
                return False
            found.append(node)
        return [found[i] for i in self._outputs] == [*outputs]


def _shape(like: TensorType, axes: Axes, now: Mapping[Sizes, int]) -> tuple[int, ...]:
    return tuple([extent(axes[i], now) if i in axes else n for i, n in enumerate(like.shape)])


def _attrs(known: Known, shape: tuple[int, ...], now: Mapping[Sizes, int]) -> tuple[tuple[str, AttrValue], ...]:
    """The attributes of a node for sizes, for which it has a shape."""
    like, _, changes, _, rule, ends = known
    if rule is not None:
        pairs, k, c = rule
        value = k * math.prod(now[pair] for pair in pairs) + c
        return (("value", float(value) if like.dtype.is_float else value),)
    if changes and like.op in _SHAPED:
        return (("shape", shape),)
    if ends is None:
        return like.attrs
    made = {name: tuple([n + (extent(f, now) if f else 0) for n, f in each]) for name, each in ends.items()}
    if like.op == "slice":
        made["size"] = shape
    return tuple([(name, made.get(name, value)) for name, value in like.attrs])


def _operands(graph: Graph) -> list[tuple[int, ...]]:
    """The numbers of the operands of each node, and those of the outputs."""
    number = {node: i for i, node in enumerate(graph.nodes)}
    read = [*(node.inputs for node in graph.nodes), graph.outputs]
    return [tuple([number[node] for node in nodes]) for nodes in read]


def is_same(node: Node, other: Node) -> bool:
    """Whether two nodes have the same attributes, numbers to the last bit."""
    mine, others = node.attrs, other.attrs
    return mine is others or (mine == others and (node.op not in _WITH_NUMBERS or repr(mine) == repr(others)))


def are_alike(first: Graph, second: Graph) -> bool:
    """Whether two graphs have the same operators of the same operands, and results of the same dtypes and ranks."""
    if _operands(first) != _operands(second):
        return False
    return all(
        (x.op, x.dtype, x.type.rank) == (y.op, y.dtype, y.type.rank)
        for x, y in zip(first.nodes, second.nodes, strict=True)
    )


def begin_of(
    pair: Sizes, whole: Sizes, factors: Factors | None, sizes: Sequence[Sizes]
) -> tuple[int, Factors | None] | None:
    """What two places in a dimension are that is made of `factors`: the same number, one counted from the end, or from
    one of the `sizes`. None if they are neither.
    """
    if not changes(pair):
        return pair[0], None
    ends = [(whole, factors)] if factors is not None else []
    for (m, n), made in (*ends, *((size, (size,)) for size in sizes)):
        if pair[0] - m == pair[1] - n:
            return pair[0] - m, made
    return None


def measure_of(pairs: Sequence[Sizes], values: tuple[float, float]) -> Measure | None:
    """Of what two values are made that are k times a size, or two of them, and c, as numbers of elements are (c = 0),
    degrees of freedom (c = -1), or the least index (-n).
    """
    for which in (*((pair,) for pair in pairs), *itertools.combinations(pairs, 2)):
        first, second = (math.prod(pair[i] for pair in which) for i in (0, 1))
        if first == second:
            continue
        k, rest = divmod(values[1] - values[0], second - first)
        c = values[0] - k * first
        if rest == 0 and k != 0 and c in ((0, -1) if k > 0 else (0,)):
            return tuple(which), int(k), int(c)
    return None
