"""Plain data that passes hand to code generation: which nodes become one kernel, and where buffers lie."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.demand import APART
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import TensorType

MAX_SCATTERS = 4  # movement operators that one store may go through
SHARE = 0.75  # of a core's second cache that a region may take for what it works on at once
KEPT = 0.5  # of that for what all blocks read, which then stays there
MAX_PARTS = 128  # operands of a concatenation that one kernel stores side by side


@dataclass(frozen=True, eq=False)
class Root:
    """A value that a kernel stores.

    `value` is computed at every point of its shape: its dimension `d` runs along axis `dims[d]` of the group's domain,
    or, when `dims[d]` is negative, along an inner loop of its own. `scatter` lists the `pad`/`fold` nodes, innermost
    first, through which the value is written to its place in `target`; without any, `target is value`. A `concat` may
    stand there first, alone or with a `reshape` behind it: the value is then its operand number `part`, and the other
    roots of the group are its others. Behind these a `slice` may stand that keeps the beginning of some dimensions.
    When the last one is a `reduce_sum` (`ir/row_sums.py`), perhaps behind a `reshape`, the value is added to its place.
    """

    value: Node
    dims: tuple[int, ...]
    scatter: tuple[Node, ...] = ()
    part: int = -1

    @property
    def target(self) -> Node:
        return self.scatter[-1] if self.scatter else self.value

    @property
    def is_partial(self) -> bool:
        """Whether the root's stores leave out some of its target."""
        return bool(self.scatter) and self.value.type.size < self.target.type.size

    @property
    def is_zeroed(self) -> bool:
        """Whether the target is filled with zeros before the kernel runs, since its stores do not cover it."""
        wider = (n.op != "concat" and n.inputs[0].type.size < n.type.size for n in self.scatter)
        return self.adds or any(wider)

    @property
    def is_cut(self) -> bool:
        """Whether the target has no place for some of the value."""
        return any(node.op == "slice" for node in self.scatter)

    @property
    def adds(self) -> bool:
        """Whether the target is a sum over axes of the domain: each store adds to what is there."""
        return bool(self.scatter) and self.scatter[-1].op == "reduce_sum"


@dataclass(frozen=True, eq=False)
class Group:
    """Nodes that become one kernel: for every point of `domain`, its reductions and then its roots are computed.

    `inside` are the nodes computed in the kernel; what they read besides is a leaf, in memory. `kept` are values, in
    an order in which they can be computed, of which each point of the domain computes a row once and then reads it
    again: from memory where the value is a target too, otherwise from memory of the kernel's own.
    """

    domain: tuple[int, ...]
    roots: tuple[Root, ...]
    inside: frozenset[Node]
    kept: tuple[Root, ...] = ()

    @property
    def targets(self) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(r.target for r in self.roots))

    @property
    def is_apart(self) -> bool:
        """Whether this is one operator that has kernels of its own."""
        return len(self.roots) == 1 and self.roots[0].target.op in APART


@dataclass(frozen=True, eq=False)
class FusedGraph:
    """A graph and its groups in an order in which they can run."""

    graph: Graph
    groups: tuple[Group, ...]


@record
class Region:
    """`size` groups from number `first` on, which go through `blocks` blocks of their first axis, `together` at once.

    Only they read the `local` values, of which no more than these blocks are kept. What a block stores of the `spread`
    values lies in several places.
    """

    first: int
    size: int
    blocks: int
    together: int
    local: frozenset[Node]
    spread: frozenset[Node]


def stays_near(own: int, shared: int, cache_bytes: int) -> bool:
    """Whether blocks that touch `own` bytes each, beside `shared` bytes that all of them read, find these in a core's
    cache again.
    """
    most = SHARE * cache_bytes
    return shared <= max(own, KEPT * most) and own + shared <= most


@record
class BlockMemory:
    """The memory of a region for its local values: `nbytes` for each of `parts` threads, from `offset` in the arena on.

    `places` are the values' offsets in it.
    """

    region: Region
    parts: int
    offset: int
    nbytes: int
    places: dict[Node, int]


@record
class Scratch:
    """Memory that the kernels of one operator work in: its bytes are open before they run, and nobody reads it
    after.
    """

    owner: Node
    name: str
    type: TensorType


Place = tuple[int, int]
"""Where a value lies: its number in the program's table of buffers, and an offset in bytes."""


@dataclass(frozen=True, eq=False)
class MemoryPlan:
    """Where every stored value and all scratch memory lies. The table of buffers holds the inputs, then the outputs,
    then the arena.

    `merged[g]` maps targets of group `g` to operands whose memory they take over. `copies` are (output, value):
    outputs that need a copy of a value that lies elsewhere. `taken[j]` is the input whose buffer output `j` takes
    over, or -1. Local values of regions have no place but in `regions`.
    """

    places: dict[Node | Scratch, Place]
    merged: tuple[dict[Node, Node], ...]
    copies: tuple[tuple[int, Node], ...]
    taken: tuple[int, ...]
    arena_bytes: int
    regions: tuple[BlockMemory, ...] = ()
