"""Chains of contractions: sums whose terms are computed from products that are nowhere stored, as in attention.

`softmax(q kᵀ) v` and its gradients are sums over one side of a large matrix, each element of which takes a short
product of two rows that are in memory, and some arithmetic. A kernel computes such a matrix by tiles, and sums it up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphc.ir.access import SINGLE_READ, Index
from graphc.ir.demand import Demands, base_of, demands, reduction_extents, reduction_reads
from graphc.ir.index import ZERO, Derived, Ix, Var, linear
from graphc.ir.narrow import HALVES, is_widening
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import f32

ALIGNED = 8  # elements of 16 bits that are copied at once, from a multiple of as many on
MOST = 256  # elements of a short product, and of a row of what is summed
REDUCTIONS = frozenset({"reduce_sum", "reduce_max", "reduce_min"})


@record
class Matrix:
    """Rows of 16-bit floats in memory: element `address` of `leaf`, neighbours along `along`, a variable."""

    leaf: Node
    address: Ix
    along: Var


@record
class Product:
    """A contraction that is computed by tiles: element `index` of `stage` multiplies a row of `left`, which depends on
    the chain's rows, with one of `right`, which depends on its steps.
    """

    stage: Node
    index: Index
    left: Matrix
    right: Matrix

    @property
    def depth(self) -> int:
        return self.left.along.hi + 1


@record
class Sum:
    """A sum, or extreme, over the chain's steps. Its terms are `term` at `at`; in a contraction, where that is of 16
    bits, times the elements of `right`, the others of whose variables is its steps.
    """

    stage: Node
    index: Index
    term: Node
    at: Index
    right: Matrix | None


@dataclass(frozen=True, eq=False, slots=True)
class Chain:
    """Sums over `steps` for each of `rows`, and in contractions each of `columns`, once for each place of `batch`."""

    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    steps: tuple[Var, ...]
    products: tuple[Product, ...]
    sums: tuple[Sum, ...]

    @property
    def flops(self) -> int:
        """Arithmetic of all products, those that sums are made of among them."""
        widths = [p.depth for p in self.products] + [s.right.along.hi + 1 for s in self.sums if s.right is not None]
        return 2 * sum(widths) * math.prod(v.hi + 1 for v in (*self.batch, *self.rows, *self.steps))


def find_chain(axes: Sequence[Var], roots: Iterable[tuple[Node, Index]], inside: frozenset[Node]) -> Chain | None:
    """The chain that computes `roots`, at indices of `axes`, with what is `inside`; None when it takes more."""
    wanted = demands(roots, inside).stages
    steps: tuple[Var, ...] | None = None
    sums: list[Sum] = []
    walks: list[Demands] = []
    for stage, index in wanted:
        if len({other for node, other in wanted if node is stage}) > 1:
            return None
        extents = reduction_extents(stage)
        long = [n for n in extents if n > 1]
        if steps is None:
            steps = tuple(Var(f"s{number}", n - 1) for number, n in enumerate(long))
        if not long or [v.hi + 1 for v in steps] != long:
            return None
        variables = iter(steps)
        over = tuple(Ix.of(next(variables)) if n > 1 else ZERO for n in extents)
        found = _sum_of(stage, index, over, inside)
        if found is None:
            return None
        sums.append(found[0])
        walks.append(found[1])
    if steps is None:
        return None
    products = _products(walks, steps, inside)
    return None if products is None else _classified(tuple(axes), steps, products, sums, walks)


def _sum_of(stage: Node, index: Index, over: tuple[Ix, ...], inside: frozenset[Node]) -> tuple[Sum, Demands] | None:
    """The sum that `stage` is, and what its terms want."""
    reads = reduction_reads(stage, index, over)
    if stage.op in REDUCTIONS:
        if stage.inputs[0].dtype not in (f32, *HALVES):
            return None
        walk = demands([(stage.inputs[0], reads[0])], inside)
        return (Sum(stage, index, stage.inputs[0], reads[0], None), walk) if walk.stages else None
    if stage.op != "contract":
        return None
    walks = [demands([read], inside) for read in zip(stage.inputs, reads, strict=True)]
    computed = [number for number, walk in enumerate(walks) if walk.stages]
    if len(computed) != 1:
        return None
    (number,) = computed
    right = _matrix(stage.inputs[1 - number], reads[1 - number], inside)
    term = _narrow(stage.inputs[number], reads[number])
    if right is None or term is None or term[0].dtype is not right.leaf.dtype:
        return None
    return Sum(stage, index, *term, right), walks[number]


def _narrow(node: Node, at: Index) -> tuple[Node, Index] | None:
    """The 16-bit value that `node` shows."""
    while node.dtype not in HALVES:
        if node.op in SINGLE_READ and node.op != "pad":
            at = SINGLE_READ[node.op](node, at).at
        elif not is_widening(node):
            return None
        node = node.inputs[0]
    return node, at


def _matrix(node: Node, at: Index, inside: frozenset[Node]) -> Matrix | None:
    """What is in memory, of 16 bits, and read as it is. Along which variable is found out of its address: the one whose
    neighbours are neighbours there.
    """
    while base_of(node) in inside:
        if is_widening(node):
            node = node.inputs[0]
            continue
        if node.op not in SINGLE_READ or node.op == "pad":
            return None
        at, node = SINGLE_READ[node.op](node, at).at, node.inputs[0]
    if node.dtype not in HALVES:
        return None
    address = linear(at, node.shape)
    along = [v for v, coefficient in address.terms if coefficient == 1 and isinstance(v, Var)]
    whole = all(c % ALIGNED == 0 for v, c in address.terms if v not in along) and address.const % ALIGNED == 0
    if len(along) != 1 or not whole:
        return None
    (var,) = along
    extent = var.hi + 1
    return Matrix(base_of(node), address, var) if extent % ALIGNED == 0 and extent <= MOST else None


def _products(walks: Iterable[Demands], steps: tuple[Var, ...], inside: frozenset[Node]) -> list[Product] | None:
    """The products that terms are computed from."""
    found: dict[Node, Product] = {}
    for stage, index in dict.fromkeys(pair for walk in walks for pair in walk.stages):
        known = found.get(stage)
        if known is not None or stage.op != "contract" or len(reduction_extents(stage)) != 1:
            return None
        depth = Var("depth", reduction_extents(stage)[0] - 1)
        reads = reduction_reads(stage, index, (Ix.of(depth),))
        sides = [_matrix(node, at, inside) for node, at in zip(stage.inputs, reads, strict=True)]
        if any(side is None or side.along is not depth for side in sides):
            return None
        first, second = (side for side in sides if side is not None)
        if first.leaf.dtype is not second.leaf.dtype:
            return None
        if any(v in first.address.symbols() for v in steps):
            first, second = second, first
        found[stage] = Product(stage, index, first, second)
    return list(found.values())


def _classified(
    axes: tuple[Var, ...], steps: tuple[Var, ...], products: list[Product], sums: list[Sum], walks: list[Demands]
) -> Chain | None:
    """The chain, if each variable has one part in it."""
    left = {v for p in products for v in p.left.address.symbols()}
    right = {v for p in products for v in p.right.address.symbols()}
    columns = {s.right.along for s in sums if s.right is not None}
    if len(columns) > 1 or (columns and any(s.right is None for s in sums)) or not columns <= {*axes}:
        return None
    rows = tuple(v for v in axes if v in left and v not in right)
    batch = tuple(v for v in axes if v not in rows and v not in columns)
    if not rows or left & {*steps} or any(v in s.right.address.symbols() for s in sums if s.right for v in rows):
        return None
    used = {v for walk in walks for ix in (*(at for _, at in walk.loads), *walk.other) for v in ix.symbols()}
    used |= left | right
    if columns & used:
        return None
    matrices = [m for p in products for m in (p.left, p.right)] + [s.right for s in sums if s.right is not None]
    if not all(_is_affine(m.address, batch) for m in matrices):
        return None
    return Chain(batch, rows, tuple(columns), steps, tuple(products), tuple(sums))


def _is_affine(address: Ix, batch: tuple[Var, ...]) -> bool:
    """Whether all but what depends on the batch alone are variables times numbers."""
    for symbol, _ in address.terms:
        if isinstance(symbol, Var):
            continue
        if not isinstance(symbol, Derived) or any(
            v not in batch and isinstance(v, Var) for v in Ix.of(symbol).symbols()
        ):
            return False
    return True
