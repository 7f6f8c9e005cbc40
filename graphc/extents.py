"""Of what the extents are made that change from one graph to another.

A dimension that changes is a size, or several dimensions that were made one: of [8, n] a vector of 8 n elements. What
lies behind the size of such a dimension is not at its end alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.ops.source import DRAWS

Sizes = tuple[int, int]  # an extent in the first graph and in the second
Factors = tuple[Sizes, ...]  # a dimension from those that it was made of, the outermost first
Axes = Mapping[int, Factors]  # those dimensions of a node that change
Sum = tuple[tuple[Sizes, ...], int]  # sizes of operands, and a number


class NotTold(Exception):
    """The graphs differ in more than sizes, or do what cannot be told for all sizes."""


def changes(sizes: Sizes) -> bool:
    """Whether an extent is another one in the second graph."""
    return sizes[0] != sizes[1]


def extent(factors: Factors, sizes: Mapping[Sizes, int]) -> int:
    """How many elements a dimension has, with some extents in place of those that change."""
    return math.prod(sizes[factor] if changes(factor) else factor[0] for factor in factors)


def is_one_piece(factors: Factors) -> bool:
    """Whether what lies behind the size is at the end of the dimension alone."""
    return all(not changes(factor) for factor in factors[1:])


class Extents(NamedTuple):
    """What is known of the extents of two graphs: for each node of what its dimensions are made that change (`axes`),
    along which of these all its elements are the same (`uniform`, which are made of anything with as many elements),
    and which sizes are sums of others and a number (`derived`), as those of something padded or joined are.
    """

    axes: Sequence[Axes]
    uniform: Sequence[Collection[int]]
    derived: Mapping[Sizes, Sum]

    def all_sizes(self, sizes: Mapping[Sizes, int]) -> dict[Sizes, int]:
        """`sizes`, and the derived ones for these."""
        return {**sizes, **{pair: sum(sizes[base] for base in bases) + n for pair, (bases, n) in self.derived.items()}}


class _Factoriser:
    """Goes through the nodes twice: what constants are made of may be known from later ones."""

    def __init__(self, first: Graph, second: Graph, sizes: Collection[Sizes]) -> None:
        self.pairs = list(zip(first.nodes, second.nodes, strict=True))
        self.number = {node: i for i, (node, _) in enumerate(self.pairs)}
        self.known: dict[Sizes, Factors] = {pair: (pair,) for pair in sizes}
        self.axes: list[dict[int, Factors]] = [{} for _ in self.pairs]
        self.uniform: list[set[int]] = [set() for _ in self.pairs]
        self.derived: dict[Sizes, Sum] = {}

    def run(self) -> Extents:
        for is_last in (False, True):
            for i, (node, other) in enumerate(self.pairs):
                if node.type is not other.type:
                    self._add(i, node, other, is_last)
        return Extents(self.axes, self.uniform, self.derived)

    def _add(self, i: int, node: Node, other: Node, is_last: bool) -> None:
        split = self._split(node, other)
        self.uniform[i].clear()
        for axis, pair in enumerate(zip(node.shape, other.shape, strict=True)):
            if not changes(pair):
                continue
            if node.op in ("pad", "slice"):
                self._derive(node, other, axis, pair)
            factors, is_uniform = None, False
            if split is not None:
                factors = split[axis]
            elif node.op == "concat" and node.integer("axis") == axis:
                factors = self._joined(node, other, axis, pair)
            else:
                factors, is_uniform = self._of_operands(node, other, pair)
            if factors is None:
                factors = self.known.get(pair)
                is_uniform = is_uniform or _is_repeated(node, axis)
            if factors is not None:
                self.axes[i][axis] = factors
                if is_uniform and not _goes_along(node, axis):
                    self.uniform[i].add(axis)
                if not is_uniform or is_last:
                    self.known.setdefault(pair, factors)
            elif is_last:
                raise NotTold

    def _split(self, node: Node, other: Node) -> Sequence[Factors] | None:
        """Of what a reshaped tensor's dimensions are made, where that is known of its operand's."""
        if node.op != "reshape":
            return None
        (x,), (y,) = node.inputs, other.inputs
        i = self.number[x]
        before = [pair for pair in zip(x.shape, y.shape, strict=True) if changes(pair)]
        after = [pair for pair in zip(node.shape, other.shape, strict=True) if changes(pair)]
        if len(self.axes[i]) < len(before):
            self._guess(x, y, node, other)
            return None
        if before == after and len(self.uniform[i]) == len(before):
            return None
        return split_as(x.shape, self.axes[i], list(zip(node.shape, other.shape, strict=True)))

    def _guess(self, x: Node, y: Node, node: Node, other: Node) -> None:
        """Of what the dimensions of the operand `x` of a reshape may be made: what those of its result are of."""
        pairs = list(zip(node.shape, other.shape, strict=True))
        axes = {axis: self.known.get(pair) for axis, pair in enumerate(pairs) if changes(pair)}
        if None in axes.values():
            return
        wanted = list(zip(x.shape, y.shape, strict=True))
        try:
            split = split_as(node.shape, axes, wanted)  # type: ignore[arg-type]  # none is None
        except NotTold:
            return
        for pair, factors in zip(wanted, split, strict=True):
            if changes(pair):
                self.known.setdefault(pair, factors)

    def _derive(self, node: Node, other: Node, axis: int, pair: Sizes) -> None:
        """A part, or something padded, has a size less or more a number."""
        (x,), (y,) = node.inputs, other.inputs
        base = x.shape[axis], y.shape[axis]
        number = pair[0] - base[0]
        is_same = number == pair[1] - base[1] and self.axes[self.number[x]].get(axis) == (base,)
        if is_same and number and pair not in self.known:
            bases, more = self._sum(base)
            self.derived[pair] = bases, number + more
            self.known[pair] = (pair,)

    def _sum(self, pair: Sizes) -> Sum:
        return self.derived.get(pair, ((pair,), 0))

    def _joined(self, node: Node, other: Node, axis: int, pair: Sizes) -> Factors | None:
        """Of what a dimension is made along which operands are joined: a size that is the sum of theirs."""
        bases: list[Sizes] = []
        number = 0
        for x, y in zip(node.inputs, other.inputs, strict=True):
            m, n = x.shape[axis], y.shape[axis]
            if m == n:
                number += m
                continue
            if self.axes[self.number[x]].get(axis) != ((m, n),):
                return None
            more, count = self._sum((m, n))
            bases += more
            number += count
        if pair not in self.known:
            self.derived[pair], self.known[pair] = (tuple(sorted(bases)), number), (pair,)
        if self.known[pair] != (pair,) or self._sum(pair) != (tuple(sorted(bases)), number):
            raise NotTold  # it happens to be another size, too
        return (pair,)

    def _of_operands(self, node: Node, other: Node, pair: Sizes) -> tuple[Factors | None, bool]:
        """Of what those dimensions of the operands are made that have such extents, which must be the same for all, and
        whether all elements along all of them are the same.
        """
        found: dict[Factors, bool] = {}
        for x, y in zip(node.inputs, other.inputs, strict=True):
            i = self.number[x]
            for axis, factors in self.axes[i].items():
                if (x.shape[axis], y.shape[axis]) == pair:
                    found[factors] = found.get(factors, True) and axis in self.uniform[i]
        certain = [factors for factors, is_uniform in found.items() if not is_uniform]
        if len(certain) > 1:
            raise NotTold
        if certain:
            return certain[0], False
        return next(iter(found), None), bool(found)


def _is_repeated(node: Node, axis: int) -> bool:
    """Whether a node that reads nothing of such an extent has the same elements along an axis."""
    return node.op in ("constant", "broadcast") or (node.op == "iota" and node.integer("axis") != axis)


def _goes_along(node: Node, axis: int) -> bool:
    """Whether a node makes of equal elements along an axis others."""
    return OPS[node.op].kind == "scan" or node.op == "pad" or node.op in DRAWS


def factorised(first: Graph, second: Graph, sizes: Collection[Sizes]) -> Extents:
    """What is known of the extents of two graphs with like nodes, whose operands differ in `sizes`. NotTold where it is
    too little.
    """
    return _Factoriser(first, second, sizes).run()


def split_as(shape: Sequence[int], axes: Axes, wanted: Sequence[Sizes]) -> list[Factors]:
    """Of what the dimensions `wanted` are made, into which a tensor of `shape` is reshaped; NotTold where one of the
    sizes would be taken apart.
    """
    if 0 in shape:
        raise NotTold
    left = [factor for axis, n in enumerate(shape) for factor in axes.get(axis, ((n, n),))][::-1]
    made: list[Factors] = []
    for m, n in wanted:
        factors: list[Sizes] = []
        while (m, n) != (1, 1):
            if not left:
                raise NotTold
            a, b = left.pop()
            if a == b:
                part = math.gcd(m, n, a)
                if part == 1 and a > 1:
                    raise NotTold
                if a > part:
                    left.append((a // part, a // part))
                a = b = part
            elif m % a or n % b:
                raise NotTold
            m, n = m // a, n // b
            if a == b == 1:
                continue
            if a == b and factors and not changes(factors[-1]):
                factors[-1] = (factors[-1][0] * a, factors[-1][0] * a)
            else:
                factors.append((a, b))
        made.append(tuple(factors))
    if any(factor != (1, 1) for factor in left):
        raise NotTold
    return made
