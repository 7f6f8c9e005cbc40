"""Which kernels can go along their outermost axis block by block, and what of memory belongs to a block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.prepare import Prepared
from graphc.ir.index import Ix
from graphc.ir.node import Node


@dataclass(frozen=True, slots=True)
class Blocks:
    """A kernel whose range runs along `count` places of one axis, all that belongs to a place before the next one.

    `strides` says for each buffer how many of its bytes belong to a place, 0 where places share some. Of `copied`
    buffers all is copied before the kernel runs, into `scratch` bytes.
    """

    count: int
    strides: Mapping[Node, int]
    copied: frozenset[Node]
    scratch: int


def blocks_of(prepared: Prepared, starts: Mapping[Node, int]) -> Blocks | None:
    """How the kernel goes along the first axis; None when that is not its outermost loop, or when places share what it
    stores. Its parameters begin `starts` bytes into their buffers.
    """
    nest, schedule = prepared.nest, prepared.schedule
    if not nest.axes or nest.axes[0].hi < 1 or schedule.order[0] is not nest.axes[0]:
        return None
    first = nest.axes[0]
    if first in (schedule.lane, schedule.whole, schedule.turned, schedule.block[0]) or schedule.tile[first] != 1:
        return None
    if schedule.lane_block or schedule.chunk is not None:
        return None
    strides: dict[Node, int] = {}
    for site in nest.sites:
        for access in site.accesses:
            own, left = divmod(access.buffer.type.size, first.hi + 1)
            skipped = starts.get(access.buffer, 0) // access.buffer.dtype.itemsize
            rest = access.address + Ix.of(first, -own, skipped)
            is_own = own > 0 and not left and first not in rest.symbols() and rest.lo >= 0 and rest.hi < own
            if access.is_store and not is_own:
                return None
            is_own = is_own and strides.get(access.buffer) != 0
            strides[access.buffer] = own * access.buffer.dtype.itemsize if is_own else 0
    panels = schedule.far_panels
    return Blocks(first.hi + 1, strides, frozenset(p.source for p in panels), sum(p.memory.type.nbytes for p in panels))
