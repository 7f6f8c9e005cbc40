"""What computing some values at some indices reads: the analysis that fusion and scheduling share.

A kernel computes *roots* at symbolic indices. Walking from them through pure maps and movement ends at *leaves*
(values in memory), at *stages* (reductions that need a loop of their own), or at sources. Nothing is emitted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from graphc.ir.access import SINGLE_READ, Index, concat_reads, fold_reads
from graphc.ir.contraction import parse_spec
from graphc.ir.index import ZERO, Data, Derived, Ix, Symbol, Var, linear
from graphc.ir.node import Node
from graphc.ir.opdef import OPS
from graphc.ir.small_matrices import ELIMINATIONS

COMPUTED = frozenset({"constant", "iota"})  # sources that every kernel computes for itself

UNROLLED_REDUCTION = 16  # a reduction over at most so many elements is computed in line, without a loop

REDUCTIONS = frozenset({"reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin"})

# Operators that write into a copy of their first operand, at indices read from memory; each is a kernel by itself.
WRITES_AT_INDEX = frozenset(
    {"index_add", "scatter_add", "index_set", "scatter_set", "scatter_reduce", "segment_reduce"}
)
SCANS = frozenset({"scan_sum", "scan_prod", "scan_max", "scan_min", "recurrence"})
SORTS = frozenset({"argsort", "sort", "argselect", "searchsorted"})
APART = (
    WRITES_AT_INDEX | SCANS | SORTS | ELIMINATIONS
)  # no loop nest computes these: each has kernels of its own, with operands in memory


def summed_labels(node: Node) -> Mapping[str, int]:
    """Extents of the labels that a `contract` node sums over."""
    return _summed(node.text("spec"), node.inputs[0].shape, node.inputs[1].shape)


@lru_cache(maxsize=4096)
def _summed(text: str, x: tuple[int, ...], y: tuple[int, ...]) -> Mapping[str, int]:
    spec = parse_spec(text)
    extents = spec.extents(x, y)
    return MappingProxyType({label: extents[label] for label in spec.summed})


def reduction_extents(node: Node) -> tuple[int, ...]:
    """Extents of what a reduction or contraction loops over."""
    if node.op == "contract":
        return tuple(summed_labels(node).values())
    return tuple(node.inputs[0].shape[a] for a in node.ints("axes"))


def is_reduction(node: Node) -> bool:
    return node.op in REDUCTIONS or node.op == "contract"


def needs_loop(node: Node) -> bool:
    """Whether the node is a reduction too long to unroll in line."""
    return node.op == "contract" or (node.op in REDUCTIONS and math.prod(reduction_extents(node)) > UNROLLED_REDUCTION)


def reduction_reads(node: Node, idx: Index, over: tuple[Ix, ...]) -> list[Index]:
    """Indices at which the operands are read for element `idx` at place `over` of the reduction (order of
    `reduction_extents`).
    """
    if node.op == "contract":
        spec = parse_spec(node.text("spec"))
        place = dict(zip(spec.out, idx, strict=True))
        place.update(zip(summed_labels(node), over, strict=True))
        reads = []
        for dims in (spec.x, spec.y):
            at = []
            for terms in dims:
                (label, coefficient), *others = terms
                total = place[label] * coefficient
                for label, coefficient in others:
                    total = total + place[label] * coefficient
                at.append(total)
            reads.append(tuple(at))
        return reads
    axes, rest = node.ints("axes"), iter(idx)
    inner = dict(zip(axes, over, strict=True))
    return [tuple(inner[d] if d in inner else next(rest) for d in range(node.inputs[0].type.rank))]


def stage_reads(stage: Node, idx: Index) -> list[tuple[Node, Index]]:
    """The operands of a looped reduction for its element `idx`, at a symbolic place of its loop."""
    over = tuple(Ix.of(Var(f"r{i}", max(n - 1, 0))) for i, n in enumerate(reduction_extents(stage)))
    return list(zip(stage.inputs, reduction_reads(stage, idx, over), strict=True))


def base_of(node: Node) -> Node:
    """The value that `node` is a mere reshape of: both have the same elements in the same order."""
    while node.op == "reshape":
        node = node.inputs[0]
    return node


def is_zero(node: Node) -> bool:
    """Whether `node` is the constant whose bits are all zero."""
    return node.op == "constant" and node.attr("value") == 0 and str(node.attr("value")) != "-0.0"


def is_zero_pad(node: Node) -> bool:
    """Whether a `pad` puts zeros there whose bits are all zero."""
    return node.attr("value") == 0 and str(node.attr("value")) != "-0.0"


def places(extents: tuple[int, ...]) -> Iterable[tuple[Ix, ...]]:
    """All index tuples below `extents`, row-major."""
    total = math.prod(extents)
    for number in range(total):
        at = []
        for n in reversed(extents):
            at.append(Ix(number % n))
            number //= n
        yield tuple(reversed(at))


@dataclass
class Demands:
    """Result of a walk. `loads` are (leaf, element index), `stages` (reduction, index); `maps` counts scalar
    operations.

    `other` holds indices whose value is used other than as an address: loops over them are merged where an address
    would allow it.
    """

    loads: dict[tuple[Node, Ix], None] = field(default_factory=dict)
    stages: dict[tuple[Node, Index], None] = field(default_factory=dict)
    indices: dict[Node, dict[Index, None]] = field(default_factory=dict)
    maps: int = 0
    heavy_maps: int = 0
    other: dict[Ix, None] = field(default_factory=dict)

    @property
    def operations(self) -> int:
        """Scalar operations, a heavy one counted as `HEAVY`."""
        return self.maps + (HEAVY - 1) * self.heavy_maps

    def note(self, ix: Ix) -> None:
        """Add `ix`, and what is computed or read from, inside it, to `other`."""
        stack = [ix]
        while stack:
            at = stack.pop()
            if at in self.other:
                continue
            self.other[at] = None
            for symbol, _ in at.terms:
                if isinstance(symbol, Derived):
                    stack.append(symbol.of)
                elif isinstance(symbol, Data):
                    stack.extend(symbol.at)


WIDE_STRIDE = 4  # steps between elements up to which they are picked from whole vectors, not loaded one by one
HEAVY = 8  # operations that an element of a heavy operator counts for


class TooLarge(OverflowError):
    """A walk met more (value, index) pairs than allowed; `found` is what it had met until then."""

    def __init__(self, found: Demands) -> None:
        super().__init__("too many values in one kernel")
        self.found = found


def demands(roots: Iterable[tuple[Node, Index]], inside: frozenset[Node] | set[Node], limit: int = 100_000) -> Demands:
    """Walk from `roots`; nodes not in `inside` are leaves, looped reductions are stages (their operands are not
    walked).

    `limit` bounds the number of (value, index) pairs; past it the walk raises TooLarge.
    """
    found = Demands()
    met = 0
    stack = list(roots)
    while stack:
        node, idx = stack.pop()
        at = found.indices.setdefault(node, {})
        before = len(at)
        at[idx] = None  # hashing an index is most of the work here: once, also to see whether it is new
        if len(at) == before:
            continue
        met += 1
        if met > limit:
            raise TooLarge(found)
        if node.op == "constant":
            continue
        if node.op == "iota":
            found.note(idx[node.integer("axis")])
            continue
        base = base_of(node)
        if base not in inside:
            address = linear(idx, node.shape)
            found.loads[base, address] = None
            for symbol, _ in address.terms:
                if not isinstance(symbol, Var):
                    found.note(Ix.of(symbol))
                    stack.extend(_data_reads(symbol))
            continue
        if needs_loop(node):
            found.stages[node, idx] = None
            continue
        stack.extend(_operands(node, idx, found))
    return found


def _data_reads(symbol: Symbol) -> list[tuple[Node, Index]]:
    return [(s.node, s.at) for s in Ix.of(symbol).symbols() if isinstance(s, Data)]


def _operands(node: Node, idx: Index, found: Demands) -> list[tuple[Node, Index]]:
    """The operand reads of one in-line node at `idx`; notes operations and conditions in `found`."""
    if OPS[node.op].kind == "elementwise":
        found.maps += 1
        found.heavy_maps += OPS[node.op].is_heavy
        return [(operand, idx) for operand in node.inputs]
    if is_reduction(node):
        reads: list[tuple[Node, Index]] = []
        for over in places(reduction_extents(node)):
            found.maps += 1
            reads.extend(zip(node.inputs, reduction_reads(node, idx, over), strict=True))
        return reads
    if node.op in SINGLE_READ:
        places_read = [SINGLE_READ[node.op](node, idx)]
        operands = [node.inputs[0]]
    elif node.op == "fold":
        places_read = fold_reads(node, idx)
        operands = [node.inputs[0]] * len(places_read)
    elif node.op == "concat":
        places_read = concat_reads(node, idx)
        operands = list(node.inputs)
    else:
        assert node.op in ("gather", "take_along"), f"{node.op} has no place in a kernel"
        data, at = indexed_read(node, idx)
        found.maps += 1
        return [(node.inputs[0], data), (node.inputs[1], at)]
    result = []
    for operand, read in zip(operands, places_read, strict=True):
        for condition in read.conditions:
            found.maps += 1
            found.note(condition.index)
        for ix in read.at:
            for symbol, _ in ix.terms:
                if not isinstance(symbol, Var):
                    found.note(Ix.of(symbol))
        result.append((operand, read.at))
    return result


def indexed_read(node: Node, idx: Index) -> tuple[Index, Index]:
    """For `gather` and `take_along`: the index into the data (with a `Data` symbol) and the index into the index
    tensor.
    """
    axis = node.integer("axis")
    data, index = node.inputs
    if node.op == "gather":
        rank = index.type.rank
        at = idx[axis : axis + rank]
        return (*idx[:axis], _place(index, at, data.shape[axis]), *idx[axis + rank :]), at
    return (*idx[:axis], _place(index, idx, data.shape[axis]), *idx[axis + 1 :]), idx


def _place(index: Node, at: Index, extent: int) -> Ix:
    """The place that an index tensor names at `at`; of a single one, whatever it names."""
    return Ix.of(Data(index, at, extent - 1)) if extent > 1 else ZERO
