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

from graphc.extents import Extents, Factors, NotTold, Sizes, changes, extent, factorised, is_one_piece, split_as
from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import AttrValue, Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.ops.source import bits_at
from graphc.ir.types import TensorType, i32, identity

Measure = tuple[tuple[Sizes, ...], int, int]  # what a number is: so many times the product of sizes, and c
_POINTWISE = frozenset({"elementwise", "composite"})  # kinds of operators
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
        self._extents = factorised(first, second, pairs)
        self._known = [
            (node, self._extents.axes[i], operands[i], self._rule(node, other))
            for i, (node, other) in enumerate(zip(first.nodes, second.nodes, strict=True))
        ]

    def _rule(self, node: Node, other: Node) -> Measure | None:
        """What a constant is that changes."""
        if node.op != "constant" or is_same(node, other):
            return None
        values = node.attr("value"), other.attr("value")
        measure = _measure(list(self._numbers), values)  # type: ignore[arg-type]
        assert measure is not None  # or there had been no graph with room
        return measure

    def fits(self, graph: Graph, sizes: Sequence[int]) -> bool:
        """Whether a graph does the same for `sizes`."""
        nodes = graph.nodes
        *operands, outputs = _operands(graph)
        now = self._extents.all_sizes({pair: sizes[i] for pair, i in self._numbers.items()})
        if len(nodes) != len(self._known) or outputs != self._outputs:
            return False
        for node, own, (like, axes, given, rule) in zip(nodes, operands, self._known, strict=True):
            if node.op != like.op or own != given:
                return False
            if not axes:
                is_like = node.type is like.type
            else:
                shape = tuple([extent(axes[i], now) if i in axes else n for i, n in enumerate(like.shape)])
                is_like = node.shape == shape and node.dtype is like.dtype
            if not is_like:
                return False
            if rule is not None:
                pairs, k, c = rule
                if node.attr("value") != k * math.prod(now[pair] for pair in pairs) + c:
                    return False
            elif axes and node.op in ("reshape", "broadcast"):
                continue  # their attributes are the shape
            elif axes and node.op == "slice":
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


def sizes_of(first: Sequence[TensorType], second: Sequence[TensorType]) -> tuple[Sizes, ...]:
    """The extents in which operands of two calls differ, each once. The two have the same ranks."""
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a.shape, b.shape, strict=True)]
    return tuple(dict.fromkeys([(m, n) for m, n in pairs if m != n]))


def with_room(first: Graph, second: Graph, rooms: Mapping[Sizes, int]) -> Graph | None:
    """The graph that does for all sizes up to `rooms` what the two do for theirs; None where they do not tell.

    Its inputs are those of the two, with room, and an i32 for each of the sizes, which must be at least 1. Inputs may
    hold anything behind the sizes but must hold zeros there; outputs hold anything there.
    """
    if not _are_alike(first, second):
        return None
    try:
        roomy = _Roomy(first, factorised(first, second, list(rooms)), rooms)
        plain = {(pair,) for pair in rooms}
        if not all(plain.issuperset(roomy.axes[node].values()) for node in first.outputs):
            return None
        for node, other in zip(first.nodes, second.nodes, strict=True):
            roomy.add(node, other)
    except NotTold:
        return None
    inputs = [roomy.made[node] for node in first.inputs]
    return Graph((*inputs, *roomy.given), tuple(roomy.made[node] for node in first.outputs))


def _are_alike(first: Graph, second: Graph) -> bool:
    """Whether two graphs have the same operators of the same operands, and results of the same dtypes and ranks."""
    if _operands(first) != _operands(second):
        return False
    return all(
        (x.op, x.dtype, x.type.rank) == (y.op, y.dtype, y.type.rank)
        for x, y in zip(first.nodes, second.nodes, strict=True)
    )


