"""What a nest costs by the axis that runs across the lanes: estimated cycles of accesses and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphc.codegen.crossing import SHUFFLED
from graphc.codegen.dealing import Rows, begins_row
from graphc.codegen.extremes import is_place
from graphc.codegen.sites import Access, Nest, Site
from graphc.ir.demand import WIDE_STRIDE
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node

_NO_ROWS: Mapping[Rows, float] = {}


def work_cycles(maps: int, heavy: int) -> float:
    """Estimated cycles of so many operations on a vector, and of so many of them that are heavy."""
    return maps * 0.5 + heavy * 8


def loads_of(nest: Nest) -> list[tuple[Node, Ix]]:
    """What the sites of a nest load."""
    return [(a.buffer, a.address) for s in nest.sites for a in s.accesses if not a.is_store]


def _iterations(variables: tuple[Var, ...], nest: Nest) -> int:
    return nest.points * math.prod(v.hi + 1 for v in variables)


def access_cost(
    access: Access,
    lane: Var,
    lanes: int,
    turns: bool = False,
    zips: bool = False,
    dealt: Mapping[Rows, float] = _NO_ROWS,
) -> float:
    """Cycles for one vector's worth of an access when `lane` runs across the lanes (and strided loads are turned, and
    stores zipped).
    """
    stride = abs(access.address.coefficient(lane))
    if not access.is_store and (access.buffer, stride) in dealt and begins_row(access.address, stride):
        return dealt[access.buffer, stride]
    if zips and access.is_store:
        return 1.0 + SHUFFLED * math.log2(stride)
    varies = any(not isinstance(s, Var) and lane in Ix.of(s).symbols() for s, _ in access.address.terms)
    if turns and stride > WIDE_STRIDE and not access.is_store:
        return min(lanes, 1.0 + math.log2(lanes))
    if varies or stride > WIDE_STRIDE:
        return lanes * (1.5 if access.is_store else 1.0)
    if stride == 0:
        return 0.6
    return 1.0 if stride == 1 else 1.0 + stride


def site_cost(
    site: Site,
    nest: Nest,
    lane: Var | None,
    lanes: int,
    turns: bool = False,
    zips: bool = False,
    dealt: Mapping[Rows, float] = _NO_ROWS,
) -> float:
    """Estimated cycles of a site with `lane` across lanes (None: scalar code); `turns`: strided loads are turned;
    `zips`: stores are zipped.
    """
    count = _iterations(site.loops, nest)
    work = work_cycles(site.maps, site.heavy)
    if lane is None:
        return count * (len(site.accesses) * 0.6 + work)
    extent = lane.hi + 1
    vectors = count / extent * math.ceil(extent / lanes)
    return vectors * (sum(access_cost(a, lane, lanes, turns, zips, dealt) for a in site.accesses) + work)


def own_lane(site: Site, lanes: int) -> Var | None:
    """The loop variable of the site itself that is best across lanes, if one beats scalar code."""
    best: tuple[float, Var | None] = (len(site.accesses) * 0.6 * lanes, None)
    in_order = site.stage is not None and is_place(site.stage)  # each lane must see its places in their order
    for var in [v for v in site.loops if v.hi > 0][-1:] if in_order else site.loops:
        extent = var.hi + 1
        waste = math.ceil(extent / lanes) * lanes / extent
        cost = waste * sum(access_cost(a, var, lanes) for a in site.accesses)
        if extent > 1 and cost < best[0]:
            best = (cost, var)
    return best[1]


def inner_cost(nest: Nest, sites: list[Site], lanes: int) -> float:
    """Cost when each site uses a loop of its own for the lanes; reductions then end with a sum across lanes."""
    total = 0.0
    for site in sites:
        lane = own_lane(site, lanes)
        total += site_cost(site, nest, lane, lanes)
        if site.stage is not None and lane is not None:
            total += across_cost(site, nest, lanes)
    return total


def across_cost(site: Site, nest: Nest, lanes: int) -> float:
    """Cost of the sums across lanes that end a reduction."""
    return nest.points * len(site.points) * 2 * math.log2(lanes)
