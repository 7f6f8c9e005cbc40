"""What convolutions and pooling share: arguments given once for each axis, and padding that may cut off."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import UsageError
from graphc.ir.builder import Builder
from graphc.ir.node import Node

Extents = int | Sequence[int]
Pads = Sequence[tuple[int, int]]


def per_axis(value: Extents, name: str, count: int) -> tuple[int, ...]:
    """One number for each of `count` axes; RuntimeError, in the words of convolutions, for another count."""
    if isinstance(value, int):
        return (value,) * count
    given = tuple(int(v) for v in value)
    if len(given) == 1:
        given *= count
    if len(given) != count:
        raise UsageError(
            f"expected {name} to be a single integer value or a list of {count} values to match the convolution "
            f"dimensions, but got {name}={list(given)}"
        )
    return given


def pad_or_cut(b: Builder, x: Node, pads: Pads, value: float = 0) -> Node:
    """The last dimensions of `x` with (low, high) elements `value` added; negative numbers cut off."""
    rank = x.type.rank
    front = rank - len(pads)
    low = (0,) * front + tuple(max(p, 0) for p, _ in pads)
    high = (0,) * front + tuple(max(p, 0) for _, p in pads)
    x = b.pad(x, low, high, None, value)
    start = (0,) * front + tuple(max(-p, 0) for p, _ in pads)
    size = x.shape[:front] + tuple(n + min(p, 0) + min(q, 0) for n, (p, q) in zip(x.shape[front:], pads, strict=True))
    return x if size == x.shape else b.slice(x, start, size, (1,) * rank)
