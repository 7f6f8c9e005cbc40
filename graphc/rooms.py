"""One graph for operands of any size.

Two graphs of one function, for operands of other sizes, tell which extents change and that nothing else does. Of the
two, `with_room` makes a graph whose changing extents are fixed, and large: there is room for all sizes up to them. The
sizes in use are operands of their own, and what lies behind them is in nothing that anybody looks at: reductions take
what changes nothing in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.alike import are_alike, is_same, measure_of
from graphc.extents import Extents, Factors, NotTold, Sizes, changes, extent, factorised, is_one_piece, split_as
from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, is_plain, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS, attrs_of
from graphc.ir.ops.source import bits_at
from graphc.ir.types import DType, TensorType, i32, i64, identity

_POINTWISE = frozenset({"elementwise", "composite"})  # kinds of operators
_ALONG = frozenset({"gather", "take_along", "argsort", "sort"})  # they may not go along what changes
_REDUCED = {
    **{f"reduce_{kind}": kind for kind in ("sum", "prod", "max", "min")},
    **{"argmax": "max", "argmin": "min"},
}


def sizes_of(first: Sequence[TensorType], second: Sequence[TensorType]) -> tuple[Sizes, ...]:
    """The extents in which operands of two calls differ, each once. The two have the same ranks."""
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a.shape, b.shape, strict=True)]
    return tuple(dict.fromkeys([(m, n) for m, n in pairs if m != n]))


def with_room(first: Graph, second: Graph, rooms: Mapping[Sizes, int]) -> Graph | None:
    """The graph that does for all sizes up to `rooms` what the two do for theirs; None where they do not tell.

    Its inputs are those of the two, with room, and an i32 for each of the sizes, which must be at least 1. Inputs may
    hold anything behind the sizes but must hold zeros there; outputs hold anything there.
    """
    if not are_alike(first, second):
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
        if op in ("reshape", "broadcast", "slice", "pad"):
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
        elif kind == "scan":
            given = [self._scanned(node, given[0])]
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
        return op == "concat" and all(node.integer("axis") not in axes for axes in changing)

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
        """Of what changes the whole, without some elements at its ends, or as many as ever from one of the ends."""
        (old,), zero = node.inputs, set(self.zero[node.inputs[0]])
        names = ("start", "size", "step")
        starts, size = list(node.ints("start")), list(type.shape)
        last: list[tuple[int, int]] = []  # along which axes, and from which place on, counted from the end
        for axis, (parts, others) in enumerate(zip(*(_by_axis(each, names) for each in (node, other)), strict=True)):
            if axis not in self.axes[old]:
                if parts != others:
                    raise NotTold
                continue
            n, m = old.shape[axis], other.inputs[0].shape[axis]
            if parts[2] != 1 or others[2] != 1:
                raise NotTold
            left = n - parts[1]
            if axis not in self.axes[node]:
                zero.discard(axis)
                if parts[0] != others[0]:
                    if len(self.axes[old][axis]) != 1 or parts[0] - n != others[0] - m:
                        raise NotTold
                    last.append((axis, parts[0] - n))
                    starts[axis], size[axis] = 0, x.shape[axis]
                elif not is_one_piece(self.axes[old][axis]):
                    raise NotTold
                continue
            pair = node.shape[axis], other.shape[axis]
            if parts[0] != others[0] or not 0 <= parts[0] <= left:
                raise NotTold
            if left and not self._is_more(pair, self.axes[old][axis], -left):
                raise NotTold
            if parts[0] < left:  # what lies behind the part lies before the size
                zero.discard(axis)
        self.zero[node] = zero
        made = self.b.apply("slice", (x,), {"start": tuple(starts), "size": tuple(size), "step": node.ints("step")})
        for axis, first in last:
            made = self.b.apply("gather", (made, self._last(old, axis, first, type.shape[axis])), {"axis": axis})
        return made

    def _last(self, old: Node, axis: int, first: int, count: int) -> Node:
        """Places from one on, which is counted from the end of a dimension, i64[count]."""
        b, (factor,) = self.b, self.axes[old][axis]
        begin = b.add(self.sizes[factor], b.constant(first, TensorType(i32, ())))
        places = b.add(b.iota(0, TensorType(i32, (count,))), b.broadcast(begin, (count,)))
        return b.cast(places, i64)

    def _is_more(self, pair: Sizes, factors: Factors, number: int) -> bool:
        """Whether a size is another one, which makes a dimension, and a number."""
        if len(factors) != 1:
            return False
        (mine, count), (base, other) = (self.derived.get(each, (each, 0)) for each in (pair, factors[0]))
        return mine == base and count - other == number

    def _pad(self, node: Node, other: Node, type: TensorType, x: Node) -> Node:
        """What is padded by as much as ever, or to a size; behind it is what it is padded with."""
        (old,), axes, value = node.inputs, self.axes[node], node.attr("value")
        assert isinstance(value, (int, float))
        if repr(value) != repr(other.attr("value")):
            raise NotTold
        is_zero = repr(value) in ("0", "0.0")
        names = ("low", "high", "interior")
        lows, highs = list(node.ints("low")), list(node.ints("high"))
        along: list[int] = []
        last: list[tuple[int, int]] = []  # along which axes, and from which place on, counted from the end
        for axis, (ends, others) in enumerate(zip(*(_by_axis(each, names) for each in (node, other)), strict=True)):
            if axis in axes and min(*ends, *others) < 0:
                raise NotTold
            if axis in axes and axis not in self.axes[old]:
                low = ends[0] - node.shape[axis]
                if ends[2] or others[2] or len(axes[axis]) != 1:
                    raise NotTold
                if ends[0] == others[0]:
                    highs[axis] = type.shape[axis] - ends[0] - old.shape[axis]
                elif is_zero and low == others[0] - other.shape[axis]:
                    last.append((axis, low))
                    lows[axis] = highs[axis] = 0
                else:
                    raise NotTold
            elif ends != others:
                raise NotTold
            elif axis in self.axes[old] and any(ends):
                if ends[2] or not self._is_more(axes[axis][0], self.axes[old][axis], ends[0] + ends[1]):
                    raise NotTold
                along.append(axis)
        kept = self.zero[old] if is_zero else set[int]()
        if is_zero:
            self.zero[node] = kept | set(along) | (set(axes) - set(self.axes[old]))
        x = self._masked(x, {axis: self.axes[old][axis] for axis in along if axis not in kept}, value)
        x = self.b.pad(x, tuple(lows), tuple(highs), node.ints("interior"), value)
        for axis, first in last:
            zeros = self.b.constant(value, x.type.with_shape((*x.shape[:axis], type.shape[axis], *x.shape[axis + 1 :])))
            places = self._last(node, axis, first, x.shape[axis])
            x = self.b.apply("index_add", (zeros, places, x), {"axis": axis})
        return x

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
        return self._masked(x, {axis: factors}, _added_to(node.op[len("scan_") :], x.dtype))

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
        return self._masked(src, masks, _added_to("sum", src.dtype))

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


def _added_to(kind: str, dtype: DType) -> float:
    """What changes nothing, also not the sign of a zero to which it is added."""
    return -0.0 if kind == "sum" and dtype.is_float else identity(kind, dtype)


def _by_axis(node: Node, names: Sequence[str]) -> list[tuple[int, ...]]:
    """Some attributes for each dimension."""
    return list(zip(*(node.ints(name) for name in names), strict=True))
