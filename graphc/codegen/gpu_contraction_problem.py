"""What a kernel of blocks of threads must know about a contraction: a matrix product of tiles.

The axes of the domain fall into those that only the first matrix has (rows), those that only the second one has
(columns), and those of both or none (batch); the loops of the sum are the third side. Each side counts as one flat
axis.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.sites import Nest, Site
from graphc.ir.access import SINGLE_READ, Index, Within
from graphc.ir.demand import base_of, demands, is_zero_pad, reduction_reads
from graphc.ir.index import Data, Derived, Ix, Var, derived, linear
from graphc.ir.narrow import factor_dtype, is_widening, narrow_dtype
from graphc.ir.node import Node
from graphc.ir.record import record
from graphc.ir.types import DType, bf16, f16, f32

Points = dict[Var, Ix]
PIECES = {bf16: 1, f16: 2, f32: 3}  # of 8 bits of mantissa each: of 8, 11 and 24


@record
class Guarded:
    """Element `address` of `leaf` where all `conditions` hold, else zero."""

    leaf: Node
    address: Ix
    conditions: tuple[Within, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Operand:
    """One matrix: operand number `number` of the contraction, read at `points` many places for each of the domain.

    `guarded` are the places when each is one load, perhaps of 16 bits that are converted to f32, with an address that
    is affine but for the batch; zeros where a condition does not hold. `addresses` are those of all loads.
    """

    number: int
    node: Node
    points: tuple[int, ...]  # which points of the contraction have a place of their own
    guarded: tuple[Guarded, ...] | None
    addresses: tuple[Ix, ...]

    @property
    def plain(self) -> tuple[Guarded, ...] | None:
        """The loads where none has a condition."""
        return None if self.guarded is None or any(load.conditions for load in self.guarded) else self.guarded

    def step(self, var: Var) -> int:
        """How far apart in memory neighbours along `var` lie, in the load where they are farthest; 0: at one place."""
        return max((abs(a.coefficient(var)) for a in self.addresses), default=0)


@dataclass(frozen=True, eq=False, slots=True)
class Problem:
    """The matrix product of a nest: `left` has the rows, `right` the columns. The last axis of each side is its
    fastest.
    """

    nest: Nest
    site: Site
    stage: Node
    left: Operand
    right: Operand
    batch: tuple[Var, ...]
    rows: tuple[Var, ...]
    columns: tuple[Var, ...]
    sums: tuple[Var, ...]

    @property
    def dtype(self) -> DType:
        """That of the factors: f32 that 16 bits hold counts as those."""
        return factor_dtype(self.stage)

    @property
    def pieces(self) -> tuple[int, int] | None:
        """How many numbers of bf16 add up to an element of either operand where dtypes differ and one has 16 bits;
        else None. Exactly, but for bits below 2**-133, the least that bf16 has.
        """
        dtypes = [narrow_dtype(self.stage.inputs[operand.number]) for operand in (self.left, self.right)]
        if self.dtype is not f32 or not set(dtypes) <= PIECES.keys() or dtypes == [f32, f32]:
            return None
        return PIECES[dtypes[0]], PIECES[dtypes[1]]

    @property
    def flops(self) -> int:
        """Arithmetic of the whole nest. What operands that are one load are moved and converted with is none."""
        every = self.nest.operations
        if self.left.guarded is None or self.right.guarded is None:
            return every
        rounds = size(self.site.loops) * self.nest.points
        return every - rounds * (self.site.operations - 2 * self.points)

    @property
    def points(self) -> int:
        """Elements of the contraction that one place of the domain wants."""
        return len(self.right.points)


def size(variables: Sequence[Var]) -> int:
    return math.prod(v.hi + 1 for v in variables)


def find_problem(nest: Nest) -> Problem | None:
    """The matrix product in `nest`; None when that also has other loops, or both matrices move with the points."""
    stages = [s for s in nest.sites if s.stage is not None]
    if len(stages) != 1 or any(s.loops or s.is_kept for s in nest.sites if s.root is not None):
        return None
    (site,) = stages
    stage = site.stage
    if stage is None or stage.op != "contract" or 0 in (size(site.loops), nest.points):
        return None
    walked = [_operand(number, nest, site) for number in (0, 1)]
    if any(w is None for w in walked):
        return None
    (first, first_axes), (second, second_axes) = (w for w in walked if w is not None)
    if len(first.points) > 1 and len(second.points) > 1:
        return None
    batch = tuple(v for v in nest.axes if (v in first_axes) == (v in second_axes))
    first, second = _in_batch(first, batch), _in_batch(second, batch)
    only_first = tuple(v for v in nest.axes if v in first_axes and v not in second_axes)
    only_second = tuple(v for v in nest.axes if v in second_axes and v not in first_axes)
    loops = tuple(v for v in site.loops if v.hi) or site.loops[:1]
    sums = tuple(sorted(loops, key=lambda v: -(first.step(v) + second.step(v))))
    swap = len(first.points) > 1 or (len(second.points) == 1 and _is_stored_along(nest, only_first, only_second))
    if swap:
        return Problem(nest, site, stage, second, first, batch, only_second, only_first, sums)
    return Problem(nest, site, stage, first, second, batch, only_first, only_second, sums)


def _operand(number: int, nest: Nest, site: Site) -> tuple[Operand, frozenset[Var]] | None:
    stage = site.stage
    assert stage is not None
    node = stage.inputs[number]
    over = tuple(map(Ix.of, site.loops))
    reads: dict[Index, int] = {}
    for p, at in enumerate(site.points):
        reads.setdefault(reduction_reads(stage, at, over)[number], p)
    if len(reads) not in (1, len(site.points)):
        return None
    guarded: list[Guarded] | None = []
    addresses: dict[Ix, None] = {}
    used: dict[Var, None] = {}
    for read in reads:
        found = demands([(node, read)], nest.inside)
        if found.stages:
            return None
        addresses.update(dict.fromkeys(ix for _, ix in found.loads))
        for ix in (*addresses, *found.other):
            used.update(dict.fromkeys(s for s in ix.symbols() if isinstance(s, Var)))
        if guarded is not None:
            load = _guarded(node, read, nest.inside)
            guarded = None if load is None else [*guarded, load]
    axes = frozenset(v for v in nest.axes if v in used)
    points = tuple(reads.values())
    return Operand(number, node, points, None if guarded is None else tuple(guarded), tuple(addresses)), axes


def _guarded(node: Node, at: Index, inside: Container[Node]) -> Guarded | None:
    """The one load that gives `node` at `at`, or zero; None when it takes more than that."""
    conditions: list[Within] = []
    while base_of(node) in inside:
        if is_widening(node):
            node = node.inputs[0]
            continue
        if node.op not in SINGLE_READ or (node.op == "pad" and not is_zero_pad(node)):
            return None
        read = SINGLE_READ[node.op](node, at)
        for condition in read.conditions:
            if not isinstance(condition, Within) or not _is_affine(condition.index):
                return None
            conditions.append(condition)
        node, at = node.inputs[0], read.at
    return Guarded(base_of(node), linear(at, node.shape), tuple(conditions))


def _is_affine(ix: Ix) -> bool:
    return all(isinstance(symbol, Var) for symbol, _ in ix.terms)


def _in_batch(operand: Operand, batch: Sequence[Var]) -> Operand:
    """`operand`, whose loads are affine but for what depends on the batch alone; else they are taken one by one."""
    for load in operand.guarded or ():
        others = [symbol for symbol, _ in load.address.terms if not isinstance(symbol, Var)]
        inner = {s for symbol in others for s in Ix.of(symbol).symbols()}
        if any(not isinstance(s, (Var, Derived)) or (isinstance(s, Var) and s not in batch) for s in inner):
            return replace(operand, guarded=None)
    return operand


def _is_stored_along(nest: Nest, wanted: Sequence[Var], others: Sequence[Var]) -> bool:
    """Whether neighbours along the axes `wanted` lie closer together where the roots are stored than along `others`."""
    stores = [a.address for s in nest.sites for a in s.accesses if a.is_store]

    def closest(axes: Sequence[Var]) -> float:
        steps = [abs(ix.coefficient(v)) for ix in stores for v in axes]
        return min((s for s in steps if s), default=math.inf)

    return closest(wanted) < closest(others)


def moved(ix: Ix, points: Points) -> Ix:
    """`ix` with each variable in `points` replaced by an index."""
    result = Ix(ix.const)
    for symbol, coefficient in ix.terms:
        if isinstance(symbol, Var):
            part = points.get(symbol, None) or Ix.of(symbol)
        elif isinstance(symbol, Derived):
            part = derived(symbol.op, moved(symbol.of, points), symbol.number)
        else:
            part = Ix.of(Data(symbol.node, tuple(moved(at, points) for at in symbol.at), symbol.hi))
        result = result + part * coefficient
    return result


@record
class Flat:
    """Several variables as one flat axis, the last one fastest; `length` is the extent of the whole axis."""

    variables: tuple[Var, ...]

    @property
    def length(self) -> int:
        return size(self.variables)

    def together(self, address: Ix | None = None) -> int:
        """Up to how many neighbours on the flat axis are neighbours on the last variable, from a multiple on; in
        `address` on what steps through memory like one variable.
        """
        return self._runs(address)[-1][0] if self.variables else 1

    def points(self, at: Ix, more: int = 0) -> Points:
        """Each variable's index at place `at + more` of the flat axis; `more` stays on the last variable."""
        result: Points = {}
        rest = at
        for position, var in enumerate(self.variables):
            inner = size(self.variables[position + 1 :])
            result[var] = derived("floordiv", rest, inner) if inner > 1 else rest
            rest = derived("mod", rest, inner) if inner > 1 else rest
        if self.variables and more:
            result[self.variables[-1]] += more
        return result

    def address(self, address: Ix, at: Ix, more: int = 0) -> Ix:
        """What the variables add to an affine `address` at place `at + more`, `more` staying on the last run."""
        result = Ix()
        rest = at
        runs = self._runs(address)
        for position, (_, step) in enumerate(runs):
            inner = math.prod(extent for extent, _ in runs[position + 1 :])
            result += (derived("floordiv", rest, inner) if inner > 1 else rest) * step
            rest = derived("mod", rest, inner) if inner > 1 else rest
        return result + more * runs[-1][1] if runs else result

    def steps(self, address: Ix) -> list[int]:
        """The distances in memory of neighbours along each run of variables that `address` treats as one."""
        return [step for _, step in self._runs(address)]

    def _runs(self, address: Ix | None) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for var in self.variables:
            extent = var.hi + 1
            step = 0 if address is None else address.coefficient(var)
            if runs and address is not None and runs[-1][1] == step * extent:
                runs[-1] = runs[-1][0] * extent, step
            else:
                runs.append((extent, step))
        return runs
