"""The choices for one kernel: lanes, tiles and loop orders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from graphc.codegen.borders import Border
from graphc.codegen.dealing import Rows
from graphc.codegen.gpu_chain_tiles import ChainTiling
from graphc.codegen.gpu_contraction_problem import Problem
from graphc.codegen.gpu_contraction_tiles import MatrixTile, Tile
from graphc.codegen.sites import Site
from graphc.ir.index import Ix, Var
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.schedule import Scratch

MAX_UNROLLED = 600  # multiply-adds (or other operations) in one unrolled body
T = TypeVar("T")


class NoOption(Exception):
    """A decision has fewer options than a `Choice` asks for."""


@record
class Choice:
    """Which of its options each decision about a kernel takes, by its number in the order of their predicted cost:
    with zeros throughout, the kernel is what the cost model likes best.

    `lane` is the axis across the lanes, `tile` the points computed at once, `sums` the loops of reductions, `panels`
    the operands to copy, `chunk` the parts of a long sum, `order` that of the axes, with blocks.
    """

    lane: int = 0
    tile: int = 0
    sums: int = 0
    panels: int = 0
    chunk: int = 0
    order: int = 0


MODEL = Choice()


def pick(options: Sequence[T], number: int) -> T:
    """Option `number`; NoOption when there are not so many."""
    if number >= len(options):
        raise NoOption
    return options[number]


@dataclass(frozen=True, eq=False, slots=True)
class Panel:
    """A copy of operand number `operand`: for each choice of the `outer` axes and each tile of `axis`, for each step of
    `loops` (outermost first), the `width` elements of the tile.

    `address` is where an element lies in `source`. The last tile of the lane axis is filled up; on another axis it is
    moved back, as the kernel's own last tile is.

    The kernel itself fills a panel that `is_near`. On the lane axis that is one tile at a time, and then it goes
    through all tiles that read it. On another axis it is a block of `held` tiles, for one `chunk` of the sum, and then
    the kernel goes through the lane axis. A panel that `is_optional` is left out unless it can be near.
    """

    operand: int
    source: Node
    address: Ix
    axis: Var
    is_lane: bool
    width: int
    outer: tuple[Var, ...]
    loops: tuple[Var, ...]
    memory: Scratch
    is_near: bool = False
    is_optional: bool = False
    held: int = 1
    chunk: Chunk | None = None

    @property
    def copying(self) -> float:
        """Estimated cycles for copying all elements once."""
        return self.memory.type.size * (0.5 if self.address.coefficient(self.axis) == 1 else 1.5)

    @property
    def tiles(self) -> int:
        """Tiles of the axis."""
        return -(-(self.axis.hi + 1) // self.width)

    @property
    def length(self) -> int:
        """Elements of one tile's panel."""
        return self.width * math.prod(map(self.steps, self.loops))

    def steps(self, var: Var) -> int:
        """Steps of a loop that the panel holds."""
        return self.chunk.size if self.chunk is not None and var is self.chunk.var else var.hi + 1

    def stride(self, var: Var) -> int:
        """How far apart neighbours along a loop or an outer axis lie; 0 for a variable that the operand has not."""
        step = self.width
        for loop in reversed(self.loops):
            if loop is var:
                return step
            step *= self.steps(loop)
        step *= self.tiles
        for axis in reversed(self.outer):
            if axis is var:
                return step
            step *= axis.hi + 1
        return 0


@dataclass(frozen=True, eq=False, slots=True)
class Chunk:
    """A sum over `var` that is made `size` steps at a time, for all tiles of a piece of the domain before the next
    steps, so that the operands of one chunk stay in the nearest cache. `sums` holds what the tiles have so far.
    """

    var: Var
    size: int
    sums: Scratch

    @property
    def last(self) -> int:
        """The first step of the last chunk."""
        return self.var.hi // self.size * self.size


@dataclass(frozen=True, eq=False, slots=True)
class Tiling:
    """A contraction that blocks of threads on a GPU compute by tiles. `sums` holds parts of sums that several blocks
    share.
    """

    problem: Problem
    tile: Tile | MatrixTile
    sums: Scratch | None


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
    steps: dict[Site, int] = field(default_factory=dict)  # of an innermost loop in one pass through it, where several
    streamed: set[Site] = field(default_factory=set)  # sites whose partial results are those of stretches far apart
    borders: dict[Var, Border] = field(default_factory=dict)  # loops of a contraction that leave out steps
    turned: Var | None = None  # an axis whose places are loaded as vectors and transposed in registers
    dealt: frozenset[Rows] = frozenset()  # short rows, one for each lane, that are loaded as vectors and transposed
    crossed: Var | None = None  # an axis along which a contraction stores, transposing vectors in registers
    lane_block: int = 0  # run all else for so many places of the lane axis, then for the next ones (0: for all places)
    whole: Var | None = None  # a short axis of which all places are computed together, as they share operands
    panels: tuple[Panel, ...] = ()  # operands of the contraction that are copied before the kernel runs
    block: tuple[Var | None, int] = (None, 1)  # an axis of which so many tiles are gone through inside the lane loop
    chunk: Chunk | None = None  # a long sum is made in parts
    outermost: tuple[Var, ...] = ()  # axes that must stay the outermost loops, one place after the other
    rows: tuple[Var, ...] = ()  # axes along which rows are added up: one place after the other, by one thread
    cycles: float = 0.0  # the estimated cost of a contraction's tiles
    threads: int = 1  # on a GPU: of a block that computes one point of the domain; 1: a thread does
    side_by_side: int = 1  # elements of a row that lie side by side and that one thread of a block has
    tiling: Tiling | None = None  # on a GPU: blocks of threads compute a contraction
    chain: ChainTiling | None = None  # likewise a chain of contractions

    @property
    def moves_back(self) -> bool:
        """Whether the last vector of the lane axis begins earlier to be whole, and computes some elements once more."""
        return self.turned is not None and self.lane is not None and (self.lane.hi + 1) % self.lanes > 0

    @property
    def far_panels(self) -> tuple[Panel, ...]:
        """The panels that kernels of their own fill before this one runs."""
        return tuple(p for p in self.panels if not p.is_near)

    @property
    def memory(self) -> tuple[Scratch, ...]:
        """What the kernels of the nest work in."""
        if self.tiling is not None:
            return () if self.tiling.sums is None else (self.tiling.sums,)
        return (*(p.memory for p in self.far_panels), *((self.chunk.sums,) if self.chunk is not None else ()))
