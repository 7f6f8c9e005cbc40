"""Gradient rules of the movement operators: each is the adjoint of a linear map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.ir.builder import Builder

Gradients = Sequence["Node | None"]


def reshape(b: Builder, node: Node, ct: Node) -> Gradients:
    return [b.reshape(ct, node.inputs[0].shape)]


def permute(b: Builder, node: Node, ct: Node) -> Gradients:
    perm = node.ints("perm")
    return [b.permute(ct, tuple(perm.index(i) for i in range(len(perm))))]


def broadcast(b: Builder, node: Node, ct: Node) -> Gradients:
    shape = node.inputs[0].shape
    offset = len(node.shape) - len(shape)
    repeated = tuple(i for i, n in enumerate(node.shape) if i < offset or (shape[i - offset] == 1 and n != 1))
    return [b.reshape(b.reduce_sum(ct, repeated), shape)]


def slice(b: Builder, node: Node, ct: Node) -> Gradients:
    """Zeros between and around the cotangent, turned round where the step is negative."""
    x = node.inputs[0]
    if ct.type.size == 0:
        return [b.zeros_like(x)]
    starts, steps = node.ints("start"), node.ints("step")
    reversed_axes = tuple(i for i, step in enumerate(steps) if step < 0 and ct.shape[i] > 1)
    if reversed_axes:
        ct = b.flip(ct, reversed_axes)
    interior = tuple(max(abs(step) - 1, 0) if n > 1 else 0 for step, n in zip(steps, ct.shape, strict=True))
    low = tuple(min(start, start + (n - 1) * step) for start, n, step in zip(starts, ct.shape, steps, strict=True))
    high = tuple(
        size - before - ((n - 1) * (between + 1) + 1)
        for size, before, n, between in zip(x.shape, low, ct.shape, interior, strict=True)
    )
    return [b.pad(ct, low, high, interior)]


def pad(b: Builder, node: Node, ct: Node) -> Gradients:
    x = node.inputs[0]
    low, step = node.ints("low"), tuple(between + 1 for between in node.ints("interior"))
    start = tuple(before if n else 0 for before, n in zip(low, x.shape, strict=True))
    return [b.slice(ct, start, x.shape, step)]


def concat(b: Builder, node: Node, ct: Node) -> Gradients:
    axis, start, gradients = node.integer("axis"), 0, []
    step = (1,) * ct.type.rank
    for x in node.inputs:
        place = tuple(start if i == axis and x.shape[axis] else 0 for i in range(ct.type.rank))
        gradients.append(b.slice(ct, place, x.shape, step))
        start += x.shape[axis]
    return gradients


def window(b: Builder, node: Node, ct: Node) -> Gradients:
    shape = node.inputs[0].shape
    return [b.fold(ct, shape, node.ints("axes"), node.ints("stride"), node.ints("dilation"))]


def fold(b: Builder, node: Node, ct: Node) -> Gradients:
    size = node.inputs[0].shape[len(node.shape) :]
    return [b.window(ct, node.ints("axes"), size, node.ints("stride"), node.ints("dilation"))]
