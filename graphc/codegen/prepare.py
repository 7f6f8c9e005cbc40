"""Preparing a group: its loops are found and scheduled before memory is planned, since the plan needs to know what
may run in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphc.codegen.gpu_chain_tiles import choose_chain
from graphc.codegen.gpu_contraction_tiling import choose_tiling
from graphc.codegen.gpu_schedule import keeping_pays_on_gpu, make_gpu_schedule
from graphc.codegen.loops import cutting_pays, keeping_pays, make_schedule
from graphc.codegen.schedule import MODEL, Choice, Schedule
from graphc.codegen.sites import Nest, build_nest, cut_axes, leading
from graphc.codegen.target import Target
from graphc.ir.index import Ix
from graphc.ir.node import Node
from graphc.ir.schedule import Group


@dataclass(frozen=True, eq=False)
class Prepared:
    """A group with its loops chosen. `in_place` lists (target, operand): the operand's memory may become the
    target's.
    """

    group: Group
    nest: Nest
    schedule: Schedule
    in_place: tuple[tuple[Node, Node], ...]


def prepare(group: Group, target: Target, choice: Choice = MODEL, apart: int = 0, is_aligned: bool = True) -> Prepared:
    """Choose the loops of `group` on `target`: the options of `choice`. NoOption when there are not so many.

    The first `apart` axes of its domain have the outermost loops, if that can be. `is_aligned`: parameters
    begin where vectors of memory do, which matters to a GPU.
    """
    on_gpu = target.device == "cuda"
    nest = build_nest(group, apart, on_gpu)
    if group.kept:
        without = replace(group, kept=())
        plain = build_nest(without, apart, on_gpu)
        if not (keeping_pays_on_gpu if on_gpu else keeping_pays)(nest, plain, target):
            group, nest = without, plain
    cut = cut_axes(group, nest) if not on_gpu else None
    if cut is not None and cutting_pays(cut, nest, target):
        nest = cut
    if on_gpu:
        chain = choose_chain(nest, target, is_aligned)
        if chain is not None:
            alone = Schedule(1, None, [*nest.axes], dict.fromkeys(nest.axes, 1), chain=chain)
            return Prepared(group, nest, alone, ())
        schedule = make_gpu_schedule(nest, target, is_aligned)
        schedule.tiling = choose_tiling(nest, target) if is_aligned else None
    else:
        schedule = make_schedule(nest, target, choice, leading(nest.axes, math.prod(group.domain[:apart])))
    return Prepared(group, nest, schedule, tuple(_in_place(nest, schedule)))


def _in_place(nest: Nest, schedule: Schedule) -> Iterator[tuple[Node, Node]]:
    """Pairs (target, operand): each element of the operand is read only where, and before, the target's is written."""
    for var, tile in schedule.tile.items():
        if var is not schedule.lane and (var.hi + 1) % tile:
            return  # the last tile computes some elements twice
    if schedule.moves_back:
        return
    if any(site.stage is not None or site.loops for site in nest.sites):
        return
    stores = {site.root.target: site.accesses[-1].address for site in nest.sites if site.root is not None}
    loads: dict[Node, set[Ix]] = {}
    for site in nest.sites:
        for access in site.accesses:
            if not access.is_store:
                loads.setdefault(access.buffer, set()).add(access.address)
    partial = {s.root.target for s in nest.sites if s.root is not None and (s.root.is_partial or s.root.adds)}
    for target, place in stores.items():
        if target in partial:
            continue  # the operand would be gone before it is read
        for leaf, addresses in loads.items():
            if (
                leaf not in stores
                and leaf.dtype is target.dtype
                and leaf.shape == target.shape
                and addresses == {place}
            ):
                yield target, leaf
