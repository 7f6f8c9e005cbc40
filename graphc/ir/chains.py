"""Chains of contractions: sums whose terms are computed from products that are nowhere stored, as in attention.

`softmax(q kᵀ) v` and its gradients are sums over one side of a large matrix, each element of which takes a short
product of two rows that are in memory, and some arithmetic. A kernel computes such a matrix by tiles, and sums it up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from graphc.ir.access import SINGLE_READ, Index
from graphc.ir.demand import Demands, base_of, demands, is_zero, reduction_extents, reduction_reads
from graphc.ir.index import ZERO, Derived, Ix, Var, linear
from graphc.ir.narrow import HALVES, is_widening
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import f32
from graphc.ir.vanishing import Limit, limits_of
from graphc.ir.visit import topological

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
    """A contraction that is computed by tiles: each element of `stage` multiplies a row of `left`, which depends on the
    chain's rows, with one of `right`, which depends on its steps.
    """

    stage: Node
    left: Matrix
    right: Matrix

    @property
    def depth(self) -> int:
        return self.left.along.hi + 1


@record
class Sum:
    """A sum, or extreme, over the chain's steps. Its terms are `term` at `at`; in a contraction, where that is of 16
    bits, times the elements of `right`, the others of whose variables is its steps. `shift`: terms are multiples of
    powers `exp(x - shift)`, which depends on the largest x (its index is that of the element).
    """

    stage: Node
    index: Index
    term: Node
    at: Index
    right: Matrix | None
    shift: tuple[Node, Index] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Chain:
    """Sums over `steps` for each of `rows`, and in contractions of their own columns, once for each place of `batch`.

    `top` is the maximum that powers are relative to, if it is found in the same walk along the steps: sums of powers
    are then made smaller whenever there is a larger x (M. Milakov and N. Gimelshein, "Online normalizer calculation for
    softmax", 2018). Past one of the `limits` no sum has anything.
    """

    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    steps: tuple[Var, ...]
    products: tuple[Product, ...]
    sums: tuple[Sum, ...]
    top: Node | None
    limits: tuple[Limit, ...] = ()

    @property
    def flops(self) -> int:
        """Arithmetic of all products, those that sums are made of among them, for the steps that count."""
        widths = [p.depth for p in self.products] + [s.right.along.hi + 1 for s in self.sums if s.right is not None]
        rows, steps = (math.prod(v.hi + 1 for v in side) for side in (self.rows, self.steps))
        counted = rows * steps
        if self.limits:
            most = [limit.offset for limit in self.limits if limit.side > 0]
            least = [limit.offset for limit in self.limits if limit.side < 0]
            counted = sum(
                max(0, min([steps, *(row + n + 1 for n in most)]) - max([0, *(row - n for n in least)]))
                for row in range(rows)
            )
        return 2 * sum(widths) * math.prod(v.hi + 1 for v in self.batch) * counted


def find_chain(axes: Sequence[Var], roots: Iterable[tuple[Node, Index]], inside: frozenset[Node]) -> Chain | None:
    """The chain that computes `roots`, at indices of `axes` and of variables of their own, with what is `inside`; None
    when it takes more.
    """
    todo = list(demands(roots, inside).stages)
    steps: tuple[Var, ...] | None = None
    sums: dict[Node, Sum] = {}
    walks: list[Demands] = []
    products: dict[tuple[Node, Index], None] = {}
    earlier: set[Node] = set()
    while todo:
        stage, index = todo.pop(0)
        if stage in sums:
            if sums[stage].index != index:
                return None
            continue
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
        sums[stage], walk = found
        walks.append(walk)
        for other, at in walk.stages:
            if other.op in REDUCTIONS:
                if any(step in ix.symbols() for ix in at for step in steps):
                    return None  # it is not one of the row
                earlier.add(other)
                todo.append((other, at))
            else:
                products[other, at] = None
    if steps is None or len(earlier) > 1:
        return None
    top = next(iter(earlier), None)
    if top is not None:
        walked = dict(zip(sums, walks, strict=True))
        shifted = {s: _shifted(one, walked[s], top) for s, one in sums.items()}
        if any(one is None for one in shifted.values()):
            return None
        sums = {s: one for s, one in shifted.items() if one is not None}
    made = _products(products, steps, inside)
    return None if made is None else _classified(tuple(axes), steps, made, list(sums.values()), walks, top)


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


def _products(
    wanted: Iterable[tuple[Node, Index]], steps: tuple[Var, ...], inside: frozenset[Node]
) -> list[Product] | None:
    """The products that terms are computed from."""
    found: dict[Node, Product] = {}
    for stage, index in wanted:
        if stage in found or stage.op != "contract" or len(reduction_extents(stage)) != 1:
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
        found[stage] = Product(stage, first, second)
    return list(found.values())


def _classified(
    axes: tuple[Var, ...],
    steps: tuple[Var, ...],
    products: list[Product],
    sums: list[Sum],
    walks: list[Demands],
    top: Node | None,
) -> Chain | None:
    """The chain, if each variable has one part in it."""
    left = {v for p in products for v in p.left.address.symbols()}
    right = {v for p in products for v in p.right.address.symbols()}
    rights = [s.right for s in sums if s.right is not None]
    columns = {matrix.along for matrix in rights}
    if len(rights) < len(sums) and not columns.isdisjoint(axes):
        return None
    rows = tuple(v for v in axes if v in left and v not in right)
    batch = tuple(v for v in axes if v not in rows and v not in columns)
    if not products or not rows or left & {*steps} or any(v in m.address.symbols() for m in rights for v in rows):
        return None
    used = {v for walk in walks for ix in (*(at for _, at in walk.loads), *walk.other) for v in ix.symbols()}
    if columns & (used | left | right) or any(len(columns & {*m.address.symbols()}) > 1 for m in rights):
        return None
    if not all(_is_affine(m.address, batch) for m in (*rights, *(m for p in products for m in (p.left, p.right)))):
        return None
    limits: frozenset[Limit] = frozenset()
    if len(rows) == len(steps) == 1:
        found = (
            limits_of(one.term, walk, rows[0], steps[0], one.stage.op == "reduce_max")
            for one, walk in zip(sums, walks, strict=True)
        )
        limits = frozenset.intersection(*found) if all(s.stage.op != "reduce_min" for s in sums) else limits
    ordered = sorted(limits, key=lambda limit: (limit.side, limit.offset))
    return Chain(batch, rows, steps, tuple(products), tuple(sums), top, tuple(ordered))


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


# powers relative to the largest


def _shifted(one: Sum, walk: Demands, top: Node) -> Sum | None:
    """`one`, with what its powers are relative to; None when it depends on `top` in another way."""
    if one.stage is top or all(stage is not top for stage, _ in walk.stages):
        return one
    if one.stage.op not in ("contract", "reduce_sum") or not _is_multiple(
        one.term, top, [stage for stage, _ in walk.stages]
    ):
        return None
    powers = [(n, at) for n, ats in walk.indices.items() for at in ats if _is_power(n, top)]
    if len(powers) != 1:
        return None
    ((power, at),) = powers
    return replace(one, shift=(power.inputs[0].inputs[1], at))


def _is_power(node: Node, top: Node) -> bool:
    """Whether the node is exp(x - shift), with the largest x along rows for a shift, or a number if that is more."""
    if node.op != "exp" or node.inputs[0].op != "sub":
        return False
    x, shift = node.inputs[0].inputs
    if x is not top.inputs[0]:
        return False
    shift = _shown(shift)
    return shift is top or _but_for_least(shift) is top


def is_bounded(shift: Node) -> bool:
    """Whether what powers are relative to is at least some number."""
    return _shown(shift).op == "maximum"


def _but_for_least(shift: Node) -> Node | None:
    """What `shift` is but for a least value; None when it is no such maximum."""
    others = [x for x in shift.inputs if _shown(x).op != "constant"]
    return others[0] if shift.op == "maximum" and len(others) == 1 else None


def _is_multiple(term: Node, top: Node, products: Iterable[Node]) -> bool:
    """Whether `term` is a multiple of one power that is relative to `top`, by what does not depend on it."""
    walked = {*products}
    known: dict[Node, bool | None] = {}  # whether it is a multiple; None: it does not depend on the maximum
    for node in topological((term,), stop=lambda node: node is top or node in walked):
        found = [] if node in walked or node is top else [known[i] for i in node.inputs]
        if node is top:
            known[node] = False
        elif all(kind is None for kind in found):
            known[node] = None
        elif _is_power(node, top):
            known[node] = True
        elif node.op in SINGLE_READ or node.op in ("cast", "neg"):
            known[node] = found[0] and (node.op != "pad")
        elif node.op == "mul":
            known[node] = found in ([True, None], [None, True])
        elif node.op == "div":
            known[node] = found == [True, None]
        elif node.op == "select":
            rest = [f for f, x in zip(found[1:], node.inputs[1:], strict=True) if not is_zero(_shown(x))]
            known[node] = found[0] is None and rest == [True] * len(rest)
        else:
            known[node] = False
    return known[term] is True


def _shown(node: Node) -> Node:
    """What `node` is a mere broadcast of."""
    while node.op in ("reshape", "broadcast"):
        node = node.inputs[0]
    return node
