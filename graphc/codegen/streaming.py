"""Stores past the caches: a kernel that touches more memory than the last cache holds writes whole lines to memory at
once, rather than have each line read before it is written and push something else out. So do contractions with large
results that nothing in the program reads, such as gradients beside the update made of them: their tiles write a few
lines of many rows in turns, which the machine does not foresee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from graphc.codegen.factors import Factors
from graphc.codegen.kernel import Affine, For, If, Kernel, Load, Op, Param, Stmt, Store, Value, statements
from graphc.codegen.lowered import Lowered
from graphc.codegen.staging import asking_ahead, staged
from graphc.codegen.target import LINE, Target

OPEN = 2  # lines that are written in turns: the machine puts few together at once, and writes the others in pieces
LARGE = 8  # parts of the last cache, one of which a result must exceed
UNREAD = 4  # parts of the second cache, one of which a result that nothing reads must reach
MOST = 0.75  # share of a buffer that goes past the caches, or none of it does: the other stores have lines read again
LONG = 16  # lines of a row of vectors, whose first and last line may be written in part

_Bounds = tuple[Value | int, Value | int]
_Key = tuple[Param, tuple[tuple[Value, int], ...]]


def streamed(lowered: Lowered, target: Target, unread: Sequence[bool] = ()) -> Kernel:
    """The kernel with stores past the caches where that pays; the kernel itself where it does not.

    A buffer is written so that would take up a fair part of the last cache, where what is touched of all buffers is
    at least as large as that; where the second cache does not hold all of them, also one of a fair part of that
    which `unread` says is a contraction's result that nothing reads. Its lines must be written whole, and it must
    not be read.
    """
    kernel = lowered.kernel
    held = sum(p.size * p.dtype.itemsize for p in kernel.params)
    touched = min(kernel.bytes or held, held)  # rows picked from a table are less than the table
    past, apart = touched >= target.l3_bytes, touched > target.l2_bytes and any(unread)
    if not target.l3_bytes or not (past or apart):
        return kernel
    read = {s.buffer for s in statements(kernel.body) if isinstance(s, Load)}
    starts = lowered.starts or (0,) * len(kernel.params)
    alone = unread or (False,) * len(kernel.params)

    def is_large(param: Param, is_unread: bool) -> bool:
        nbytes = param.size * param.dtype.itemsize
        return (past and nbytes * LARGE > target.l3_bytes) or (
            apart and is_unread and nbytes * UNREAD >= target.l2_bytes
        )

    buffers = frozenset(
        p
        for p, start, is_unread in zip(kernel.params, starts, alone, strict=True)
        if p.mode == "out" and p not in read and is_large(p, is_unread) and start % LINE == 0
    )
    others: set[Param] = set()
    while buffers:
        stream = _Stream(buffers)
        body = stream.block(kernel.body, kernel.index, (0, kernel.grid), 1)
        mixed = {p for p in buffers if _share(body, p) < MOST}
        if not mixed:
            kernel = kernel if body == kernel.body else replace(kernel, body=body)
            break
        buffers -= mixed
        others |= mixed - stream.in_turns
    whole = kernel
    for param in kernel.params if past else ():
        whole = (staged(whole, param, target) if param in others else None) or whole
    return kernel if whole is kernel else asking_ahead(whole)


def _share(body: Sequence[Stmt], buffer: Param) -> float:
    """The share of the elements stored to a buffer that go past the caches."""
    counts = {True: 0, False: 0}

    def count(body: Sequence[Stmt], times: int) -> None:
        for statement in body:
            if isinstance(statement, Store) and statement.buffer == buffer:
                counts[statement.streams] += times * statement.value.type.lanes
            elif isinstance(statement, If):
                count(statement.body, times)
            elif isinstance(statement, For):
                lo, hi = statement.lo, statement.hi
                rounds = len(range(lo, hi, statement.step)) if isinstance(lo, int) and isinstance(hi, int) else LONG
                count(statement.body, times * rounds)

    count(body, 1)
    return counts[True] / max(1, sum(counts.values()))


class _Stream:
    """Marks the stores to `buffers`. Many lines of those `in_turns` are written in turns."""

    def __init__(self, buffers: frozenset[Param]) -> None:
        self._buffers = buffers
        self.in_turns: set[Param] = set()
        self._factors = Factors()

    def block(self, body: Sequence[Stmt], var: Value, bounds: _Bounds, step: int) -> tuple[Stmt, ...]:
        """The statements of a loop over `var` within `bounds`, with stores marked."""
        for statement in body:
            if isinstance(statement, Op):
                self._factors.meet(statement)
        candidates = [s for s in body if isinstance(s, Store) and self._is_aligned(s)]
        marked = self._whole(candidates, var, bounds, step)
        result: list[Stmt] = []
        for statement in body:
            if isinstance(statement, For):
                self._factors.meet(statement)
                inner = self.block(statement.body, statement.var, (statement.lo, statement.hi), statement.step)
                statement = statement if inner == statement.body else replace(statement, body=inner)
            elif isinstance(statement, Store) and id(statement) in marked:
                statement = replace(statement, streams=True)
            result.append(statement)
        return tuple(result)

    def _is_aligned(self, store: Store) -> bool:
        """Whether a whole vector is stored to neighbours, from a multiple of its length on."""
        lanes, is_plain = store.value.type.lanes, store.stride == 1 and store.offsets is None and store.mask is None
        if lanes == 1 or not is_plain or store.buffer not in self._buffers or store.value.type.dtype.kind == "bool":
            return False
        return lanes * store.buffer.dtype.itemsize >= 16 and self._factors.divides(lanes, store.index)

    def _whole(self, stores: Sequence[Store], var: Value, bounds: _Bounds, step: int) -> set[int]:
        """Those of `stores` (by identity) that write whole lines, or lines that the next round of the loop ends."""
        marked: set[int] = set()
        by_place: dict[_Key, list[Store]] = {}
        for store in stores:
            by_place.setdefault((store.buffer, store.index.terms), []).append(store)
        for (buffer, terms), found in by_place.items():
            line = LINE // buffer.dtype.itemsize
            found.sort(key=lambda s: s.index.const)
            lanes = found[0].value.type.lanes
            advance = sum(c for v, c in terms if v is var) * step
            # What follows on each other has the same distance from its number.
            for _, run in groupby(enumerate(found), key=lambda pair: pair[1].index.const - pair[0] * lanes):
                together = [store for _, store in run]
                length = lanes * len(together)
                is_whole = length % line == 0 and self._factors.divides(line, Affine(together[0].index.const, terms))
                if is_whole or (advance == length and self._ends_lines(together[0], var, bounds, line)):
                    marked.update(map(id, together))
        if self._open_lines(stores, marked) > OPEN:
            self.in_turns.update(store.buffer for store in stores if id(store) in marked)
            return set()
        return marked

    def _open_lines(self, stores: Sequence[Store], marked: set[int]) -> int:
        """How many lines are begun before one that was begun earlier is whole."""
        ends: dict[tuple[Param, object, int], list[int]] = {}
        for number, store in enumerate(s for s in stores if id(s) in marked):
            line = store.index.const * store.buffer.dtype.itemsize // LINE
            ends.setdefault((store.buffer, store.index.terms, line), []).append(number)
        spans = [(found[0], found[-1]) for found in ends.values()]
        return max((sum(a <= first <= b for a, b in spans) for first, _ in spans), default=0)

    def _ends_lines(self, store: Store, var: Value, bounds: _Bounds, line: int) -> bool:
        """Whether rows that vectors are stored to one after the other, along `var`, begin and end with lines of
        `line` elements, or are so long that it does not matter.
        """
        lo, hi = bounds
        each = sum(c for v, c in store.index.terms if v is var)
        if isinstance(lo, Value) or isinstance(hi, Value) or (hi - lo) * each >= LONG * line:
            return True
        rest = Affine(store.index.const, tuple((v, c) for v, c in store.index.terms if v is not var))
        return self._factors.divides(line, rest) and lo * each % line == 0 and hi * each % line == 0
