"""One graph for operands of any size.

Two graphs of one function, for operands of other sizes, tell which extents change and that nothing else does. Of the
two, `with_room` makes a graph whose changing extents are fixed, and large: there is room for all sizes up to them. The
sizes in use are operands of their own, and what lies behind them is in nothing that anybody looks at: reductions take
what changes nothing in its place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphc.alike import are_alike, begin_of, is_same, measure_of
from graphc.extents import Extents, Factors, NotTold, Sizes, changes, extent, factorised, is_one_piece, split_as
from graphc.ir.contraction import Dim, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.ops.source import DRAWS, bits_at, normal_at
from graphc.ir.types import TensorType, i32, identity
from graphc.room_masks import Room, added_to

_POINTWISE = frozenset({"elementwise", "composite"})  # kinds of operators
_ORDERED = frozenset({"argsort", "sort", "argselect"})
_INDEXED = frozenset({"gather", "take_along", "index_add", "scatter_add", "scatter_reduce", "index_set", "scatter_set"})
_STORED = frozenset({"index_set", "scatter_set"})
_BY_ROWS = frozenset({"gather", "index_add", "index_set"})  # the index has dimensions of its own
_REDUCED = {
    **{f"reduce_{kind}": kind for kind in ("sum", "prod", "max", "min")},
    **{"argmax": "max", "argmin": "min"},
}


def sizes_of(first: Sequence[TensorType], second: Sequence[TensorType]) -> tuple[Sizes, ...]:
    """The extents in which operands of two calls differ, each once. The two have the same ranks."""
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a.shape, b.shape, strict=True)]
    return tuple(dict.fromkeys([(m, n) for m, n in pairs if m != n]))


def with_room(first: Graph, second: Graph, rooms: Mapping[Sizes, int], packed: bool = False) -> Graph | None:
    """The graph that does for all sizes up to `rooms` what the two do for theirs; None where they do not tell.

    Its inputs are those of the two, with room, and an i32 for each of the sizes, which must be at least 1. Inputs hold
    zeros behind the sizes, outputs anything. Of those that are `packed` the elements lie without room, in row-major
    order of the sizes at the beginning of their memory: what is behind them is not read, and need not be there.
    """
    if not are_alike(first, second):
        return None
    try:
        roomy = _Roomy(first, factorised(first, second, list(rooms)), rooms, packed)
        plain = {(pair,) for pair in roomy.all}
        if not all(plain.issuperset(roomy.axes[node].values()) for node in first.outputs):
            return None
        for node, other in zip(first.nodes, second.nodes, strict=True):
            roomy.add(node, other)
        outputs = [roomy.output(node) for node in first.outputs]
    except NotTold:
        return None
    return Graph((*(roomy.inputs[node] for node in first.inputs), *roomy.given), tuple(outputs))


class _Roomy(Room):
    """The nodes with room, made one after the other: for each of the first graph, `made`, along which of its `axes` the
    extent changes and of what it is made, along which of these all its elements are the same (`uniform`), and along
    which it is zero behind the sizes.
    """

    def __init__(self, first: Graph, extents: Extents, rooms: Mapping[Sizes, int], packed: bool) -> None:
        super().__init__(extents, rooms, len(first.inputs))
        self.inputs: dict[Node, Node] = {}
        self._is_packed = packed
        self.axes = dict(zip(first.nodes, extents.axes, strict=True))
        self.uniform = dict(zip(first.nodes, extents.uniform, strict=True))
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

    def output(self, node: Node) -> Node:
        """What is given for an output of the first graph."""
        return self.packed(self.made[node], self.axes[node]) if self._is_packed else self.made[node]

    def _convert(self, node: Node, other: Node, type: TensorType) -> Node:
        op, kind, given = node.op, OPS[node.op].kind, [self.made[operand] for operand in node.inputs]
        if op == "input":
            self.inputs[node] = made = self.b.input(node.integer("index"), type)
            if self._is_packed:
                return self.unpacked(made, self.axes[node])
            self.zero[node] = set(self.axes[node])
            return made
        if op == "constant":
            return self._constant(node, other, type)
        if op in ("reshape", "broadcast", "slice", "pad"):
            return getattr(self, f"_{op}")(node, other, type, given[0])
        if not is_same(node, other):
            raise NotTold
        if op == "iota":
            return self._iota(node, node.integer("axis"), type)
        if op in DRAWS:
            return self._drawn(node, type, given[0])
        if op == "contract":
            given = self._factors(node, other, given)
        elif kind == "reduction":
            given = [self._reduced(node, given[0])]
        elif op == "permute":
            (x,), perm = node.inputs, node.ints("perm")
            self.zero[node] = {i for i, axis in enumerate(perm) if axis in self.zero[x]}
        elif kind == "scan":
            given = [self._scanned(node, given[0])]
        elif op in _INDEXED:
            return self._indexed(node, given)
        elif op in _ORDERED:
            given = [self._ordered(node, given[0])]
        elif op == "searchsorted":
            return self._searched(node, given)
        elif op == "concat":
            return self._concat(node, given)
        elif op == "cast":
            self.zero[node] = self.zero[node.inputs[0]]
        elif kind not in _POINTWISE:
            raise NotTold
        return self.b.apply(op, tuple(given), attrs_of(node))

    def _constant(self, node: Node, other: Node, type: TensorType) -> Node:
        value, changed = node.attr("value"), other.attr("value")
        if is_same(node, other):
            assert isinstance(value, (int, float))
            return self.b.constant(value, type)
        if type.dtype.kind in ("int", "float"):
            measure = measure_of(self.pairs, (value, changed))  # type: ignore[arg-type]
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
        """Of what changes some elements that begin at the same place, or at one that is counted from a size."""
        (old,), zero = node.inputs, set(self.zero[node.inputs[0]])
        names = ("start", "size", "step")
        starts, size, steps = list(node.ints("start")), list(type.shape), list(node.ints("step"))
        places: dict[int, Node] = {}  # along which axes parts do not lie as slices do
        for axis, (part, others) in enumerate(zip(*(_by_axis(each, names) for each in (node, other)), strict=True)):
            factors = self.axes[old].get(axis)
            if factors is None:
                if part != others:
                    raise NotTold
                continue
            whole = old.shape[axis], other.inputs[0].shape[axis]
            begin = begin_of((part[0], others[0]), whole, factors, self.all)
            if begin is None or part[2] != others[2]:
                raise NotTold
            left, is_fixed = whole[0] - part[1], axis not in self.axes[node]
            pair = node.shape[axis], other.shape[axis]
            is_short = part[2] == 1 and (is_fixed or self._is_more(pair, factors, -left))
            if is_short and part[0] == others[0] and (is_one_piece(factors) or (not is_fixed and not left)):
                if is_fixed or part[0] < left:  # what lies behind the part lies before the size
                    zero.discard(axis)
                continue
            if len(factors) != 1:
                raise NotTold
            zero.discard(axis)
            places[axis] = self.counted(self.measured(*begin), type.shape[axis], part[2])
            starts[axis], size[axis], steps[axis] = 0, x.shape[axis], 1
        self.zero[node] = zero
        made = self.b.apply("slice", (x,), {"start": tuple(starts), "size": tuple(size), "step": tuple(steps)})
        for axis, where in places.items():
            made = self.along(made, axis, where)
        return made

    def _is_more(self, pair: Sizes, factors: Factors, number: int) -> bool:
        """Whether a size is another one, which makes a dimension, and a number."""
        if len(factors) != 1 or not changes(pair):
            return factors == (pair,) and not number
        (mine, count), (base, other) = (self.derived.get(each, ((each,), 0)) for each in (pair, factors[0]))
        return mine == base and count - other == number

    def _pad(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        """What is padded to a size, the same number of elements before it or one that is counted from a size."""
        (old,), axes, value = node.inputs, self.axes[node], node.attr("value")
        assert isinstance(value, (int, float))
        if repr(value) != repr(other.attr("value")):
            raise NotTold
        is_zero = repr(value) in ("0", "0.0")
        names = ("low", "high", "interior")
        lows, highs = list(node.ints("low")), list(node.ints("high"))
        masks: dict[int, Factors] = {}
        moved: dict[int, Node] = {}  # along which axes the part begins elsewhere
        zero: set[int] = set()
        for axis, (ends, others) in enumerate(zip(*(_by_axis(each, names) for each in (node, other)), strict=True)):
            factors, mine = axes.get(axis), self.axes[old].get(axis)
            if factors is None:
                if ends != others or (mine is not None and any(ends)):
                    raise NotTold
                continue
            if mine is not None and not any((*ends, *others)):
                if axis in self.zero[old]:
                    zero.add(axis)
                continue
            if min(*ends, *others) < 0 or ends[2] or others[2] or len(factors) != 1 or (mine and len(mine) != 1):
                raise NotTold
            begin = begin_of((ends[0], others[0]), (node.shape[axis], other.shape[axis]), factors, self.all)
            if begin is None:
                raise NotTold
            zero.add(axis)
            rest = type.shape[axis] - x.shape[axis] - ends[0]
            if begin[1] is None and rest >= 0:
                highs[axis] = rest
                if mine is not None and not (is_zero and axis in self.zero[old]):
                    masks[axis] = mine
            else:
                lows[axis] = highs[axis] = 0
                moved[axis] = self.measured(*begin)
        self.zero[node] = zero if is_zero else set()
        x = self.b.pad(self.masked(x, masks, value), tuple(lows), tuple(highs), node.ints("interior"), value)
        for axis, begin in moved.items():
            x = self._moved(x, axis, begin, self.axes[old].get(axis), type.shape[axis], value)
        return x

    def _moved(self, x: Node, axis: int, begin: Node, factors: Factors | None, count: int, value: float) -> Node:
        """`x` from a place of `count` on, and `value` around it."""
        b = self.b
        places = self.counted(b.neg(begin), count)
        size = b.constant(x.shape[axis], begin.type) if factors is None else self.size_of(factors)
        kept = b.elementwise(
            "bitwise_and",
            b.elementwise("ge", places, 0),
            b.elementwise("lt", places, b.broadcast(size, (count,))),
        )
        made = self.along(x, axis, places)
        return b.select(self.spread(kept, axis, made.shape), made, b.constant(value, made.type))

    def _concat(self, node: Node, given: Sequence[Node]) -> Node:
        """Operands one after the other, without what lies behind their sizes."""
        axis, b = node.integer("axis"), self.b
        made = b.concat(tuple(given), axis)
        zero = set.intersection(*(self.zero[old] for old in node.inputs))
        self.zero[node] = zero - {axis}
        factors = [self.axes[old].get(axis) for old in node.inputs]
        if not all(each is None or is_one_piece(each) for each in factors):
            raise NotTold
        if all(each is None for each in factors[:-1]):
            if axis in self.zero[node.inputs[-1]]:
                self.zero[node].add(axis)
            return made
        count = made.shape[axis]
        places = here = b.iota(0, TensorType(i32, (count,)))
        end = b.constant(0, TensorType(i32, ()))
        for x, each in zip(given[:-1], factors, strict=False):
            room = x.shape[axis]
            size = b.constant(room, end.type) if each is None else self.size_of(each)
            end = b.add(end, size)
            if each is not None:
                is_behind = b.elementwise("ge", here, b.broadcast(end, (count,)))
                skipped = b.broadcast(b.sub(room, size), (count,))
                places = b.add(places, b.select(is_behind, skipped, 0))
        return self.along(made, axis, places)

    def _drawn(self, node: Node, type: TensorType, key: Node) -> Node:
        """The bits or numbers that there are for the sizes: they depend on the place in row-major order."""
        b = self.b
        place, _ = self.in_order(type.shape, self.axes[node])
        if node.op == "random_normal":
            return normal_at(b, key, place, type.dtype)
        return bits_at(b, key, place, node.integer("word"))

    def _iota(self, node: Node, axis: int, type: TensorType) -> Node:
        """The places along an axis, as they are for the sizes."""
        factors = self.axes[node].get(axis, ())
        if is_one_piece(factors):
            return self.b.iota(axis, type)
        places, _ = self.places(factors, self.b.constant(1, TensorType(i32, ())))
        return self.spread(self.b.cast(places, type.dtype), axis, type.shape)

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
        return self.masked(x, masks, identity(kind, x.dtype))

    def _scanned(self, node: Node, x: Node) -> Node:
        """What is scanned; from the end it begins with what changes nothing."""
        (old,), axis = node.inputs, node.integer("axis")
        factors = self.axes[old].get(axis)
        if factors is None:
            return x
        if not is_one_piece(factors):
            raise NotTold
        if not node.attr("reverse"):
            return x
        return self.masked(x, {axis: factors}, added_to(node.op[len("scan_") :], x.dtype))

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
            made.append(self.masked(x, masks, identity("sum", node.dtype)))
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

    def _indexed(self, node: Node, given: Sequence[Node]) -> Node:
        """What reads, adds or stores at places: behind the sizes of the indices it changes nothing."""
        b, op, axis = self.b, node.op, node.integer("axis")
        x, index, *rest = given
        old, at = node.inputs[0], node.inputs[1]
        if axis in self.axes[old]:
            index = self.within(index, self.axes[old][axis])
        if op in _BY_ROWS:
            along = range(at.type.rank)
        else:
            along = range(axis, axis + 1)
            if any(self.axes[at].get(i) != self.axes[old].get(i) for i in range(node.type.rank) if i != axis):
                raise NotTold
        if not rest:
            return b.apply(op, (x, index), attrs_of(node))
        masks = self._index_masks(node, along)
        if op in _STORED:
            if not masks:
                return b.apply(op, (x, index, *rest), attrs_of(node))
            more = tuple(int(i == axis) for i in range(x.type.rank))  # for what is stored in vain
            index = self.masked(index, {i - axis if op in _BY_ROWS else i: f for i, f in masks.items()}, x.shape[axis])
            made = b.apply(op, (b.pad(x, (0,) * len(more), more), index, *rest), attrs_of(node))
            return b.slice(made, (0,) * len(more), x.shape, (1,) * len(more))
        is_sum = op != "scatter_reduce"
        if is_sum:
            self.zero[node] = self.zero[old] & {axis}
        kind = "sum" if is_sum else node.text("mode")
        return b.apply(op, (x, index, self.masked(rest[0], masks, added_to(kind, x.dtype))), attrs_of(node))

    def _index_masks(self, node: Node, along: range) -> dict[int, Factors]:
        """The axes of what is added or stored that indices go along and that change, and of what they are made."""
        _, at, src = node.inputs
        before = node.integer("axis") if node.op in _BY_ROWS else 0
        masks: dict[int, Factors] = {}
        for i in along:
            mine, others = self.axes[src].get(before + i), self.axes[at].get(i)
            if mine is not None:
                masks[before + i] = others if before + i in self.uniform[src] and others is not None else mine
                if masks[before + i] != others and i not in self.uniform[at]:
                    raise NotTold
        return masks

    def _ordered(self, node: Node, x: Node) -> Node:
        """What is put in order, behind the size what comes last: equal elements keep their order."""
        (old,), axis = node.inputs, node.integer("axis")
        factors = self.axes[old].get(axis)
        if factors is None:
            return x
        if not is_one_piece(factors):
            raise NotTold
        if node.attr("descending"):
            return self.masked(x, {axis: factors}, identity("max", x.dtype))
        return self.masked(x, {axis: factors}, math.nan if x.dtype.is_float else identity("min", x.dtype))

    def _searched(self, node: Node, given: Sequence[Node]) -> Node:
        """Places in rows that end with the size."""
        (old, _), (rows, x) = node.inputs, given
        factors = self.axes[old].get(old.type.rank - 1)
        if factors is None:
            return self.b.apply(node.op, (rows, x), attrs_of(node))
        if not is_one_piece(factors):
            raise NotTold
        rows = self.masked(rows, {old.type.rank - 1: factors}, identity("min", rows.dtype))
        made = self.b.apply(node.op, (rows, x), attrs_of(node))
        size = self.b.cast(self.size_of(factors), made.dtype)
        return self.b.elementwise("minimum", made, self.b.broadcast(size, made.shape))


def _by_axis(node: Node, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Some attributes for each dimension."""
    return list(zip(*(node.ints(name) for name in names), strict=True))
