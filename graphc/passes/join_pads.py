"""Sums of padded values that lie side by side become concatenations.

The gradient of slices is such a sum: each part in zeros of the whole's size. As a sum every element is chosen and added
up from all parts; a concatenation is stored part by part.
"""

from __future__ import annotations

from graphc.ir.builder import Builder
from graphc.ir.graph import Graph
from graphc.ir.narrow import HALVES, concatenated, is_widening
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.passes.base import Pass, rebuild

_MOVEMENT = frozenset({"reshape", "permute", "broadcast"})
_SUMS = frozenset({"contract", "reduce_sum"})  # these begin with +0.0: in f32 and f64 only what underflows is -0.0


@record
class _Parts:
    """Values that lie in zeros along `axis`: where each begins, in order, and none over another."""

    axis: int
    places: tuple[tuple[int, Node], ...]

    def joined(self, other: _Parts) -> _Parts | None:
        """Both together, or None when some overlap."""
        if self.axis != other.axis:
            return None
        places = sorted((*self.places, *other.places), key=lambda place: place[0])
        ends = [begin + part.shape[self.axis] for begin, part in places]
        if any(end > begin for end, (begin, _) in zip(ends, places[1:], strict=False)):
            return None
        return _Parts(self.axis, tuple(places))

    def fills(self, extent: int) -> bool:
        """Whether nothing is left between and around the parts."""
        return sum(part.shape[self.axis] for _, part in self.places) == extent


@record(slots=False)
class JoinPads(Pass):
    """Turn sums of zero-padded values that fill their whole into `concat`, and move permutations into its operands.

    Bit by bit the same: a part that may be -0.0 is added to +0.0, as the sum did.
    """

    name = "join_pads"
    doc = "turn sums of padded values that lie side by side into concatenations"

    def run(self, graph: Graph) -> Graph:
        known: dict[Node, _Parts] = {}

        def replace(builder: Builder, node: Node) -> Node | None:
            if node.op == "permute" and node.inputs[0].op == "concat":
                return _permuted(builder, node)
            if node.op == "pad":
                parts = _padded(node)
            elif node.op == "add" and node.inputs[0] in known and node.inputs[1] in known:
                parts = known[node.inputs[0]].joined(known[node.inputs[1]])
            else:
                return None
            if parts is None:
                return None
            if len(parts.places) > 1 and parts.fills(node.shape[parts.axis]):
                return concatenated(builder, [_unsigned_zero(builder, part) for _, part in parts.places], parts.axis)
            known[node] = parts
            return None

        return rebuild(graph, replace)


def _padded(node: Node) -> _Parts | None:
    """A value in +0 along one axis, as parts."""
    value = node.attr("value")
    low, high = node.ints("low"), node.ints("high")
    if value != 0 or str(value) == "-0.0" or isinstance(value, bool) or any(node.ints("interior")):
        return None
    if any(n < 0 for n in (*low, *high)) or not node.inputs[0].type.size:
        return None
    axes = [axis for axis, ends in enumerate(zip(low, high, strict=True)) if any(ends)]
    return _Parts(axes[0], ((low[axes[0]], node.inputs[0]),)) if len(axes) == 1 else None


def _unsigned_zero(builder: Builder, value: Node) -> Node:
    """`value + 0.0`, added below what only moves elements or converts 16 bits to f32."""
    path: list[Node] = []
    source = value
    while source.op in _MOVEMENT or is_widening(source):
        path.append(source)
        source = source.inputs[0]
    if not source.dtype.is_float or (source.op in _SUMS and source.dtype not in HALVES):
        return value
    result = builder.add(source, builder.constant(0.0, source.type))
    for node in reversed(path):
        result = builder.make(node.op, (result,), node.attrs, node.type)
    return result


def _permuted(builder: Builder, node: Node) -> Node:
    """The concatenation of permuted operands instead of a permuted concatenation."""
    (whole,), perm = node.inputs, node.ints("perm")
    return builder.concat(
        tuple(builder.permute(part, perm) for part in whole.inputs), perm.index(whole.integer("axis"))
    )