class _Roomy:
    """The nodes with room, made one after the other: for each of the first graph, `made`, along which of its `axes` the
    extent changes and of what it is made, along which of these all its elements are the same (`uniform`), and along
    which it is zero behind the sizes. `given` are the operands for the sizes.
    """

    def __init__(self, first: Graph, extents: Extents, rooms: Mapping[Sizes, int]) -> None:
        self.b = b = Builder()
        self.derived = extents.derived
        self.rooms = extents.all_sizes(rooms)
        self.axes = dict(zip(first.nodes, extents.axes, strict=True))
        self.uniform = dict(zip(first.nodes, extents.uniform, strict=True))
        scalar, count = TensorType(i32, ()), len(first.inputs)
        self.given = [b.input(count + i, scalar) for i in range(len(rooms))]
        self.pairs = list(rooms)
        self.sizes = dict(zip(rooms, self.given, strict=True))
        for pair, (base, number) in extents.derived.items():
            self.sizes[pair] = b.add(self.sizes[base], b.constant(number, scalar))
        self.made: dict[Node, Node] = {}
        self.zero: dict[Node, set[int]] = {}

    def add(self, node: Node, other: Node) -> None:
        """The node with room for a node of the first graph and its like of the second."""
        axes = self.axes[node]
        shape = tuple(extent(axes[axis], self.rooms) if axis in axes else n for axis, n in enumerate(node.shape))
        self.zero[node] = set()
        self.b.locs = node.locs
        made = self._convert(node, other, node.type.with_shape(shape))
        if made.shape != shape:
            raise NotTold
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
            raise NotTold
        if op == "iota":
            return self._iota(node, node.integer("axis"), type)
        if op == "random_bits":
            return self._random_bits(node, type, given[0])
        if op == "contract":
            given = self._factors(node, other, given)
        elif kind == "reduction":
            given = [self._reduced(node, given[0])]
        elif op == "permute":
            (x,), perm = node.inputs, node.ints("perm")
            self.zero[node] = {i for i, axis in enumerate(perm) if axis in self.zero[x]}
        elif op == "pad":
            given = [self._padded(node, given[0])]
        elif op == "index_add":
            given[2] = self._added(node, given[2])
        elif op == "cast":
            self.zero[node] = self.zero[node.inputs[0]]
        elif not self._is_alike(node, kind):
            raise NotTold
        return self.b.apply(op, tuple(given), attrs_of(node))

    def _is_alike(self, node: Node, kind: str) -> bool:
        """Whether an operator does the same for all elements that do not lie behind the sizes."""
        op, changing = node.op, [self.axes[operand] for operand in node.inputs]
        if kind in _POINTWISE:
            return True
        if op in _ALONG:
            return node.integer("axis") not in changing[0]
        if kind == "scan":
            axis = node.integer("axis")
            return axis not in changing[0] or (not node.attr("reverse") and is_one_piece(changing[0][axis]))
        return op == "concat" and all(node.integer("axis") not in axes for axes in changing)

    def _constant(self, node: Node, other: Node, type: TensorType) -> Node:
        value, changed = node.attr("value"), other.attr("value")
        if is_same(node, other):
            assert isinstance(value, (int, float))
            return self.b.constant(value, type)
        if type.dtype.kind in ("int", "float"):
            measure = _measure(self.pairs, (value, changed))  # type: ignore[arg-type]
            if measure is not None:
                b, (pairs, k, c) = self.b, measure
                number = b.constant(k, TensorType(i32, ()))
                for pair in pairs:
                    number = b.mul(number, self.sizes[pair])
                number = b.cast(b.add(number, c), type.dtype)
                return b.broadcast(number, type.shape)
        raise NotTold

    def _reshape(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        """Of what the dimensions are made stays the same, in the same order."""
        (old,) = node.inputs
        before, axes, zero = self.axes[old], self.axes[node], self.zero[old]
        if self.uniform[node] == set(axes):
            return self.b.reshape(x, type.shape)
        split = split_as(old.shape, before, list(zip(node.shape, other.shape, strict=True)))
        if any(split[axis] != factors for axis, factors in axes.items()):
            raise NotTold
        kept = [axis in zero for axis, factors in sorted(before.items()) for each in factors if changes(each)]
        for axis, factors in sorted(axes.items()):
            count = sum(map(changes, factors))
            if all(kept[:count]):
                self.zero[node].add(axis)
            del kept[:count]
        return self.b.reshape(x, type.shape)

    def _broadcast(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        (old,) = node.inputs
        added = node.type.rank - old.type.rank
        self.zero[node] = {axis + added for axis in self.zero[old]}
        return self.b.broadcast(x, type.shape)

    def _slice(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        (old,), zero = node.inputs, set(self.zero[node.inputs[0]])
        attrs: dict[str, AttrValue] = {name: node.ints(name) for name in ("start", "size", "step")}
        for axis, (start, size, step) in enumerate(zip(*attrs.values(), strict=True)):  # type: ignore[arg-type]
            if axis in self.axes[old]:
                left = old.shape[axis] - size
                if not 0 <= start <= left or step != 1 or start != other.ints("start")[axis]:
                    raise NotTold
                if left and not self._is_derived(node, other, old, axis, -left):
                    raise NotTold
                if start < left:  # what lies behind the part lies before the size
                    zero.discard(axis)
            elif any(node.ints(name)[axis] != other.ints(name)[axis] for name in attrs):
                raise NotTold
        self.zero[node] = zero
        return self.b.apply("slice", (x,), {**attrs, "size": type.shape})

    def _is_derived(self, node: Node, other: Node, old: Node, axis: int, number: int) -> bool:
        """Whether a dimension is that of an operand and so much more."""
        return self._is_more((node.shape[axis], other.shape[axis]), self.axes[old][axis], number)

    def _is_more(self, pair: Sizes, factors: Factors, number: int) -> bool:
        """Whether a size is another one, which makes a dimension, and a number."""
        if len(factors) != 1:
            return False
        (mine, count), (base, other) = (self.derived.get(each, (each, 0)) for each in (pair, factors[0]))
        return mine == base and count - other == number

    def _padded(self, node: Node, x: Node) -> Node:
        """What is padded, with what it is padded with behind the sizes."""
        (old,), axes = node.inputs, self.axes[node]
        value = node.attr("value")
        assert isinstance(value, (int, float))
        along: list[int] = []
        for axis, (low, high, interior) in enumerate(
            zip(node.ints("low"), node.ints("high"), node.ints("interior"), strict=True)
        ):
            if axis not in self.axes[old] or not (low or high or interior):
                continue
            if interior or not self._is_more(axes[axis][0], self.axes[old][axis], low + high):
                raise NotTold
            along.append(axis)
        kept = self.zero[old]
        self.zero[node] = {axis for axis in kept if axis not in along}
        if repr(value) in ("0", "0.0"):
            self.zero[node] |= set(along)
        else:
            kept = set[int]()
        masks = {axis: self.axes[old][axis] for axis in along if axis not in kept}
        return self._masked(x, masks, value)

    def _random_bits(self, node: Node, type: TensorType, key: Node) -> Node:
        """The bits that there are for the sizes: they depend on the place in row-major order."""
        b, whole = self.b, type.with_dtype(i32)
        place, stride = b.constant(0, whole), b.constant(1, TensorType(i32, ()))
        for axis in reversed(range(type.rank)):
            factors = self.axes[node].get(axis, ((node.shape[axis], node.shape[axis]),))
            along, stride = self._places(factors, stride)
            place = b.add(place, self._spread(along, axis, type.shape))
        return bits_at(b, key, place, node.integer("word"))

    def _iota(self, node: Node, axis: int, type: TensorType) -> Node:
        """The places along an axis, as they are for the sizes."""
        factors = self.axes[node].get(axis, ())
        if is_one_piece(factors):
            return self.b.iota(axis, type)
        places, _ = self._places(factors, self.b.constant(1, TensorType(i32, ())))
        return self._spread(self.b.cast(places, type.dtype), axis, type.shape)

    def _places(self, factors: Factors, stride: Node) -> tuple[Node, Node]:
        """For the places along a dimension how many elements come before them, i32[extent], where as many as `stride`
        belong to one; and how many to the whole dimension.
        """
        b, shape = self.b, tuple([extent((factor,), self.rooms) for factor in factors])
        type = TensorType(i32, shape)
        places = b.constant(0, type)
        for at, factor in reversed(list(enumerate(factors))):
            places = b.add(places, b.mul(b.iota(at, type), b.broadcast(stride, shape)))
            stride = b.mul(stride, self.sizes[factor] if changes(factor) else b.constant(factor[0], stride.type))
        return b.reshape(places, (extent(factors, self.rooms),)), stride

    def _spread(self, x: Node, axis: int, shape: tuple[int, ...]) -> Node:
        """What there is for each place along an axis, repeated along the others."""
        wide = (1,) * axis + x.shape + (1,) * (len(shape) - axis - 1)
        return self.b.broadcast(self.b.reshape(x, wide), shape)

    def _reduced(self, node: Node, x: Node) -> Node:
        (old,), axes = node.inputs, node.ints("axes")
        changing = [axis for axis in axes if axis in self.axes[old]]
        if changing and (node.op not in _REDUCED or (len(axes) > 1 and node.op.startswith("arg"))):
            raise NotTold
        if node.op.startswith("arg") and not all(is_one_piece(self.axes[old][axis]) for axis in changing):
            raise NotTold
        kind = _REDUCED[node.op]
        kept = self.zero[old] if kind == "sum" else set[int]()
        masks = {axis: self.axes[old][axis] for axis in changing if axis not in kept}
        return self._masked(x, masks, identity(kind, x.dtype))

    def _factors(self, node: Node, other: Node, given: Sequence[Node]) -> list[Node]:
        """The operands of a contraction, zero behind the sizes that are summed over.

        Of windows that are summed over, what is not finite in one may get into sums of the others.
        """
        spec = parse_spec(node.text("spec"))
        extents = [spec.extents(*(x.shape for x in each.inputs)) for each in (node, other)]
        changed = {label for label, n in extents[0].items() if n != extents[1][label]}
        changing = [self._labels(*each, changed) for each in zip(node.inputs, spec.operands, strict=True)]
        summed = set(spec.summed) & (set(changing[0]) | set(changing[1]))
        if not summed <= set(changing[0]) & set(changing[1]):
            raise NotTold  # what is not finite in one operand meets zeros of the other
        made: list[Node] = []
        for n, (old, x) in enumerate(zip(node.inputs, given, strict=True)):
            masks: dict[int, Factors] = {}
            for label in sorted(changing[0].keys() & changing[1].keys()):
                axis, factors = self._same_factors(node, label, changing, n)
                if label in summed and axis not in self.zero[old]:
                    masks[axis] = factors
            made.append(self._masked(x, masks, identity("sum", node.dtype)))
        return made

    def _labels(self, old: Node, dims: Sequence[Dim], changed: set[str]) -> dict[str, tuple[int, bool]]:
        """The labels of an operand of which the extents change: along which axis, and whether windows go along it."""
        found: dict[str, tuple[int, bool]] = {}
        for axis, factors in self.axes[old].items():
            labels = [term for term in dims[axis] if term[0] in changed]
            if len(labels) != 1 or labels[0][1] != 1 or (not is_plain(dims[axis]) and len(factors) != 1):
                raise NotTold
            found[labels[0][0]] = axis, not is_plain(dims[axis])
        return found

    def _same_factors(
        self, node: Node, label: str, changing: Sequence[Mapping[str, tuple[int, bool]]], n: int
    ) -> tuple[int, Factors]:
        """The axis of a label in operand `n`, and of what it is made, as the other operand's is."""
        (axis, is_window), (at, is_other_window) = changing[n][label], changing[1 - n][label]
        old, beside = node.inputs[n], node.inputs[1 - n]
        mine, others = self.axes[old][axis], self.axes[beside][at]
        if is_window or is_other_window or mine == others or at in self.uniform[beside]:
            return axis, mine
        if axis not in self.uniform[old]:
            raise NotTold
        return axis, others

    def _added(self, node: Node, src: Node) -> Node:
        """What `index_add` adds, which changes nothing behind the sizes of the indices."""
        x, index, old = node.inputs
        axis = node.integer("axis")
        if axis in self.axes[x]:
            raise NotTold
        masks: dict[int, Factors] = {}
        for at in range(axis, axis + index.type.rank):
            if at in self.axes[old]:
                mine, others = self.axes[old][at], self.axes[index].get(at - axis)
                masks[at] = others if at in self.uniform[old] and others is not None else mine
                if masks[at] != others and at - axis not in self.uniform[index]:
                    raise NotTold
        return self._masked(src, masks, -0.0 if src.dtype.is_float else identity("sum", src.dtype))

    def _masked(self, x: Node, masks: Mapping[int, Factors], value: float) -> Node:
        """`x`, and `value` behind the sizes along axes that are made of something."""
        for axis, factors in masks.items():
            kept = self._spread(self._kept(factors), axis, x.shape)
            x = self.b.select(kept, x, self.b.constant(value, x.type))
        return x

    def _kept(self, factors: Factors) -> Node:
        """For each place of a dimension whether it is not behind a size, bool[extent]."""
        b, shape = self.b, tuple([extent((factor,), self.rooms) for factor in factors])
        kept: Node | None = None
        for axis, factor in enumerate(factors):
            if changes(factor):
                index = b.iota(axis, TensorType(i32, shape))
                here = b.elementwise("lt", index, b.broadcast(self.sizes[factor], shape))
                kept = here if kept is None else b.elementwise("bitwise_and", kept, here)
        assert kept is not None
        return b.reshape(kept, (extent(factors, self.rooms),))


def _measure(pairs: Sequence[Sizes], values: tuple[float, float]) -> Measure | None:
    """Of what two values are made that are k times a size, or two of them, and c, as numbers of elements are (c = 0),
    or degrees of freedom (c = -1).
    """
    for which in (*((pair,) for pair in pairs), *itertools.combinations(pairs, 2)):
        first, second = (math.prod(pair[i] for pair in which) for i in (0, 1))
        if first == second:
            continue
        k, rest = divmod(values[1] - values[0], second - first)
        c = values[0] - k * first
        if rest == 0 and k > 0 and c in (0, -1):
            return tuple(which), int(k), int(c)
    return None
