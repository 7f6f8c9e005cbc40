"""Filling the panels of a contraction's block: each thread reads some elements of an operand and puts them into shared
memory, where one step of the sum lies after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from graphc.codegen.gpu_contraction_problem import Flat, Guarded, Operand, Points, Problem, moved
from graphc.codegen.kernel import AsyncCopy, Lines, Param, Value, VType
from graphc.codegen.math import expand_cast
from graphc.codegen.target import WIDE
from graphc.codegen.values import Values
from graphc.ir.access import Within
from graphc.ir.demand import reduction_reads
from graphc.ir.index import Derived, Ix, Var, derived
from graphc.ir.record import record
from graphc.ir.types import DType, f32, i32, i64

FEW = 4  # elements: loads that far apart still share lines
FAR = 16  # elements: those that far apart do not
LINE = 64  # elements of 16 bits in a line of a panel for products of lines
PIECE = 8  # those that stay side by side there


@record
class Place:
    """Where one thread's `count` neighbours lie in a panel: at which element of its side, at which step. `along` the
    steps or the side. Threads where `mask` does not hold have none.
    """

    element: Ix
    step: Ix
    count: int
    mask: Value | None


@record
class Sums:
    """A place in the sum: `outer` gives the slow loops, `inner` is the flat place on the fast ones. `is_short` where it
    may lie before the first one, for which zeros stand.
    """

    outer: Points
    inner: Ix
    is_short: bool


class Panel:
    """The panel of one operand: `depth` steps of `width` elements for each of its points. `side` is the flat axis of
    its elements, `sums` that of the fast loops of the sum.

    The elements of a step lie side by side, one step after the other; in one that `is_matrix`, for the instructions
    that multiply matrices, what lies side by side in memory; in one that `has_lines` as `kernel.Lines` says. One that
    `is_guarded` is only copied to. With `pieces` an element of f32 is the sum of so many of the panel's, which lie like
    points.
    """

    def __init__(
        self,
        problem: Problem,
        operand: Operand,
        values: Values,
        side: Flat,
        sums: Flat,
        depth: int,
        width: int,
        pad: int,
        dtype: DType,
        is_matrix: bool,
        has_lines: bool = False,
        is_guarded: bool = False,
        pieces: int = 1,
    ) -> None:
        self.problem = problem
        self.operand = operand
        self.values = values
        self.side = side
        self.sums = sums
        self.depth = depth
        self.width = width
        self.dtype = dtype
        self.is_matrix = is_matrix
        self.has_lines = has_lines
        self.is_guarded = is_guarded
        self.pieces = pieces
        self.numbers = pieces if pieces > 1 else len(operand.points)
        self.count, self.is_along_sums = self._direction(pad)
        self.is_turned = is_matrix and self.is_along_sums  # the steps of an element lie side by side
        self.pitch = (depth if self.is_turned else width * self.numbers) + self._apart()
        self._permuted: dict[tuple[Value, Value], Var] = {}
        self.places = list(self._places())

    @property
    def size(self) -> int:
        return (self.width * self.numbers if self.is_turned else self.depth) * self.pitch

    def at(self, element: Ix, step: Ix, number: int = 0) -> Ix:
        """Where an element of point, or piece, `number` lies in the panel."""
        if self.has_lines:
            return self._in_lines(element, step)
        element += number * self.width
        return element * self.pitch + step if self.is_turned else step * self.pitch + element

    def _in_lines(self, element: Ix, step: Ix) -> Ix:
        """Where an element lies in lines whose pieces are permuted."""
        if self.is_turned:
            line, place = element, step
        else:
            line, place = derived("floordiv", element, LINE) * self.depth + step, derived("mod", element, LINE)
        pieces = LINE // PIECE
        low = Ix(line.const % pieces, tuple((s, c) for s, c in line.terms if c % pieces))
        which = self.values.index(derived("floordiv", place, PIECE)), self.values.index(derived("mod", low, pieces))
        if which not in self._permuted:
            lanes = self.values.lane_count
            piece, by = (self.values.e.splat(value, lanes) for value in which)
            self._permuted[which] = self._variable("piece", self.values.e.op("xor", piece, by), pieces - 1)
        return line * LINE + Ix.of(self._permuted[which], PIECE) + derived("mod", place, PIECE)

    def lines(self, memory: Param, element: Ix) -> Lines:
        """The lines in `memory` that begin at an element that is a multiple of `LINE`."""
        at = element * LINE if self.is_turned else derived("floordiv", element, LINE) * (LINE * self.depth)
        index, _, offsets = self.values.address(at)
        if offsets is None:
            offsets = self.values.e.const(0, VType(i64, self.values.lane_count))
        return Lines(memory, index, offsets, self.is_turned)

    def _apart(self) -> int:
        """Elements between the lines of the panel, so that what is accessed together lies in different banks."""
        if self.has_lines:
            return 0
        aligned = WIDE // self.dtype.itemsize
        if not self.is_matrix:
            return aligned if self.is_along_sums and self.width * self.numbers >= 8 else 0
        # The threads of a warp read single elements: eight of each of four steps.
        return 8 if self.dtype.itemsize == 4 and not self.is_turned else aligned

    def _direction(self, pad: int) -> tuple[int, bool]:
        """How many neighbours a thread loads at once, and whether they are steps of the sum rather than elements."""
        count, is_along_sums = neighbours(
            self.operand, self.side, self.sums, self.depth, self.width, pad, self.is_guarded
        )
        threads = self.values.lane_count
        while count > 1 and self.width * self.depth // count < threads:
            count //= 2  # so that each thread has something to do
        return count, is_along_sums

    def _places(self) -> Iterator[Place]:
        """What one thread copies: threads next to each other take what is next to each other in memory."""
        threads, e = self.values.lane_count, self.values.e
        lane = e.lanes(i64, threads)
        fast, slow = (self.depth, self.width) if self.is_along_sums else (self.width, self.depth)
        groups = fast // self.count

        def place(quick: Ix, far: Ix, mask: Value | None) -> Place:
            step, element = (quick, far) if self.is_along_sums else (far, quick)
            return Place(element, step, self.count, mask)

        if groups >= threads:
            mine = self._variable("x", lane, threads - 1)
            for k in range(slow):
                for i in range(groups // threads):
                    yield place((Ix.of(mine) + i * threads) * self.count, Ix(k), None)
            return
        rows = threads // groups
        mine = self._variable("x", e.op("urem", lane, groups), groups - 1)
        row = e.op("udiv", lane, groups)
        mask = None
        if rows > slow:
            mask = e.op("lt", row, slow)
            row = e.op("urem", row, slow)
        far = self._variable("y", row, min(rows, slow) - 1)
        for k in range(0, slow, rows):
            yield place(Ix.of(mine) * self.count, (Ix.of(far) if min(rows, slow) > 1 else Ix()) + k, mask)

    def _variable(self, name: str, value: Value, hi: int) -> Var:
        var = Var(name, hi)
        self.values.env[var] = value
        return var

    # reading

    def fetch(self, first: Ix, batch: Points, sums: Sums) -> list[Value]:
        """The elements that a thread copies of the panel whose elements begin at `first` of the side, whose steps at
        `sums`.
        """
        e = self.values.e
        fetched: list[Value] = []
        for number in range(len(self.operand.points)):
            for place in self.places:
                fetched += self._elements(number, first + place.element, batch, sums, place)
        dtype = self.dtype if self.pieces == 1 else f32
        return [e.splat(expand_cast(e, value, dtype), self.values.lane_count) for value in fetched]

    def _indices(self, element: Ix, sums: Sums, place: Place) -> tuple[Ix, Ix, Ix]:
        """For the neighbours that begin at `element` of the side and `place` of the sum: an index along the side and
        one along the sum that exist, and the second as it would be.
        """
        inner = sums.inner + place.step
        along = self.is_along_sums
        side = within(element, self.side.length, 1 if along else self.count)
        if not sums.is_short or inner.lo >= 0:
            return side, inner, inner
        if not inner.terms:
            return side, Ix(), inner
        e = self.values.e
        step = self._variable("k", e.op("maximum", self.values.index(inner), 0), max(inner.hi, 0))
        return side, Ix.of(step), inner

    def _elements(self, number: int, element: Ix, batch: Points, sums: Sums, place: Place) -> Iterator[Value]:
        side, step, inner = self._indices(element, sums, place)
        for j in range(self.count):
            more = (0, j) if self.is_along_sums else (j, 0)
            value = self._value(number, side, step, more, batch, sums.outer)
            yield self._or_zero(value, inner) if sums.is_short else value

    def _or_zero(self, value: Value, inner: Ix) -> Value:
        """`value`, or zero where `inner` lies before the first step."""
        e = self.values.e
        if inner.lo >= 0:
            return value
        zero = e.const(0.0 if value.type.dtype.is_float else 0, value.type)
        if inner.hi < 0:
            return zero
        exists = e.op("ge", self.values.index(inner), 0)
        lanes = max(exists.type.lanes, value.type.lanes)
        return e.op("select", e.splat(exists, lanes), e.splat(value, lanes), e.splat(zero, lanes))

    def _value(self, number: int, side: Ix, step: Ix, more: tuple[int, int], batch: Points, outer: Points) -> Value:
        plain = self.operand.plain
        if plain is not None:
            load = plain[number]
            return self.values.element(load.leaf, self.address(load.address, side, step, more, batch, outer))
        points = {**batch, **outer, **self.side.points(side, more[0]), **self.sums.points(step, more[1])}
        stage, site = self.problem.stage, self.problem.site
        at = tuple(moved(ix, points) for ix in site.points[self.operand.points[number]])
        over = tuple(points.get(v, Ix()) for v in site.loops)
        return self.values.at(self.operand.node, reduction_reads(stage, at, over)[self.operand.number])

    def address(self, address: Ix, side: Ix, step: Ix, more: tuple[int, int], batch: Points, outer: Points) -> Ix:
        """An affine address of the operand at a place of the side and one of the sum, `more` further."""
        known = {**batch, **outer}
        rest = Ix(address.const)
        for symbol, coefficient in address.terms:
            if isinstance(symbol, Derived):  # of the batch
                rest += moved(Ix.of(symbol), known) * coefficient
            elif symbol in known:
                rest += known[symbol] * coefficient  # type: ignore[index]
        return rest + self.side.address(address, side, more[0]) + self.sums.address(address, step, more[1])

    # writing

    def put(self, memory: Param, fetched: list[Value]) -> None:
        """Store what `fetch` gave into the panel in `memory`."""
        if self.pieces > 1:
            cut = [self._cut(value) for value in fetched]
            fetched = [pieces[number] for number in range(self.pieces) for pieces in cut]
        values = iter(fetched)
        for number in range(self.numbers):
            for place in self.places:
                for j in range(self.count):
                    element = place.element if self.is_along_sums else place.element + j
                    step = place.step + j if self.is_along_sums else place.step
                    index, stride, offsets = self.values.address(self.at(element, step, number))
                    self.values.e.store(memory, index, next(values), stride, offsets, place.mask)

    def _cut(self, value: Value) -> list[Value]:
        """Numbers of 16 bits that add up to `value`: the highest eight bits, the next eight, the rest. What is not
        finite is the first of them.
        """
        e = self.values.e
        finite = e.op("lt", e.op("abs", value), math.inf)
        pieces: list[Value] = []
        for number in range(self.pieces):
            last = number == self.pieces - 1
            high = value if last else e.op("bitcast", e.op("and", e.op("bitcast", value, to=i32), -1 << 16), to=f32)
            rest = None if last else e.op("sub", value, high)
            if number == 0:
                high = e.op("select", finite, high, value)
                rest = None if rest is None else e.op("select", finite, rest, 0.0)
            pieces.append(expand_cast(e, high, self.dtype))
            value = value if rest is None else rest
        return pieces

    # copying without registers

    @property
    def can_copy(self) -> bool:
        """Whether the panel can be filled by asynchronous copies: 16 bytes that lie and stay side by side."""
        loads = self._loads()
        side_by_side = self.is_along_sums == self.is_turned
        return (
            loads is not None
            and self.pieces == 1
            and all(load.leaf.dtype is self.dtype for load in loads)
            and self.count * self.dtype.itemsize == WIDE
            and side_by_side
            and all(place.mask is None for place in self.places)
        )

    def _loads(self) -> tuple[Guarded, ...] | None:
        """The loads that copies stand for; None where it takes more."""
        return self.operand.guarded if self.is_guarded else self.operand.plain

    def _holds(self, conditions: Sequence[Within], points: Points, side: Ix, step: Ix) -> list[Value]:
        """The conditions at a place of the side and one of the sum that are not certain, as values."""
        if not conditions:
            return []
        e, known = self.values.e, {**points, **self.side.points(side), **self.sums.points(step)}
        found: list[Value] = []
        for condition in conditions:
            at = moved(condition.index, known)
            if at.lo < 0:
                found.append(e.op("ge", self.values.index(at), 0))
            if at.hi >= condition.extent:
                found.append(e.op("lt", self.values.index(at), condition.extent))
        return found

    def copy(self, memory: Param, first: Ix, batch: Points, sums: Sums) -> None:
        """Begin to copy the panel whose elements begin at `first` of the side, whose steps at `sums`, to `memory`."""
        e = self.values.e
        loads = self._loads()
        assert loads is not None
        for number, load in enumerate(loads):
            for place in self.places:
                side, step, inner = self._indices(first + place.element, sums, place)
                source = self.address(load.address, side, step, (0, 0), batch, sums.outer)
                at, _, offsets = self.values.address(self.at(place.element, place.step, number))
                source_at, _, source_offsets = self.values.address(source)
                assert offsets is not None and source_offsets is not None
                exists = self._holds(load.conditions, {**batch, **sums.outer}, side, step)
                if sums.is_short and inner.lo < 0:
                    exists.append(e.op("ge", self.values.index(inner), 0))
                mask = None
                for condition in exists:
                    each = e.splat(condition, self.values.lane_count)
                    mask = each if mask is None else e.op("and", mask, each)
                buffer = self.values.buffers[load.leaf]
                e.copy(AsyncCopy(memory, at, offsets, buffer, source_at, source_offsets, self.count, mask))


def neighbours(
    operand: Operand, side: Flat, sums: Flat, depth: int, width: int, pad: int, is_guarded: bool = False
) -> tuple[int, bool]:
    """How many elements of a panel of `depth` steps of `width` elements lie side by side in memory, up to 16 bytes,
    and whether these are steps of the sum rather than elements. There are `pad` zeros before the first step. With
    `is_guarded`, conditions do not matter if neighbours share them.
    """
    step = operand.step(side.variables[-1]) if side.variables else 0
    along = operand.step(sums.variables[-1]) if sums.variables else 0
    nearer = 0 < along <= FAR and (step == 0 or step > FEW * along)
    is_along_sums = nearer and width * depth >= WIDE
    loads = operand.guarded if is_guarded else operand.plain
    if loads is None:
        return 1, is_along_sums
    count = WIDE // loads[0].leaf.dtype.itemsize
    mine, other = (sums, side) if is_along_sums else (side, sums)
    while count > 1:
        if all(_is_aligned(load, mine, other, count) for load in loads) and not (
            (is_along_sums and (pad % count or count > depth)) or (not is_along_sums and count > width)
        ):
            break
        count //= 2
    return count, is_along_sums


def _is_aligned(load: Guarded, mine: Flat, other: Flat, count: int) -> bool:
    """Whether `count` neighbours along `mine` are neighbours in memory, the first at a multiple of `count`, and have
    the same conditions.
    """
    address = load.address
    steps = mine.steps(address)
    if not steps or steps[-1] != 1 or mine.together(address) % count:
        return False
    if load.conditions and (
        mine.together() % count or any(c.index.coefficient(mine.variables[-1]) for c in load.conditions)
    ):
        return False
    flat = {*mine.variables, *other.variables}
    rest = [c for s, c in address.terms if s not in flat]
    return not any(step % count for step in (*steps[:-1], *other.steps(address), *rest, address.const))


def within(at: Ix, length: int, count: int) -> Ix:
    """`at` moved back where `count` neighbours from there on would leave an axis of `length`: those are not used."""
    return derived("clamp", at, length - count)
