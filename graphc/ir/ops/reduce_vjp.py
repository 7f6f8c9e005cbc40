"""Gradient rules of the reductions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node
from graphc.ir.ops.source import row_major_index
from graphc.ir.types import i32, i64

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def reduce_sum(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.expand_dims(ct, node.ints("axes"), node.inputs[0].shape)]


def reduce_max(b: Builder, node: Node, ct: Node) -> Gradients:
    return [_extreme(b, node, ct, "argmax")]


def reduce_min(b: Builder, node: Node, ct: Node) -> Gradients:
    return [_extreme(b, node, ct, "argmin")]


def _extreme(b: Builder, node: Node, ct: Node, arg: str) -> Node:
    """The cotangent at the extreme element(s). Where the result is NaN, the NaN elements count as the extreme ones."""
    x, axes = node.inputs[0], node.ints("axes")
    if node.text("ties") == "first":
        dtype = i32 if math.prod(x.shape[a] for a in axes) < 2**31 else i64
        winner = b.apply(arg, (x,), {"axes": axes, "dtype": dtype})
        place = row_major_index(b, x.type.with_dtype(dtype), axes)
        chosen = b.elementwise("eq", place, b.expand_dims(winner, axes, x.shape))
        return b.select(chosen, b.expand_dims(ct, axes, x.shape), 0.0)
    equal = b.elementwise("eq", x, b.expand_dims(node, axes, x.shape))
    chosen = b.elementwise("bitwise_or", equal, b.elementwise("ne", x, x))
    count = b.reduce_sum(b.cast(chosen, x.dtype), axes)
    return b.select(chosen, b.expand_dims(b.div(ct, count), axes, x.shape), 0.0)


def reduce_prod(b: Builder, node: Node, ct: Node) -> Gradients:
    """The gradient of a product tree over halves: right at zeros and without division, to every order.

    Level by level `y = left * right` halves the elements; back, `left` gets `g * right` and `right` gets `g * left`.
    """
    x, axes = node.inputs[0], node.ints("axes")
    if x.type.size == 0:
        return [b.zeros_like(x)]
    kept = tuple(i for i in range(x.type.rank) if i not in axes)
    perm = (*axes, *kept)
    moved = b.permute(x, perm)
    rest = tuple(x.shape[i] for i in kept)
    level = b.reshape(moved, (math.prod(x.shape[i] for i in axes), *rest))
    halves: list[tuple[Node, Node, int]] = []
    ones = (1,) * level.type.rank

    def part(of: Node, start: int, size: int) -> Node:
        return b.slice(of, (start, *(0 for _ in rest)), (size, *rest), ones)

    while (n := level.shape[0]) > 1:
        if n % 2:
            level = b.pad(level, (0,) * level.type.rank, (1, *(0 for _ in rest)), value=1)
        half = level.shape[0] // 2
        left, right = part(level, 0, half), part(level, half, half)
        halves.append((left, right, n))
        level = b.mul(left, right)
    gradient = b.reshape(ct, (1, *rest))
    for left, right, n in reversed(halves):
        gradient = b.concat((b.mul(gradient, right), b.mul(gradient, left)), 0)
        if n % 2:
            gradient = part(gradient, 0, n)
    gradient = b.reshape(gradient, moved.shape)
    return [b.permute(gradient, tuple(perm.index(i) for i in range(len(perm))))]
