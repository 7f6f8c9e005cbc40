"""Where movement operators read: the operand's index, and the condition under which there is one, for an index of
the result.
"""

from __future__ import annotations

from graphc.ir.index import ZERO, Ix, derived, reshape_index
from graphc.ir.node import Node
from graphc.ir.record import record

Index = tuple[Ix, ...]


@record
class Within:
    """The condition `0 <= index < extent`."""

    index: Ix
    extent: int


@record
class Divides:
    """The condition that `number` divides `index` (which may be negative only where another condition fails)."""

    index: Ix
    number: int


Condition = Within | Divides


@record
class Read:
    """One place where the operand is read, valid when all `conditions` hold."""

    at: Index
    conditions: tuple[Condition, ...] = ()


def _within(index: Ix, extent: int) -> tuple[Condition, ...]:
    return () if index.lo >= 0 and index.hi < extent else (Within(index, extent),)


def _quotient(index: Ix, number: int, extent: int) -> tuple[Ix, tuple[Condition, ...]]:
    """`index / number` as an index below `extent`, with the conditions that make it one."""
    conditions = _within(index, (extent - 1) * number + 1)
    if number == 1:
        return index, conditions
    if all(c % number == 0 for _, c in index.terms):
        if index.const % number:
            return ZERO, (*conditions, Divides(index, number))
        return Ix(index.const // number, tuple((s, c // number) for s, c in index.terms)), conditions
    safe = derived("clamp", index, (extent - 1) * number)
    return derived("floordiv", safe, number), (*conditions, Divides(safe, number))


def permute_read(node: Node, idx: Index) -> Read:
    at = [ZERO] * len(idx)
    for i, d in enumerate(node.ints("perm")):
        at[d] = idx[i]
    return Read(tuple(at))


def broadcast_read(node: Node, idx: Index) -> Read:
    shape = node.inputs[0].shape
    tail = idx[len(idx) - len(shape) :]
    return Read(tuple([ZERO if n == 1 else ix for n, ix in zip(shape, tail, strict=True)]))


def slice_read(node: Node, idx: Index) -> Read:
    start, step = node.ints("start"), node.ints("step")
    return Read(tuple([ix * st + s for ix, s, st in zip(idx, start, step, strict=True)]))


def reshape_read(node: Node, idx: Index) -> Read:
    return Read(reshape_index(idx, node.shape, node.inputs[0].shape))


def window_read(node: Node, idx: Index) -> Read:
    axes, stride, dilation = node.ints("axes"), node.ints("stride"), node.ints("dilation")
    rank = node.inputs[0].type.rank
    at = list(idx[:rank])
    for k, axis in enumerate(axes):
        at[axis] = idx[axis] * stride[k] + idx[rank + k] * dilation[k]
    return Read(tuple(at))


def pad_read(node: Node, idx: Index) -> Read:
    low, interior = node.ints("low"), node.ints("interior")
    at, conditions = [], []
    for ix, lo, between, n in zip(idx, low, interior, node.inputs[0].shape, strict=True):
        place, needs = _quotient(ix + -lo, between + 1, n)
        at.append(place)
        conditions.extend(needs)
    return Read(tuple(at), tuple(conditions))


def concat_reads(node: Node, idx: Index) -> list[Read]:
    """One read per operand; exactly one of them holds."""
    axis, reads, offset = node.integer("axis"), [], 0
    for operand in node.inputs:
        shifted = idx[axis] + -offset
        reads.append(Read((*idx[:axis], shifted, *idx[axis + 1 :]), _within(shifted, operand.shape[axis])))
        offset += operand.shape[axis]
    return reads


def fold_reads(node: Node, idx: Index) -> list[Read]:
    """One read per place in the window; those that hold are added."""
    axes, stride, dilation = node.ints("axes"), node.ints("stride"), node.ints("dilation")
    operand = node.inputs[0].shape
    rank = len(idx)
    reads = [Read(idx)]
    for k, axis in enumerate(axes):
        grown = []
        for read in reads:
            for r in range(operand[rank + k]):
                place, needs = _quotient(idx[axis] + -r * dilation[k], stride[k], operand[axis])
                at = (*read.at[:axis], place, *read.at[axis + 1 :], Ix(r))
                grown.append(Read(at, read.conditions + needs))
        reads = grown
    return reads


SINGLE_READ = {
    "permute": permute_read,
    "broadcast": broadcast_read,
    "slice": slice_read,
    "reshape": reshape_read,
    "window": window_read,
    "pad": pad_read,
}
