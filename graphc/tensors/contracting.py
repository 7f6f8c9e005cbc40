"""Contractions over named dimensions, as nodes: diagonals, sums and products two at a time, in a cheap order.

A labelled node is a node and one label (a number) for each dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import boolean, i64

Labels = tuple[int, ...]


@dataclass(frozen=True)
class Labelled:
    """A node whose dimensions have labels, each at most once."""

    node: Node
    labels: Labels

    def extent(self, label: int) -> int:
        """The size of the dimension `label`."""
        return self.node.shape[self.labels.index(label)]


def diagonal_node(b: Builder, x: Node, first: int, second: int) -> Node:
    """The diagonal of two dimensions, as the last one; a strided slice of the matrix laid out flat."""
    rank = x.type.rank
    rest = tuple(i for i in range(rank) if i not in (first, second))
    x = b.permute(x, (*rest, first, second))
    *lead, rows, columns = x.shape
    flat = b.reshape(x, (*lead, rows * columns))
    ones, zeros = (1,) * len(lead), (0,) * len(lead)
    return b.slice(flat, (*zeros, 0), (*lead, min(rows, columns)), (*ones, columns + 1))


def without_repeats(b: Builder, node: Node, labels: Sequence[int]) -> Labelled:
    """A label that stands several times means the diagonal of these dimensions."""
    held = list(labels)
    while len(set(held)) != len(held):
        label = next(x for x in held if held.count(x) > 1)
        first = held.index(label)
        second = held.index(label, first + 1)
        node = diagonal_node(b, node, first, second)
        held = [x for i, x in enumerate(held) if i not in (first, second)] + [label]
    return Labelled(node, tuple(held))


def sum_out(b: Builder, x: Labelled, kept: Iterable[int]) -> Labelled:
    """`x` summed over the labels that are not `kept`; integers and bools sum to i64, as everywhere."""
    wanted = set(kept)
    axes = tuple(i for i, label in enumerate(x.labels) if label not in wanted)
    if not axes:
        return x
    node = x.node if x.node.dtype.is_float else b.cast(x.node, i64)
    return Labelled(b.reduce_sum(node, axes), tuple(label for label in x.labels if label in wanted))


def _without_ones(b: Builder, x: Labelled, other: Labelled) -> Labelled:
    """Dimensions of size 1 that repeat along a dimension of `other` taken away."""
    kept = [i for i, label in enumerate(x.labels) if x.node.shape[i] != 1 or label not in other.labels]
    if len(kept) == len(x.labels):
        return x
    return Labelled(b.reshape(x.node, tuple(x.node.shape[i] for i in kept)), tuple(x.labels[i] for i in kept))


def multiply(b: Builder, x: Labelled, y: Labelled, kept: Labels) -> Labelled:
    """The product of two, summed over labels not in `kept`; its labels come in the order of `kept`."""
    y = _without_ones(b, y, x)
    x = _without_ones(b, x, y)
    out = tuple(label for label in kept if label in x.labels or label in y.labels)
    if {*x.labels, *y.labels} == set(out):
        return Labelled(_elementwise(b, x, y, out), out)
    dtype = x.node.dtype
    x, y = (
        Labelled(b.cast(made.node, dtype), made.labels)  # modulo powers of two, as the product is
        for made in (sum_out(b, x, (*y.labels, *out)), sum_out(b, y, (*x.labels, *out)))
    )
    if {*x.labels, *y.labels} == set(out):
        return Labelled(_elementwise(b, x, y, out), out)
    first, second, result = (" ".join(f"l{label}" for label in labels) for labels in (x.labels, y.labels, out))
    return Labelled(b.contract(x.node, y.node, f"{first}, {second} -> {result}"), out)


def _elementwise(b: Builder, x: Labelled, y: Labelled, out: Labels) -> Node:
    extents = {label: operand.extent(label) for operand in (x, y) for label in operand.labels}
    shape = tuple(extents[label] for label in out)
    p, q = (_aligned(b, operand, out, shape) for operand in (x, y))
    return b.apply("bitwise_and" if p.dtype is boolean else "mul", (p, q))


def _aligned(b: Builder, x: Labelled, out: Labels, shape: tuple[int, ...]) -> Node:
    order = [label for label in out if label in x.labels]
    node = b.permute(x.node, tuple(x.labels.index(label) for label in order))
    ones = tuple(x.extent(label) if label in order else 1 for label in out)
    return b.broadcast(b.reshape(node, ones), shape)


def contract_all(b: Builder, operands: Sequence[Labelled], out: Labels) -> Labelled:
    """All operands multiplied and summed down to `out`: always the pair next whose product costs least.

    The cost of a pair is its number of multiplications; among equals the pair that stands first.
    """
    left = list(operands)
    while len(left) > 1:
        first, second = _cheapest(left)
        y, x = left.pop(second), left.pop(first)
        wanted = {*out, *(label for operand in left for label in operand.labels)}
        order = (*out, *sorted({*x.labels, *y.labels} - set(out)))
        left.insert(first, multiply(b, x, y, tuple(label for label in order if label in wanted)))
    made = sum_out(b, left[0], out)
    return Labelled(b.permute(made.node, tuple(made.labels.index(label) for label in out)), out)


def _cheapest(operands: Sequence[Labelled]) -> tuple[int, int]:
    best: tuple[float, int, int] | None = None
    for i, x in enumerate(operands):
        for j in range(i + 1, len(operands)):
            y = operands[j]
            extents: dict[int, int] = {}
            for operand in (x, y):
                for label, n in zip(operand.labels, operand.node.shape, strict=True):
                    extents[label] = max(n, extents.get(label, 1))
            found = (float(math.prod(extents.values())), i, j)
            if best is None or found < best:
                best = found
    assert best is not None
    return best[1], best[2]
