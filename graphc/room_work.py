"""How much graphs with room compute, some of it in vain."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.extents import Sizes
from graphc.ir.contraction import parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node

MOST_ROOM = 4096  # at first, and no more than makes
WORK = 1 << 15  # elements and products: to compute them in vain takes no time


def least_room(first: Graph, second: Graph, least: int) -> int:
    """The largest power of two, from `least` on, with which all sizes in which two graphs differ make little work."""
    room = MOST_ROOM
    while room > least and _total(first, second, {}, room) > WORK:
        room //= 2
    return room


def work(first: Graph, second: Graph, rooms: Mapping[Sizes, int]) -> int:
    """How many elements and products a graph makes that has room for the sizes in which two graphs differ, about. Those
    of `first` where the second is the same.
    """
    return _total(first, second, rooms, 0)


def _total(first: Graph, second: Graph, rooms: Mapping[Sizes, int], room: int) -> int:
    return sum(_work(*each, rooms, room) for each in zip(first.nodes, second.nodes, strict=False))


def _work(node: Node, other: Node, rooms: Mapping[Sizes, int], room: int) -> int:
    if node.op == "contract" and other.op == "contract":
        pairs = zip(node.inputs, other.inputs, strict=True)
        shapes = [_roomy(x.shape, y.shape, rooms, room) for x, y in pairs]
        return math.prod(parse_spec(node.text("spec")).extents(*shapes).values())
    return math.prod(_roomy(node.shape, other.shape, rooms, room))


def _roomy(shape: tuple[int, ...], other: tuple[int, ...], rooms: Mapping[Sizes, int], room: int) -> tuple[int, ...]:
    if shape == other:
        return shape
    return tuple([m if m == n else room or _room((m, n), rooms) for m, n in zip(shape, other, strict=False)])


def _room(pair: Sizes, rooms: Mapping[Sizes, int]) -> int:
    """The room of an extent, or as many times more than it as a size has more room than that is large."""
    if pair in rooms:
        return rooms[pair]
    return math.ceil(max(pair) * max((room / max(sizes) for sizes, room in rooms.items()), default=1))
