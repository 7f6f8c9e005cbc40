"""Stores that have nothing in common go one after the other: a concatenation of many parts copies a stretch of each
rather than a vector of every part in turns, which are more streams than a machine foresees and more vectors than
registers.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.codegen.kernel import Param
from graphc.codegen.schedule import Schedule
from graphc.codegen.sites import Nest, Site
from graphc.ir.index import Var
from graphc.ir.node import Node

FEW = 16  # streams that are read and written in turns as fast as fewer
LONG = 16  # vectors of a stretch, from which on beginning a loop is a small part of it


def store_turns(nest: Nest, schedule: Schedule, params: Mapping[Node, Param]) -> tuple[tuple[Site, ...], ...]:
    """The sites that store together, in the order in which they do, or () for all at once. `params` has the memory of
    each value.

    Sites stay together that read the same elements, or of which one reads memory that another one writes.
    """
    lane, sites = schedule.lane, nest.sites
    if lane is None or lane.hi + 1 < LONG * schedule.lanes or schedule.turned is not None or schedule.whole is not None:
        return ()
    if any(s.root is None or s.stage is not None or s.loops or s.is_kept or s.root.adds for s in sites):
        return ()
    if any(not isinstance(symbol, Var) for s in sites for a in s.accesses for symbol in a.address.symbols()):
        return ()
    streams = {(params[a.buffer], a.address) for s in sites for a in s.accesses if a.address.coefficient(lane)}
    if len(streams) <= FEW:
        return ()
    stored = {params[a.buffer] for s in sites for a in s.accesses if a.is_store}
    changed = stored & {params[a.buffer] for s in sites for a in s.accesses if not a.is_store}
    turns: list[tuple[set[object], list[Site]]] = []  # with what each has that no other one has
    for site in sites:
        mine: set[object] = {params[a.buffer] for a in site.accesses if params[a.buffer] in changed}
        mine |= {(a.buffer, a.address) for a in site.accesses if not a.is_store and a.address.coefficient(lane)}
        mine = mine or {None}  # what is computed of nothing that lies in memory may be computed together
        joined = [site]
        for turn in [t for t in turns if t[0] & mine]:
            turns.remove(turn)
            mine |= turn[0]
            joined = [*turn[1], *joined]
        turns.append((mine, joined))
    return tuple(tuple(turn) for _, turn in turns) if len(turns) > 1 else ()
