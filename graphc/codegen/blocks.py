"""Which kernels can go along their outermost axes block by block, and what of memory belongs to a block."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.codegen.prepare import Prepared
from graphc.codegen.sites import leading
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.record import record


@record
class Blocks:
    """A kernel whose range runs along `count` places of its first axes: all that belongs to a place comes before the
    next one.

    `strides` says for each buffer how many of its bytes belong to a place and lie side by side, 0 where there are none
    such; `scattered` about how many bytes of a buffer a place touches that lie elsewhere or that its neighbours touch
    too. Of `copied` buffers all is copied before the kernel runs, into `scratch` bytes.
    """

    count: int
    strides: Mapping[Node, int]
    scattered: Mapping[Node, int]
    copied: frozenset[Node]
    scratch: int

    @property
    def own(self) -> int:
        """About how many bytes a place touches that few others do."""
        return sum(self.strides.values()) + sum(self.scattered.values())

    @property
    def shared(self) -> list[Node]:
        """What all places read."""
        return [n for n, own in self.strides.items() if not own and n not in self.scattered and n not in self.copied]


def blocks_of(prepared: Prepared, starts: Mapping[Node, int], count: int) -> Blocks | None:
    """How the kernel goes along its first axes, those with `count` places together; None when these are not its
    outermost loops, or when places share what it stores. Its parameters begin `starts` bytes into their buffers.
    """
    nest, schedule = prepared.nest, prepared.schedule
    first = leading(nest.axes, count)
    if not first or tuple(schedule.order[: len(first)]) != first:
        return None
    if len(first) > 1 and schedule.outermost != first:  # not all of them are in the parallel range
        return None
    inner = (schedule.lane, schedule.whole, schedule.turned, schedule.block[0])
    if any(v in inner or schedule.tile[v] != 1 for v in first) or schedule.chunk is not None:
        return None
    if schedule.lane_block and schedule.lane is not None and schedule.lane.hi >= schedule.lane_block:
        return None  # its blocks are outermost
    strides: dict[Node, int] = {}
    scattered: dict[Node, int] = {}
    added = {root.target for root in prepared.group.roots if root.adds}
    for site in nest.sites:
        for access in site.accesses:
            buffer, symbols = access.buffer, access.address.symbols().keys()
            own, left = divmod(buffer.type.size, count)
            skipped = starts.get(buffer, 0) // buffer.dtype.itemsize
            rest, step = access.address + skipped, own
            for var in reversed(first):
                rest, step = rest + Ix.of(var, -step), step * (var.hi + 1)
            shares = any(v in rest.symbols() for v in first)
            is_own = own > 0 and not left and not shares and rest.lo >= 0 and rest.hi < own
            if access.is_store and not is_own and (buffer in added or not symbols >= set(first)):
                return None
            is_own = is_own and strides.get(buffer) != 0
            strides[buffer] = own * buffer.dtype.itemsize if is_own else 0
            if not symbols.isdisjoint(first):
                others = (v for v in symbols if isinstance(v, Var) and v not in first)
                touched = math.prod(v.hi + 1 for v in others) * buffer.dtype.itemsize
                scattered[buffer] = min(scattered.get(buffer, 0) + touched, buffer.type.nbytes)
    panels = schedule.far_panels
    return Blocks(
        count,
        strides,
        {buffer: touched for buffer, touched in scattered.items() if not strides[buffer]},
        frozenset(p.source for p in panels),
        sum(p.memory.type.nbytes for p in panels),
    )
