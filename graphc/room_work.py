"""How much graphs with room compute, some of it in vain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphc.extents import Sizes
from graphc.interpreting import LONG
from graphc.ir.contraction import parse_spec
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.ops.source import DRAWS

MOST_ROOM = 4096  # at first, and no more than makes
WORK = 1 << 12  # elements and products: to compute them in vain takes no time,
LONG_WORK = 1 << 15  # and these little of what a long program takes
DEVICE_WORK = 1 << 18  # of a GPU, where a launch takes as long, and compiling tens of times as long
HEAVY = 16  # as many are an element of a function such as exp, or of a draw


def least_room(first: Graph, second: Graph, least: int, device: str) -> int:
    """The largest power of two, from `least` on, with which all sizes in which two graphs differ make little work."""
    room, most = MOST_ROOM, LONG_WORK if len(first.nodes) >= LONG else WORK
    if device != "cpu":
        most = DEVICE_WORK
    while room > least and sum(_work(*each, room) for each in zip(first.nodes, second.nodes, strict=False)) > most:
        room //= 2
    return room


def work(first: Sequence[Node], second: Sequence[Node], rooms: Mapping[Sizes, int]) -> int:
    """How many elements nodes make where there is room for the sizes in which they differ from others, about."""
    if first is second:
        return sum([node.type.size for node in first])
    return sum(math.prod(_roomy(x.shape, y.shape, rooms)) for x, y in zip(first, second, strict=True))


def _work(node: Node, other: Node, room: int) -> int:
    """How many elements an operator makes, or products, where what changes is `room`."""
    shapes = [_filled(x.shape, y.shape, room) for x, y in zip(node.inputs, other.inputs, strict=False)]
    if node.op == "contract" and (other.op, other.attrs) == (node.op, node.attrs):
        return math.prod(parse_spec(node.text("spec")).extents(*shapes).values())
    each = HEAVY if OPS[node.op].is_heavy or node.op in DRAWS else 1
    return each * math.prod(_filled(node.shape, other.shape, room))


def _filled(shape: tuple[int, ...], other: tuple[int, ...], room: int) -> tuple[int, ...]:
    return tuple([m if m == n else room for m, n in zip(shape, other, strict=False)])


def _roomy(shape: tuple[int, ...], other: tuple[int, ...], rooms: Mapping[Sizes, int]) -> tuple[int, ...]:
    if shape == other:
        return shape
    return tuple([m if m == n else _room((m, n), rooms) for m, n in zip(shape, other, strict=True)])


def _room(pair: Sizes, rooms: Mapping[Sizes, int]) -> int:
    """The room of an extent; of one that is made of sizes, as many times more than it as a size has at most."""
    if pair in rooms:
        return rooms[pair]
    return math.ceil(max(pair) * max((room / max(sizes) for sizes, room in rooms.items()), default=1))
