"""Which kernels can go along their outermost axes block by block, and what of memory belongs to a block."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.prepare import Prepared
from graphc.codegen.sites import leading
from graphc.ir.index import Ix
from graphc.ir.node import Node
from graphc.ir.record import record


@record
class Blocks:
    """A kernel whose range runs along `count` places of its first axes: all that belongs to a place comes before the
    next one.

    `strides` says for each buffer how many of its bytes belong to a place, 0 where places share some. Of `copied`
    buffers all is copied before the kernel runs, into `scratch` bytes.
    """

    count: int
    strides: Mapping[Node, int]
    copied: frozenset[Node]
    scratch: int


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
    others = (schedule.lane, schedule.whole, schedule.turned, schedule.block[0])
    if any(v in others or schedule.tile[v] != 1 for v in first) or schedule.lane_block or schedule.chunk is not None:
        return None
    strides: dict[Node, int] = {}
    for site in nest.sites:
        for access in site.accesses:
            own, left = divmod(access.buffer.type.size, count)
            skipped = starts.get(access.buffer, 0) // access.buffer.dtype.itemsize
            rest, step = access.address + skipped, own
            for var in reversed(first):
                rest, step = rest + Ix.of(var, -step), step * (var.hi + 1)
            shares = any(v in rest.symbols() for v in first)
            is_own = own > 0 and not left and not shares and rest.lo >= 0 and rest.hi < own
            if access.is_store and not is_own:
                return None
            is_own = is_own and strides.get(access.buffer) != 0
            strides[access.buffer] = own * access.buffer.dtype.itemsize if is_own else 0
    panels = schedule.far_panels
    return Blocks(count, strides, frozenset(p.source for p in panels), sum(p.memory.type.nbytes for p in panels))
