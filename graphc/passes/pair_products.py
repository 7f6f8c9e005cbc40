"""Products of bf16 two at a time: an instruction of some processors adds up two products in each lane.

A step of the sum is one of two numbers then, that lie side by side in memory as one element of `pbf16`: both operands
are stored so along a label that is summed. The contraction over these is an ordinary one with half as many steps, whose
elements take four bytes as those of f32 do: tiles, panels and loops are chosen as for f32. Products of bf16 are exact
in f32, and sums are f32: only the order in which they are added is another.
"""

from __future__ import annotations

from collections import Counter

from graphc.ir.builder import Builder
from graphc.ir.contraction import Dim, is_plain, multiply_adds, parse_spec
from graphc.ir.graph import Graph
from graphc.ir.narrow import factor_dtype, narrowed
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import bf16, i16, i32, pbf16
from graphc.passes.base import PRIMITIVE, Pass

MIN_USES = 10  # multiply-adds for each element that is stored anew

Axes = tuple[int, int]
"""The dimension of each operand that is cut into pairs."""


@record(slots=False)
class PairProducts(Pass):
    """Add up products of bf16 in pairs where each element that is stored as part of one takes part in so many."""

    name = "pair_products"
    doc = "multiply pairs of bf16, for processors that add up two products at once"
    requires = (PRIMITIVE,)

    min_uses: int = MIN_USES

    def run(self, graph: Graph) -> Graph:
        chosen = _chosen(graph, self.min_uses)
        if not chosen:
            return graph
        b = Builder.of(graph)
        done: dict[Node, Node] = {}
        for node in graph.nodes:
            operands = tuple([done[operand] for operand in node.inputs])
            with b.at(node.locs):
                if node in chosen:
                    x, y = (_paired(b, narrowed(b, x), axis) for x, axis in zip(operands, chosen[node], strict=True))
                    done[node] = b.cast(b.contract(x, y, node.text("spec")), node.dtype)
                else:
                    done[node] = b.make(node.op, operands, node.attrs, node.type)
        return graph.with_outputs(tuple(done[node] for node in graph.outputs))


def _chosen(graph: Graph, min_uses: int) -> dict[Node, Axes]:
    """The contractions to rewrite. Those that read an operand in the same pairs share what storing it costs."""
    found = {n: axes for n in graph.nodes if n.op == "contract" and (axes := _axes(n)) is not None}
    products: Counter[tuple[Node, int]] = Counter()
    for node, axes in found.items():
        products.update(dict.fromkeys(zip(node.inputs, axes, strict=True), multiply_adds(node)))
    return {
        node: axes
        for node, axes in found.items()
        if sum(x.type.size / products[x, axis] for x, axis in zip(node.inputs, axes, strict=True)) * min_uses <= 1
    }


def _axes(node: Node) -> Axes | None:
    """Where both operands are cut: along the label with the fewest zeros to fill up, and of such the longest one. None
    without a label that is summed and stands alone, and where factors are no bf16.
    """
    if factor_dtype(node) is not bf16 or 0 in (node.type.size, *(x.type.size for x in node.inputs)):
        return None
    spec = parse_spec(node.text("spec"))
    extents = spec.extents(node.inputs[0].shape, node.inputs[1].shape)
    first, second = map(_alone, (spec.x, spec.y))
    labels = [label for label in spec.summed if label in first and label in second and extents[label] > 1]
    best = min(labels, key=lambda label: (extents[label] % 2 / extents[label], -extents[label]), default=None)
    return None if best is None else (first[best], second[best])


def _alone(dims: tuple[Dim, ...]) -> dict[str, int]:
    """The dimension of each label that stands alone in one."""
    return {dim[0][0]: d for d, dim in enumerate(dims) if is_plain(dim)}


def _paired(b: Builder, x: Node, axis: int) -> Node:
    """Neighbours of `x` along `axis` in pairs, stored in the order that `x` has in memory."""
    if x.op == "permute":
        perm = x.ints("perm")
        return b.permute(_paired(b, x.inputs[0], perm[axis]), perm)
    padded = b.pad(x, (0,) * x.type.rank, _at(x, axis, x.shape[axis] % 2, 0))
    first, second = (_bits(b, padded, axis, number) for number in (0, 1))
    both = b.elementwise(
        "bitwise_or", b.elementwise("bitwise_and", first, 0xFFFF), b.elementwise("shift_left", second, 16)
    )
    return b.apply("materialize", (b.apply("bitcast", (both,), {"dtype": pbf16}),))


def _bits(b: Builder, x: Node, axis: int, start: int) -> Node:
    """Every second element of `x` along `axis`, from number `start` on, as an integer whose lower half it is."""
    size = tuple(n // 2 if d == axis else n for d, n in enumerate(x.shape))
    some = b.slice(x, _at(x, axis, start, 0), size, _at(x, axis, 2, 1))
    return b.cast(b.apply("bitcast", (some,), {"dtype": i16}), i32)


def _at(x: Node, axis: int, value: int, other: int) -> tuple[int, ...]:
    """`value` for the dimension `axis` of `x`, `other` for all others."""
    return tuple(value if d == axis else other for d in range(x.type.rank))
