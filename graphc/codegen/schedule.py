"""The choices for one kernel: lanes, tiles and loop orders."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.codegen.sites import Site
from graphc.ir.index import Var

MAX_UNROLLED = 600  # multiply-adds (or other operations) in one unrolled body


@dataclass(slots=True)
class Schedule:
    """How to run a nest. `lane` is a domain axis, or None: then each site has its own lane variable in `site_lane`
    (or none).

    `tile` gives how many points of an axis (vectors, for the lane axis) are computed at once; `order` lists the
    domain's axes, outermost first; `unrolled` are reduction variables without a loop; `loop_order` the looped ones of
    each site.
    """

    lanes: int
    lane: Var | None
    order: list[Var]
    tile: dict[Var, int]
    site_lane: dict[Site, Var] = field(default_factory=dict)
    unrolled: dict[Site, tuple[Var, ...]] = field(default_factory=dict)
    loop_order: dict[Site, tuple[Var, ...]] = field(default_factory=dict)
    split: dict[Site, int] = field(default_factory=dict)
    turned: Var | None = None  # an axis whose places are loaded as vectors and transposed in registers
    lane_block: int = 0  # run all else for so many places of the lane axis, then for the next ones (0: for all places)
