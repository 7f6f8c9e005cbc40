"""Results of which parts of many rows are stored in turns are put together in memory of the kernel's own, and copied
from there past the caches: an image of 56 by 56 elements is whole lines where its rows are not. Rows that are stored
one after the other the machine foresees: there a copy would bring nothing.

What one index of the kernel's range stores must be a few stretches of whole lines, each element of which is stored.
That is found out by going through the loops as the kernel does, with numbers for all that does not depend on the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.factors import Factors
from graphc.codegen.kernel import (
    INDEX,
    Affine,
    For,
    If,
    Kernel,
    Load,
    Op,
    Param,
    Prefetch,
    Stmt,
    Store,
    Value,
    VType,
    statements,
)
from graphc.codegen.prefetch import STREAMED
from graphc.codegen.target import LINE, Target
from graphc.ir.record import record

LONGEST = 1 << 15  # bytes that are put together: more would push what the kernel reads out of the nearest caches
STRETCHES = 4  # at most
ROWS = 2  # rows that are stored in turns without being in each other's way
EVENTS = 1 << 13  # stores that one index does, at most
AHEAD = 1 << 13  # bytes: how far ahead of what is read lines are asked for, as stores past the caches leave time for it
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": int.__add__,
    "sub": int.__sub__,
    "mul": int.__mul__,
    "minimum": min,
    "maximum": max,
    "floordiv": int.__floordiv__,
    "mod": int.__mod__,
}
_Terms = tuple[tuple[Value, int], ...]


@record
class _Stretch:
    """Elements from `start` to before `stop`, which lie from `place` on in the kernel's own memory."""

    start: int
    stop: int
    place: int


