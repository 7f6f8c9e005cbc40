"""One graph for operands of any size.

Two graphs of one function, for operands of other sizes, tell which extents change and that nothing else does. Of the
two, `with_room` makes a graph whose changing extents are fixed, and large: there is room for all sizes up to them. The
sizes in use are operands of their own, and what lies behind them is in nothing that anybody looks at: reductions take
what changes nothing in its place.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.types import TensorType, i32, identity

Sizes = tuple[int, int]  # an extent in the first graph and in the second
_POINTWISE = frozenset({"elementwise", "composite"}), frozenset({"random_bits"})  # kinds of operators, and others
_ALONG = frozenset({"gather", "take_along", "argsort", "sort"})  # they may not go along what changes
_WITH_NUMBERS = frozenset({"constant", "pad"})  # of which zero may be negative
_REDUCED = {
    **{f"reduce_{kind}": kind for kind in ("sum", "prod", "max", "min")},
    **{"argmax": "max", "argmin": "min"},
}


class Pattern:
    """What two graphs that `with_room` understood tell of others: whether these do the same for their sizes."""

    def __init__(self, first: Graph, second: Graph, pairs: Sequence[Sizes]) -> None:
        self._numbers = {pair: i for i, pair in enumerate(pairs)}
        *operands, self._outputs = _operands(first)
        self._known = [
            (node, self._dims(node, other), operands[i], self._rule(node, other))
            for i, (node, other) in enumerate(zip(first.nodes, second.nodes, strict=True))
        ]

    def _dims(self, node: Node, other: Node) -> tuple[int, ...] | None:
        """For each dimension the number of its size or -1; None where nothing changes."""
        if node.type is other.type:
            return None
        pairs = zip(node.shape, other.shape, strict=True)
        return tuple([-1 if pair[0] == pair[1] else self._numbers[pair] for pair in pairs])

    def _rule(self, node: Node, other: Node) -> tuple[int, int, int] | None:
        """Of a constant that changes, (i, k, c): it is k times size i, and c."""
        if node.op != "constant" or is_same(node, other):
            return None
        values = node.attr("value"), other.attr("value")
        for pair, i in self._numbers.items():
            if (of := _multiple(pair, values)) is not None:  # type: ignore[arg-type]
                return i, *of
        raise AssertionError("a constant that no size tells")

    def fits(self, graph: Graph, sizes: Sequence[int]) -> bool:
        """Whether a graph does the same for `sizes`."""
        nodes = graph.nodes
        *operands, outputs = _operands(graph)
        if len(nodes) != len(self._known) or outputs != self._outputs:
            return False
        for node, own, (like, dims, given, rule) in zip(nodes, operands, self._known, strict=True):
            if node.op != like.op or own != given:
                return False
            if dims is None:
                is_like = node.type is like.type
            else:
                shape = tuple([n if i < 0 else sizes[i] for n, i in zip(like.shape, dims, strict=True)])
                is_like = node.shape == shape and node.dtype is like.dtype
            if not is_like:
                return False
            if rule is not None:
                i, k, c = rule
                if node.attr("value") != k * sizes[i] + c:
                    return False
            elif dims is not None and node.op in ("reshape", "broadcast"):
                continue  # their attributes are the shape
            elif dims is not None and node.op == "slice":
                if any(node.ints(name) != like.ints(name) for name in ("start", "step")):
                    return False
            elif not is_same(node, like):
                return False
        return True


def _operands(graph: Graph) -> list[tuple[int, ...]]:
    """The numbers of the operands of each node, and those of the outputs."""
    number = {node: i for i, node in enumerate(graph.nodes)}
    read = [*(node.inputs for node in graph.nodes), graph.outputs]
    return [tuple([number[node] for node in nodes]) for nodes in read]


def is_same(node: Node, other: Node) -> bool:
    """Whether two nodes have the same attributes, numbers to the last bit."""
    mine, others = node.attrs, other.attrs
    return mine is others or (mine == others and (node.op not in _WITH_NUMBERS or repr(mine) == repr(others)))


class _Other(Exception):
    """The graphs differ in more than sizes, or do what cannot be told for all sizes."""


def sizes_of(first: Sequence[TensorType], second: Sequence[TensorType]) -> tuple[Sizes, ...]:
    """The extents in which operands of two calls differ, each once. The two have the same ranks."""
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a.shape, b.shape, strict=True)]
    return tuple(dict.fromkeys([(m, n) for m, n in pairs if m != n]))


def with_room(first: Graph, second: Graph, rooms: Mapping[Sizes, int]) -> Graph | None:
    """The graph that does for all sizes up to `rooms` what the two do for theirs; None where they do not tell.

    Its inputs are those of the two, with room, and an i32 for each of the sizes, which must be at least 1. Inputs may
    hold anything behind the sizes but must hold zeros there; outputs hold anything there.
    """
    nodes, others = first.nodes, second.nodes
    number, other_number = ({node: i for i, node in enumerate(each)} for each in (nodes, others))
    if len(nodes) != len(others) or [number[n] for n in first.outputs] != [other_number[n] for n in second.outputs]:
        return None
    roomy = _Roomy(rooms, len(first.inputs))
    try:
        for node, other in zip(nodes, others, strict=True):
            if [number[n] for n in node.inputs] != [other_number[n] for n in other.inputs]:
                return None
            roomy.add(node, other)
    except _Other:
        return None
    inputs = [roomy.made[node] for node in first.inputs]
    return Graph((*inputs, *roomy.sizes.values()), tuple(roomy.made[node] for node in first.outputs))


class _Roomy:
    """The nodes with room, made one after the other: for each of the first graph, `made`, along which of its axes which
    size changes, and along which of these it is zero behind the size.
    """

    def __init__(self, rooms: Mapping[Sizes, int], first: int) -> None:
        self.b = Builder()
        self.rooms = rooms
        self.sizes = {pair: self.b.input(first + i, TensorType(i32, ())) for i, pair in enumerate(rooms)}
        self.made: dict[Node, Node] = {}
        self.axes: dict[Node, dict[int, Sizes]] = {}
        self.zero: dict[Node, set[int]] = {}

    def add(self, node: Node, other: Node) -> None:
        """The node with room for a node of the first graph and its like of the second."""
        if node.op != other.op or node.dtype is not other.dtype or node.type.rank != other.type.rank:
            raise _Other
        pairs = enumerate(zip(node.shape, other.shape, strict=True))
        axes = {axis: pair for axis, pair in pairs if pair[0] != pair[1]}
        if any(pair not in self.rooms for pair in axes.values()):
            raise _Other
        shape = tuple(self.rooms[axes[axis]] if axis in axes else n for axis, n in enumerate(node.shape))
        self.axes[node], self.zero[node] = axes, set()
        self.b.locs = node.locs
        made = self._convert(node, other, node.type.with_shape(shape))
        if made.shape != shape:
            raise _Other
        self.made[node] = made

    def _convert(self, node: Node, other: Node, type: TensorType) -> Node:
        op, kind, given = node.op, OPS[node.op].kind, [self.made[operand] for operand in node.inputs]
        if op == "input":
            self.zero[node] = set(self.axes[node])
            return self.b.input(node.integer("index"), type)
        if op == "constant":
            return self._constant(node, other, type)
        if op in ("reshape", "broadcast", "slice"):
            return getattr(self, f"_{op}")(node, other, type, given[0])
        if not is_same(node, other):
            raise _Other
        if op == "iota":
            return self.b.iota(node.integer("axis"), type)
        if op == "contract":
            given = self._factors(node, given)
        elif kind == "reduction":
            given = [self._reduced(node, given[0])]
        elif op == "permute":
            (x,), perm = node.inputs, node.ints("perm")
            self.zero[node] = {i for i, axis in enumerate(perm) if axis in self.zero[x]}
        elif op == "cast":
            self.zero[node] = self.zero[node.inputs[0]]
        elif not self._is_alike(node, kind):
            raise _Other
        return self.b.apply(op, tuple(given), attrs_of(node))

    def _is_alike(self, node: Node, kind: str) -> bool:
        """Whether an operator does the same for all elements that do not lie behind the sizes."""
        op, changing = node.op, [self.axes[operand] for operand in node.inputs]
        if kind in _POINTWISE[0]:
            return op not in _POINTWISE[1]
        if op in _ALONG:
            return node.integer("axis") not in changing[0]
        if kind == "scan":
            return not node.attr("reverse") or node.integer("axis") not in changing[0]
        if op == "concat":
            return all(node.integer("axis") not in axes for axes in changing)
        if op == "pad":
            ends = zip(node.ints("low"), node.ints("high"), node.ints("interior"), strict=True)
            return all(not any(added) for axis, added in enumerate(ends) if axis in changing[0])
        return False

    def _constant(self, node: Node, other: Node, type: TensorType) -> Node:
        value, changed = node.attr("value"), other.attr("value")
        if is_same(node, other):
            assert isinstance(value, (int, float))
            return self.b.constant(value, type)
        if type.dtype.kind in ("int", "float"):
            for pair, size in self.sizes.items():
                if (of := _multiple(pair, (value, changed))) is not None:  # type: ignore[arg-type]
                    b, scalar = self.b, TensorType(type.dtype, ())
                    number = b.mul(b.cast(size, type.dtype), b.constant(of[0], scalar))
                    return b.broadcast(b.add(number, b.constant(of[1], scalar)), type.shape)
        raise _Other

    def _reshape(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        """What changes stays a dimension of its own: as many elements as before stand between two such."""
        (old,) = node.inputs
        axes, others = self.axes[old], self.axes[node]
        if list(axes.values()) != list(others.values()) or _between(old, axes) != _between(node, others):
            raise _Other
        after = dict(zip(axes, others, strict=True))
        self.zero[node] = {after[axis] for axis in self.zero[old]}
        return self.b.reshape(x, type.shape)

    def _broadcast(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        (old,) = node.inputs
        added = node.type.rank - old.type.rank
        self.zero[node] = {axis + added for axis in self.zero[old]}
        return self.b.broadcast(x, type.shape)

    def _slice(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        (old,) = node.inputs
        attrs: dict[str, AttrValue] = {name: node.ints(name) for name in ("start", "size", "step")}
        for axis, parts in enumerate(zip(*attrs.values(), strict=True)):  # type: ignore[arg-type]
            if axis in self.axes[old]:
                if parts != (0, old.shape[axis], 1) or axis not in self.axes[node]:
                    raise _Other
            elif any(node.ints(name)[axis] != other.ints(name)[axis] for name in attrs):
                raise _Other
        self.zero[node] = set(self.zero[old])
        return self.b.apply("slice", (x,), {**attrs, "size": type.shape})

    def _reduced(self, node: Node, x: Node) -> Node:
        (old,), axes = node.inputs, node.ints("axes")
        changing = [axis for axis in axes if axis in self.axes[old]]
        if changing and (node.op not in _REDUCED or (len(axes) > 1 and node.op.startswith("arg"))):
            raise _Other
        kind = _REDUCED[node.op]
        kept = self.zero[old] if kind == "sum" else set[int]()
        return self._masked(old, x, [axis for axis in changing if axis not in kept], identity(kind, x.dtype))

    def _factors(self, node: Node, given: Sequence[Node]) -> list[Node]:
        """The operands of a contraction, zero behind the sizes that are summed over."""
        spec = parse_spec(node.text("spec"))
        changing: list[dict[str, int]] = []  # the axes of labels
        for old, dims in zip(node.inputs, spec.operands, strict=True):
            if any(not is_plain(dims[axis]) for axis in self.axes[old]):
                raise _Other
            changing.append({_label(dims[axis]): axis for axis in self.axes[old]})
        summed = set(spec.summed) & (set(changing[0]) | set(changing[1]))
        if not summed <= set(changing[0]) & set(changing[1]):
            raise _Other  # what is not finite in one operand meets zeros of the other
        zeros = identity("sum", node.dtype)
        return [
            self._masked(old, x, [mine[label] for label in sorted(summed) if mine[label] not in self.zero[old]], zeros)
            for old, x, mine in zip(node.inputs, given, changing, strict=True)
        ]

    def _masked(self, old: Node, x: Node, axes: Sequence[int], value: float) -> Node:
        """`x`, which is `old` with room, and `value` behind the sizes along `axes`."""
        b = self.b
        for axis in axes:
            index = b.iota(axis, x.type.with_dtype(i32))
            size = b.broadcast(self.sizes[self.axes[old][axis]], x.shape)
            x = b.select(b.elementwise("lt", index, size), x, b.constant(value, x.type))
        return x


def _multiple(sizes: Sizes, values: tuple[float, float]) -> tuple[int, int] | None:
    """(k, c) for values that are k * size + c, as numbers of elements are, or degrees of freedom (c = -1)."""
    k, rest = divmod(values[1] - values[0], sizes[1] - sizes[0])
    c = values[0] - k * sizes[0]
    return (int(k), int(c)) if rest == 0 and k > 0 and c in (0, -1) else None


def _label(dim: Dim) -> str:
    return dim[0][0]


def _between(node: Node, axes: Mapping[int, Sizes]) -> list[int]:
    """How many elements lie between the dimensions that change."""
    ends = [-1, *axes, node.type.rank]
    return [math.prod(node.shape[before + 1 : after]) for before, after in itertools.pairwise(ends)]
