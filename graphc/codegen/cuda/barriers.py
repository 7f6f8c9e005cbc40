"""Where the threads of a block must wait for each other: hazard analysis of a block kernel.

Between two barriers, threads run in any order. An access needs a barrier before it when another thread may have written
the same element since the last one, or when it writes an element that another thread may have accessed. Two accesses do
not disturb each other when the same thread always takes the same element, or when they lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphc.codegen.cuda.operations import exchanges
from graphc.codegen.cuda.ranges import Span, Spans, exactly, trip_count
from graphc.codegen.kernel import Affine, For, If, Kernel, Load, Op, Param, Stmt, Store, Value

SCRATCHES = 2  # regions through which threads exchange values, in turn
# Which thread takes which element: see `_pattern`. None: not known.
_Pattern = tuple[object, ...] | None
_FIRST_THREAD: _Pattern = ("first",)


@dataclass(frozen=True, slots=True)
class _Touch:
    """An access since the last barrier; `place` is a buffer or the number of a scratch.

    Its elements are `base`, which is the same in the whole run, plus something in [lo, hi] (when that is known).
    """

    place: Param | int
    writes: bool
    pattern: _Pattern = None
    base: frozenset[tuple[Value, int]] = frozenset()
    span: tuple[int, int] | None = None


_State = frozenset[_Touch]


@dataclass
class Barriers:
    """`before` are the statements (by `id`) that need a barrier before them; `scratch` tells through which region an
    operation exchanges values.
    """

    before: set[int] = field(default_factory=set)
    scratch: dict[int, int] = field(default_factory=dict)


def find_barriers(kernel: Kernel, spans: Spans) -> Barriers:
    """The barriers of a kernel; a kernel of one thread has none."""
    found = Barriers()
    if kernel.threads > 1:
        _Analysis(kernel, spans, found).block(kernel.body, frozenset())
    return found


class _Analysis:
    def __init__(self, kernel: Kernel, spans: Spans, found: Barriers) -> None:
        self.threads = kernel.threads
        self.spans = spans
        self.found = found
        self.varying: set[Value] = set()  # values of a loop: they may differ between two accesses

    def block(self, statements: Sequence[Stmt], state: _State) -> _State:
        """Walk `statements` from `state`; the state after them. Barriers are added, never taken away."""
        for statement in statements:
            if isinstance(statement, Op):
                if exchanges(statement, self.threads):
                    number = self.found.scratch.setdefault(id(statement), len(self.found.scratch) % SCRATCHES)
                    self._access(statement, _Touch(number, True), state)
                    # It ends with reads after a barrier of its own.
                    state = frozenset({_Touch(number, False)})
            elif isinstance(statement, (Load, Store)):
                touch = self._touch(statement)
                if touch is not None:
                    state = self._access(statement, touch, state)
            elif isinstance(statement, For):
                state = self._loop(statement, state)
            elif isinstance(statement, If):
                state |= self.block(statement.body, state)
        return state

    def _loop(self, loop: For, state: _State) -> _State:
        trips = trip_count(loop)
        if trips == 0:
            return state
        if trips == 1:
            return self.block(loop.body, state)
        self.varying.update((loop.var, *loop.phis, *_results(loop.body)))
        entry = state
        while True:
            # Barriers that an earlier, smaller state asked for stay: one too many is no harm.
            last = self.block(loop.body, entry)
            if last <= entry:
                break
            entry |= last
        return last if trips is not None else state | last

    def _access(self, statement: Stmt, touch: _Touch, state: _State) -> _State:
        if id(statement) in self.found.before or any(_disturb(touch, other) for other in state):
            self.found.before.add(id(statement))
            state = frozenset()
        return state | {touch}

    def _touch(self, access: Load | Store) -> _Touch | None:
        buffer, index, writes = access.buffer, access.index, isinstance(access, Store)
        if buffer.mode == "in":
            return None
        lanes = access.value.type.lanes if isinstance(access, Store) else access.result.type.lanes
        base: dict[Value, int] = {}
        moving = exactly(index.const)
        for value, coefficient in index.terms:
            known = self.spans.get(value)
            if value not in self.varying:
                base[value] = base.get(value, 0) + coefficient
            elif known is None or moving is None:
                moving = None
            else:
                moving = moving.plus(known.times(coefficient))
        across = Span(0, lanes - 1).times(access.stride)
        if access.offsets is not None:
            across = self.spans.get(access.offsets)
        moving = moving.plus(across) if moving is not None and across is not None else None
        pattern: _Pattern = None
        if lanes == 1:
            pattern = _FIRST_THREAD if writes else None
        elif access.offsets is None:
            pattern = self._pattern(index, access.stride)
        span = None if moving is None else (moving.lo, moving.hi)
        return _Touch(buffer, writes, pattern, frozenset(base.items()), span)

    def _pattern(self, index: Affine, stride: int) -> _Pattern:
        """With `index` = base + a multiple of `stride * threads`, where base is the same in the whole run: element e
        belongs to thread (e - base) / stride modulo the number of threads.
        """
        period = abs(stride) * self.threads
        base: dict[Value, int] = {}
        for value, coefficient in index.terms:
            span = self.spans.get(value)
            multiple = span.multiple if span is not None else 1
            if multiple * coefficient % period == 0:
                continue
            if value in self.varying:
                return None
            base[value] = base.get(value, 0) + coefficient
        return stride, index.const % period, frozenset(base.items())


def _disturb(first: _Touch, second: _Touch) -> bool:
    if first.place != second.place or not (first.writes or second.writes):
        return False
    if first.base == second.base and first.span is not None and second.span is not None:
        (low, high), (start, end) = first.span, second.span
        if high < start or end < low:
            return False
    return first.pattern is None or first.pattern != second.pattern


def _results(statements: Sequence[Stmt]) -> list[Value]:
    """All values that `statements` define, inner ones included."""
    values: list[Value] = []
    for statement in statements:
        if isinstance(statement, (Op, Load)):
            values.append(statement.result)
        elif isinstance(statement, For):
            values += (statement.var, *statement.phis, *statement.results, *_results(statement.body))
        elif isinstance(statement, If):
            values += _results(statement.body)
    return values