def staged(kernel: Kernel, buffer: Param, target: Target) -> Kernel | None:
    """The kernel with what it stores to `buffer`, which it does not read and which begins at a cache line, put together
    and then copied: for each index of its range, or in each round of a loop. None where that is not possible.
    """
    size = buffer.dtype.itemsize
    bodies = _bodies(kernel, buffer, LONGEST // size)
    if buffer.dtype.kind == "bool" or target.vector_bytes < 16 or not bodies or _rows(kernel.body, buffer) <= ROWS:
        return None
    going, factors = _Going(buffer, {kernel.index}), Factors()
    try:
        for body in bodies:
            for statement in body:
                factors.meet(statement)
            going.through(body, is_whole=body is bodies[-1])
    except _Unknown:
        return None
    found = _stretches([at for places in going.stored.values() for at in places], LINE // size)
    length = found[-1].place + found[-1].stop - found[-1].start if found else 0
    if not 0 < length <= LONGEST // size or not factors.divides(LINE // size, Affine(0, going.terms or ())):
        return None
    shifts: dict[int, int] = {}
    for store, places in going.stored.items():
        within = {s for s in found for start, _ in places if s.start <= start < s.stop}
        if len(within) > 1:
            return None
        shifts.update((store, s.place - s.start) for s in within)
    own = Param(f"{buffer.name}_own", buffer.dtype, length, "own")
    copies = [_copy(own, buffer, going.terms or (), s, target.vector_bytes // size) for s in found]

    def moved(body: Sequence[Stmt]) -> Iterator[Stmt]:
        for statement in body:
            if isinstance(statement, For):
                statement = replace(statement, body=tuple(moved(statement.body)))
            elif isinstance(statement, Store) and id(statement) in shifts:
                terms = tuple((v, c) for v, c in statement.index.terms if v not in going.outer)
                index = Affine(statement.index.const + shifts[id(statement)], terms)
                statement = replace(statement, buffer=own, index=index)
            yield statement
        if body is bodies[-1]:
            yield from copies

    return replace(kernel, body=tuple(moved(kernel.body)), own=(*kernel.own, own))


def _bodies(kernel: Kernel, buffer: Param, most: int) -> list[Sequence[Stmt]]:
    """The kernel's body, and those of the loops that must be entered until what is stored to `buffer` there in one
    round is `most` elements at most. Nothing where there is no such loop.
    """
    bodies: list[Sequence[Stmt]] = [kernel.body]
    rounds = kernel.grid
    while buffer.size > most * rounds:
        loops = [s for s in bodies[-1] if isinstance(s, (Store, For, If)) and any(_stores((s,), buffer))]
        if len(loops) != 1:
            return []
        loop = loops[0]
        if not isinstance(loop, For) or isinstance(loop.lo, Value) or isinstance(loop.hi, Value):
            return []
        rounds *= len(range(loop.lo, loop.hi, loop.step))
        bodies.append(loop.body)
    return bodies


def _rows(body: Sequence[Stmt], buffer: Param) -> int:
    """To how many places that do not lie side by side one round of a loop stores, at most."""
    ends: dict[_Terms, dict[int, int]] = {}
    inner = [0]
    for statement in body:
        if isinstance(statement, (For, If)):
            inner.append(_rows(statement.body, buffer))
        elif isinstance(statement, Store) and statement.buffer == buffer:
            first = statement.index.const
            ends.setdefault(statement.index.terms, {})[first] = first + statement.value.type.lanes
    return max([*inner, *(len(found.keys() - set(found.values())) for found in ends.values())])


class _Unknown(Exception):
    """What is stored is not known before the kernel runs."""


@dataclass
class _Going:
    """Goes through a kernel's loops. `stored` has for each store to `buffer` (by its identity) where it stores: first
    element and count, without the `terms` that depend on the kernel's index, which all of them share.
    """

    buffer: Param
    outer: set[Value]  # not known, and the same for all that is put together
    terms: _Terms | None = None
    stored: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    _numbers: dict[Value, int] = field(default_factory=dict)
    _vectors: dict[Value, int] = field(default_factory=dict)  # the number in each lane
    _lanes: set[Value] = field(default_factory=set)  # 0, 1, 2, ...
    _first: dict[Value, int] = field(default_factory=dict)  # masks: how many lanes, from the first on
    _events: int = 0

    def through(self, body: Sequence[Stmt], is_whole: bool, is_inner: bool = False) -> None:
        """One round of a loop; if not `is_whole`, only what the loop that stores needs. Raises _Unknown."""
        for statement in body:
            if isinstance(statement, Op):
                self._meet(statement, is_inner)
            elif isinstance(statement, Store) and statement.buffer == self.buffer:
                self._store(statement)
            elif isinstance(statement, (For, If)) and any(_stores(statement.body, self.buffer)):
                if isinstance(statement, If):
                    raise _Unknown
                if not is_whole:
                    self.outer.add(statement.var)
                    continue
                for number in range(self._number(statement.lo), self._number(statement.hi), statement.step):
                    self._numbers[statement.var] = number
                    self.through(statement.body, is_whole=True, is_inner=True)

    def _number(self, value: Value | int) -> int:
        if isinstance(value, int):
            return value
        if value not in self._numbers:
            raise _Unknown
        return self._numbers[value]

    def _meet(self, op: Op, is_inner: bool) -> None:
        result, args = op.result, op.args
        if op.name == "const" and isinstance(op.attr, int):
            (self._numbers if result.type.lanes == 1 else self._vectors)[result] = int(op.attr)
        elif op.name == "lanes":
            self._lanes.add(result)
        elif op.name == "splat" and args[0] in self._numbers:
            self._vectors[result] = self._numbers[args[0]]
        elif op.name == "lt" and args[0] in self._lanes and args[1] in self._vectors:
            self._first[result] = min(max(self._vectors[args[1]], 0), result.type.lanes)
        elif result.type is INDEX:
            known = [self._numbers[a] for a in args if a in self._numbers]
            if op.name in _ARITHMETIC and len(known) == len(args):
                self._numbers[result] = _ARITHMETIC[op.name](*known)
            elif not is_inner:
                self.outer.add(result)

    def _store(self, store: Store) -> None:
        self._events += 1
        outer = tuple((v, c) for v, c in store.index.terms if v not in self._numbers)
        count = store.value.type.lanes if store.mask is None else self._first.get(store.mask)
        if (
            store.offsets is not None
            or store.stride != 1
            or count is None
            or self._events > EVENTS
            or any(v not in self.outer for v, _ in outer)
            or set(outer) != set(outer if self.terms is None else self.terms)
        ):
            raise _Unknown
        self.terms = outer if self.terms is None else self.terms
        inner = sum(self._numbers[v] * c for v, c in store.index.terms if v in self._numbers)
        self.stored.setdefault(id(store), []).append((store.index.const + inner, count))


def _stores(body: Sequence[Stmt], buffer: Param) -> Iterator[Store]:
    return (s for s in statements(body) if isinstance(s, Store) and s.buffer == buffer)


def _stretches(places: Sequence[tuple[int, int]], line: int) -> list[_Stretch]:
    """What `places` (first element and count) cover together; nothing where that is not a few stretches of lines."""
    found: list[_Stretch] = []
    for start, count in sorted(places):
        last = found[-1] if found else None
        if last is not None and start <= last.stop:
            found[-1] = replace(last, stop=max(last.stop, start + count))
        else:
            found.append(_Stretch(start, start + count, last.place + last.stop - last.start if last else 0))
    fits = len(found) <= STRETCHES and all(s.start % line == 0 == s.stop % line for s in found)
    return found if fits else []


def _copy(own: Param, buffer: Param, terms: _Terms, stretch: _Stretch, lanes: int) -> For:
    """Copies a stretch line by line."""
    line = LINE // buffer.dtype.itemsize
    at, body = Value(INDEX, "at"), []
    for start in range(0, line, lanes):
        part = Value(VType(buffer.dtype, lanes))
        body.append(Load(part, own, Affine(stretch.place + start, ((at, 1),))))
        index = Affine(stretch.start + start, (*terms, (at, 1)))
        body.append(Store(buffer, index, part, streams=True))
    return For(at, 0, stretch.stop - stretch.start, line, tuple(body))


def asking_ahead(kernel: Kernel) -> Kernel:
    """The kernel, asking for what lies further on in large buffers that vectors are loaded from."""

    def asking(body: Sequence[Stmt], loop: For | None) -> Iterator[Stmt]:
        chosen = {id(load) for load in _apart(body, loop)}
        for statement in body:
            if isinstance(statement, For):
                statement = replace(statement, body=tuple(asking(statement.body, statement)))
            yield statement
            if isinstance(statement, Load) and id(statement) in chosen:
                const = statement.index.const + AHEAD // statement.buffer.dtype.itemsize
                yield Prefetch(statement.buffer, Affine(const, statement.index.terms))

    return replace(kernel, body=tuple(asking(kernel.body, None)))


def _apart(body: Sequence[Stmt], loop: For | None) -> Iterator[Load]:
    """Of the loads of vectors from large buffers some that have no element in common, and read nothing that another one
    reads in an earlier round of the loop.
    """
    by_terms: dict[tuple[Param, _Terms], dict[int, Load]] = {}
    for load in (s for s in body if isinstance(s, Load) and s.result.type.lanes > 1):
        is_large = load.buffer.size * load.buffer.dtype.itemsize >= STREAMED
        if is_large and load.stride == 1 and load.offsets is None:
            by_terms.setdefault((load.buffer, load.index.terms), {})[load.index.const] = load
    for (_, terms), loads in by_terms.items():
        advance, rounds = 0, 1
        if loop is not None and isinstance(loop.lo, int) and isinstance(loop.hi, int):
            advance = loop.step * sum(c for v, c in terms if v is loop.var)
            rounds = len(range(loop.lo, loop.hi, loop.step))
        end: int | None = None
        for const, load in sorted(loads.items()):
            apart = [other - const for other in loads] if advance > 0 else []
            is_known = any(distance % advance == 0 and 0 < distance < rounds * advance for distance in apart)
            if (end is None or const >= end) and not is_known:
                end = const + load.result.type.lanes
                yield load
