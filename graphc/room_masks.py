"""Graphs with room for sizes: what lies behind these, and places along dimensions that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.extents import Axes, Extents, Factors, NotTold, Sizes, changes, extent, is_one_piece
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, i32, i64, identity

MOST_INDEX = (1 << 31) - 1  # elements of something whose places are counted in i32


class Room:
    """What with room for sizes is built with `b`: `rooms` has what there is room for, `sizes` the nodes, i32, of the
    sizes. `given` are the operands for those of `pairs`; others of `all` are sums of them.
    """

    def __init__(self, extents: Extents, rooms: Mapping[Sizes, int], count: int) -> None:
        self.b = b = Builder()
        self.derived = extents.derived
        self.rooms = extents.all_sizes(rooms)
        scalar = TensorType(i32, ())
        self.given = [b.input(count + i, scalar) for i in range(len(rooms))]
        self.pairs = list(rooms)
        self.sizes = dict(zip(rooms, self.given, strict=True))
        for pair, (bases, number) in extents.derived.items():
            size = b.constant(number, scalar)
            for base in bases:
                size = b.add(size, self.sizes[base])
            self.sizes[pair] = size
        self.all = list(self.sizes)

    def size_of(self, factors: Factors) -> Node:
        """How many elements a dimension has for the sizes, i32."""
        size = self.b.constant(1, TensorType(i32, ()))
        for factor in factors:
            size = self.b.mul(size, self.sizes[factor] if changes(factor) else factor[0])
        return size

    def within(self, index: Node, factors: Factors) -> Node:
        """Where the places `index` of a dimension lie where it has room. Those behind its end are its last one, as they
        are where there is no room.
        """
        b = self.b
        last = b.cast(b.sub(self.size_of(factors), 1), index.dtype)
        index = b.elementwise("minimum", index, b.broadcast(last, index.shape))
        if is_one_piece(factors):
            return index
        index = b.elementwise("maximum", index, 0)
        place, step = b.constant(0, index.type), 1
        for factor in reversed(factors):
            size = b.broadcast(b.cast(self.size_of((factor,)), index.dtype), index.shape)
            place = b.add(place, b.mul(b.elementwise("remainder", index, size), step))
            index = b.elementwise("floor_divide", index, size)
            step *= extent((factor,), self.rooms)
        return place

    def along(self, x: Node, axis: int, places: Node) -> Node:
        """The elements of `x` at places along an axis, i32[n]."""
        return self.b.apply("gather", (x, self.b.cast(places, i64)), {"axis": axis})

    def counted(self, begin: Node, count: int, step: int = 1) -> Node:
        """The places `begin` (i32), `begin` + step, ..., i32[count]."""
        b, type = self.b, TensorType(i32, (count,))
        return b.add(b.mul(b.iota(0, type), step), b.broadcast(begin, (count,)))

    def measured(self, number: int, factors: Factors | None) -> Node:
        """A number, counted from the size of a dimension if that is given, i32 (`alike.begin_of`)."""
        if factors is None:
            return self.b.constant(number, TensorType(i32, ()))
        return self.b.add(self.size_of(factors), number)

    def places(self, factors: Factors, stride: Node) -> tuple[Node, Node]:
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

    def unpacked(self, x: Node, axes: Axes) -> Node:
        """The elements of an operand with room whose memory holds them without, in row-major order of the sizes. Behind
        these comes anything that is among them.
        """
        if not axes:
            return x
        b, inner = self.b, _inner(x.shape, axes)
        shape = x.shape[: max(axes) + 1]
        places, count = self.in_order(shape, axes)
        last = b.broadcast(b.sub(count, 1), shape)
        rows = b.reshape(x, (x.type.size // inner, inner))
        return b.reshape(self._rows(rows, b.elementwise("minimum", places, last)), x.shape)

    def packed(self, x: Node, axes: Axes) -> Node:
        """What `unpacked` takes: of the same shape, with the elements first that are not behind the sizes. Nothing but
        a size makes each of the dimensions that change.
        """
        if set(axes) <= {0}:
            return x
        b, inner = self.b, _inner(x.shape, axes)
        shape = x.shape[: max(axes) + 1]
        flat = TensorType(i32, (math.prod(shape),))
        left, place, step = b.iota(0, flat), b.constant(0, flat), 1
        for axis in reversed(range(1, len(shape))):
            size = b.broadcast(self.size_of(axes.get(axis, ((shape[axis], shape[axis]),))), flat.shape)
            place = b.add(place, b.mul(b.elementwise("remainder", left, size), step))
            left = b.elementwise("floor_divide", left, size)
            step *= shape[axis]
        place = b.add(place, b.mul(b.elementwise("minimum", left, shape[0] - 1), step))
        return b.reshape(self._rows(b.reshape(x, (flat.size, inner)), place), x.shape)

    def _rows(self, rows: Node, places: Node) -> Node:
        """The rows at places, of any shape."""
        if rows.type.size > MOST_INDEX:
            raise NotTold
        if rows.shape[1] == 1:
            rows = self.b.reshape(rows, rows.shape[:1])
        return self.along(rows, 0, places)

    def in_order(self, shape: tuple[int, ...], axes: Axes) -> tuple[Node, Node]:
        """For each element of a shape with room how many come before it in row-major order of the sizes, i32; and how
        many there are.
        """
        b = self.b
        place, stride = b.constant(0, TensorType(i32, shape)), b.constant(1, TensorType(i32, ()))
        for axis in reversed(range(len(shape))):
            along, stride = self.places(axes.get(axis, ((shape[axis], shape[axis]),)), stride)
            place = b.add(place, self.spread(along, axis, shape))
        return place, stride

    def spread(self, x: Node, axis: int, shape: tuple[int, ...]) -> Node:
        """What there is for each place along an axis, repeated along the others."""
        wide = (1,) * axis + x.shape + (1,) * (len(shape) - axis - 1)
        return self.b.broadcast(self.b.reshape(x, wide), shape)

    def masked(self, x: Node, masks: Mapping[int, Factors], value: float) -> Node:
        """`x`, and `value` behind the sizes along axes that are made of something."""
        for axis, factors in masks.items():
            kept = self.spread(self.kept(factors), axis, x.shape)
            x = self.b.select(kept, x, self.b.constant(value, x.type))
        return x

    def kept(self, factors: Factors) -> Node:
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


def _inner(shape: tuple[int, ...], axes: Axes) -> int:
    """How many elements lie side by side behind the last dimension that changes."""
    return math.prod(shape[max(axes) + 1 :])


def added_to(kind: str, dtype: DType) -> float:
    """What changes nothing, also not the sign of a zero to which it is added."""
    return -0.0 if kind == "sum" and dtype.is_float else identity(kind, dtype)
