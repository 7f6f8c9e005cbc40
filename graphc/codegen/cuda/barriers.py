"""Where the threads of a block must wait for each other: hazard analysis of a block kernel.

Between two barriers, threads run in any order. An access needs a barrier before it when another thread may have written
the same element since the last one, or when it writes an element that another thread may have accessed. Two accesses do
not disturb each other when the same thread always takes the same element, or when they lie apart. The lanes of one
store go to different elements, and what a kernel never loads it stores once: such stores need no order.

Products of lines go on reading when the statement is done: a barrier orders what they read after the thread has waited
for them. Until then, nobody may write it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from graphc.codegen.cuda.operations import exchanges
from graphc.codegen.cuda.ranges import Span, Spans, exactly, trip_count
from graphc.codegen.kernel import (
    Affine,
    AsyncCopy,
    Await,
    AwaitGroups,
    Exchange,
    Exp2,
    For,
    GroupMma,
    If,
    Kernel,
    Load,
    LoadMatrix,
    Mma,
    Op,
    Param,
    Stmt,
    Store,
    Value,
    VType,
    statements,
)
from graphc.errors import CompileError
from graphc.ir.record import record
from graphc.ir.types import i64

SCRATCHES = 2  # regions through which threads exchange values, in turn
_FIRST_THREAD = ("first thread",)
_LANE_ARITHMETIC: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "udiv": np.floor_divide,  # of numbers that are not negative, as all of these are checked to be
    "urem": np.remainder,
    "sdiv": np.floor_divide,
    "srem": np.remainder,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "minimum": np.minimum,
    "maximum": np.maximum,
}


@record
class Touch:
    """An access since the last barrier; `place` is a buffer or the number of a scratch.

    Its elements are `base`, which is the same in the whole run, plus something in `span`; plus `moved`, which is the
    same in accesses of one round of all loops, and `lanes`, thread by thread, when these are numbers. `period` says
    which thread takes which element, see `_period`; so does `exact`, for accesses in the same round of all loops.
    """

    place: Param | int
    writes: bool
    base: frozenset[tuple[Value, int]] = frozenset()
    span: tuple[int, int] | None = None
    lanes: bytes = b""
    moved: frozenset[tuple[Value, int]] = frozenset()
    period: tuple[object, ...] = ()
    exact: tuple[object, ...] = ()


class State:
    """The accesses since the last barrier, by their place and whether they write, and which memory products of lines
    read that may be under way: how many more there may be.
    """

    def __init__(
        self,
        touches: Mapping[tuple[Param | int, bool], set[Touch]] = MappingProxyType({}),
        reading: Mapping[Param, int] = MappingProxyType({}),
    ) -> None:
        self._touches = {key: set(those) for key, those in touches.items()}
        self._reading = dict(reading)

    def copy(self) -> State:
        return State(self._touches, self._reading)

    def begin(self, buffers: Sequence[Param]) -> None:
        """A product of what is in `buffers` begins."""
        self._reading = {buffer: later + 1 for buffer, later in self._reading.items()}
        self._reading.update(dict.fromkeys(buffers, 0))

    def end(self, pending: int) -> None:
        """All products but the last `pending` ones are done."""
        done = [buffer for buffer, later in self._reading.items() if later >= pending]
        for buffer in done:
            del self._reading[buffer]
            self.add(Touch(buffer, False))

    def is_read(self, buffer: Param) -> bool:
        """Whether a product that may be under way reads it."""
        return buffer in self._reading

    def add(self, touch: Touch) -> None:
        self._touches.setdefault((touch.place, touch.writes), set()).add(touch)

    def clear(self) -> None:
        """There is a barrier."""
        self._touches.clear()

    def meets(self, touch: Touch) -> bool:
        """Whether `touch` needs a barrier before it."""
        kinds = (True, False) if touch.writes else (True,)
        return any(disturb(touch, other) for kind in kinds for other in self._touches.get((touch.place, kind), ()))

    def join(self, other: State) -> bool:
        """Add the accesses of `other`; whether there were new ones."""
        grown = False
        for key, touches in other._touches.items():
            mine = self._touches.setdefault(key, set())
            grown = grown or not touches <= mine
            mine |= touches
        for buffer, later in other._reading.items():
            if later < self._reading.get(buffer, later + 1):
                self._reading[buffer] = later
                grown = True
        return grown

    def later(self, varying: set[Value]) -> None:
        """Go to a later round of a loop, whose values `varying` change."""
        for touches in self._touches.values():
            changed = {touch: _later(touch, varying) for touch in touches}
            touches.clear()
            touches.update(changed.values())


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
        _Analysis(kernel, spans, found).block(kernel.body, State())
    return found


class _Analysis:
    def __init__(self, kernel: Kernel, spans: Spans, found: Barriers) -> None:
        self.threads = kernel.threads
        self.spans = spans
        self.found = found
        self.varying: set[Value] = set()  # values of a loop: they may differ between two accesses
        self.numbers: dict[Value, np.ndarray] = {}  # i64 values that are known lane by lane
        self.touches: dict[int, Touch] = {}  # of accesses that were walked before, by `id`
        every = list(statements(kernel.body))
        self.loaded = {s.buffer for s in every if isinstance(s, (Load, LoadMatrix))}
        self.loaded |= {s.source for s in every if isinstance(s, AsyncCopy)}
        self.loaded |= {lines.buffer for s in every if isinstance(s, GroupMma) for lines in (s.left, s.right)}
        self.copied = {s.buffer for s in every if isinstance(s, AsyncCopy)}

    def block(self, body: Sequence[Stmt], state: State) -> None:
        """Walk `body` from `state`, which becomes the one after them. Barriers are added, never taken away."""
        for statement in body:
            if isinstance(statement, Op):
                self._number(statement)
                if exchanges(statement, self.threads):
                    number = self.found.scratch.setdefault(id(statement), len(self.found.scratch) % SCRATCHES)
                    self._access(statement, Touch(number, True), state)
                    # It ends with reads after a barrier of its own.
                    state.clear()
                    state.add(Touch(number, False))
            elif isinstance(statement, (Load, Store)):
                if statement.buffer.mode != "in" and statement.buffer in self.loaded:
                    writes = isinstance(statement, Store)
                    is_copied = statement.buffer in self.copied
                    touch = Touch(statement.buffer, writes) if is_copied else self._touch(statement, statement)
                    self._access(statement, touch, state)
            elif isinstance(statement, LoadMatrix):
                self._access(statement, Touch(statement.buffer, False), state)
            elif isinstance(statement, AsyncCopy):
                self._copy(statement, state)
            elif isinstance(statement, GroupMma):
                read = statement.left.buffer, statement.right.buffer
                self._access(statement, Touch(read[0], False), state)
                self._access(statement, Touch(read[1], False), state)
                state.begin(read)
            elif isinstance(statement, AwaitGroups):
                state.end(statement.pending)
            elif isinstance(statement, Await):  # what each thread's copies bring is there now
                for buffer in self.copied:
                    state.add(Touch(buffer, True))
            elif isinstance(statement, For):
                self._loop(statement, state)
            elif isinstance(statement, If):
                inside = state.copy()
                self.block(statement.body, inside)
                state.join(inside)

    def _loop(self, loop: For, state: State) -> None:
        trips = trip_count(loop)
        if trips == 0:
            return
        if trips == 1:
            self.block(loop.body, state)
            return
        mine = {loop.var, *loop.phis, *(v for s in statements(loop.body) for v in _results(s))}
        self.varying |= mine
        entry = state.copy()
        last = state.copy()
        while True:
            # Barriers that an earlier, smaller state asked for stay: one too many is no harm.
            self.block(loop.body, last)
            last.later(mine)
            if not entry.join(last):
                break
            last = entry.copy()
        if trips is not None:
            state.clear()
        state.join(last)

    def _access(self, statement: Stmt, touch: Touch, state: State) -> None:
        if touch.writes and isinstance(touch.place, Param) and state.is_read(touch.place):
            raise CompileError(f"{touch.place.name} is written while a product may read it: {statement!r}")
        if id(statement) in self.found.before or state.meets(touch):
            self.found.before.add(id(statement))
            state.clear()
        state.add(touch)

    def _copy(self, copy: AsyncCopy, state: State) -> None:
        if copy.source.mode != "in":
            self._access(copy, Touch(copy.source, False), state)
        # Copies begin at multiples of their length: they meet where they begin at one element.
        first = Value(VType(copy.buffer.dtype, self.threads))
        self._access(copy, self._touch(copy, Store(copy.buffer, copy.index, first, 0, copy.offsets)), state)

    def _touch(self, statement: Stmt, access: Load | Store) -> Touch:
        """What `statement` accesses, as `access` does."""
        known = self.touches.get(id(statement))
        if known is None:
            known = self.touches[id(statement)] = self._new_touch(access)
        return known

    def _new_touch(self, access: Load | Store) -> Touch:
        index, writes = access.index, isinstance(access, Store)
        lanes = access.value.type.lanes if isinstance(access, Store) else access.result.type.lanes
        base: dict[Value, int] = {}
        moving: Span | None = exactly(index.const)
        for value, coefficient in index.terms:
            known = self.spans.get(value)
            if value not in self.varying:
                base[value] = base.get(value, 0) + coefficient
            elif known is None or moving is None:
                moving = None
            else:
                moving = moving.plus(known.times(coefficient))
        across: Span | None = Span(0, lanes - 1).times(access.stride)
        numbers: np.ndarray | None = np.arange(lanes) * access.stride
        if access.offsets is not None:
            across, numbers = self.spans.get(access.offsets), self.numbers.get(access.offsets)
        span = moving.plus(across) if moving is not None and across is not None else None
        place = access.buffer, writes, frozenset(base.items()), span[:2] if span is not None else None
        if lanes == 1:
            return Touch(*place, period=_FIRST_THREAD if writes else ())
        known_lanes = (numbers + index.const).tobytes() if numbers is not None else b""
        moved = frozenset((v, c) for v, c in index.terms if v in self.varying)
        period = self._period(index, access.stride) if access.offsets is None else ()
        # With offsets, lanes that run take different elements only in a store, or under the same mask as in one.
        exact = (index.const, frozenset(index.terms), access.stride, access.offsets)
        return Touch(*place, known_lanes, moved, period, exact if access.offsets is None else (*exact, access.mask))

    def _period(self, index: Affine, stride: int) -> tuple[object, ...]:
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
                return ()
            base[value] = base.get(value, 0) + coefficient
        return stride, index.const % period, frozenset(base.items())

    def _number(self, op: Op) -> None:
        """Follow i64 values that are known lane by lane."""
        if op.result.type.dtype is not i64:
            return
        if op.name == "const":
            self.numbers[op.result] = np.full(op.result.type.lanes, op.attr, np.int64)
        elif op.name == "lanes":
            self.numbers[op.result] = np.arange(op.result.type.lanes)
        known = [self.numbers[a] for a in op.args if a in self.numbers]
        if not known or len(known) < len(op.args):
            return
        if op.name == "splat":
            self.numbers[op.result] = np.broadcast_to(known[0], op.result.type.lanes)
        elif op.name in _LANE_ARITHMETIC and all(k.min() >= 0 and k.max() < 1 << 31 for k in known):
            if op.name[1:] in ("div", "rem") and known[1].min() == 0:
                return
            self.numbers[op.result] = _LANE_ARITHMETIC[op.name](*known)


def disturb(first: Touch, second: Touch) -> bool:
    """Whether the threads must wait between two accesses to one place, one of which writes."""
    if first.exact and first.exact == second.exact:
        return False
    if first.period and first.period == second.period:
        return False
    if first.base != second.base:
        return True
    if first.span is not None and second.span is not None:
        (low, high), (start, end) = first.span, second.span
        if high < start or end < low:
            return False
    return first.moved != second.moved or not (first.lanes and second.lanes) or _meet(first.lanes, second.lanes)


def _meet(first: bytes, second: bytes) -> bool:
    """Whether two threads take the same element."""
    owner = {element: thread for thread, element in enumerate(np.frombuffer(first, np.int64).tolist())}
    others = np.frombuffer(second, np.int64).tolist()
    if len(owner) < len(others):
        return True
    return any(owner.get(element, thread) != thread for thread, element in enumerate(others))


def _later(touch: Touch, varying: set[Value]) -> Touch:
    """`touch` in a later round of a loop, whose values `varying` have changed."""
    if any(value in varying for value, _ in touch.moved):
        touch = replace(touch, lanes=b"")
    if not touch.exact:
        return touch
    _, terms, _, offsets, *_ = touch.exact
    used = {value for value, _ in terms} | {offsets}  # type: ignore[attr-defined]
    return touch if used.isdisjoint(varying) else replace(touch, exact=())


def _results(statement: Stmt) -> tuple[Value, ...]:
    """The values that a statement itself defines."""
    if isinstance(statement, (Op, Load, Exchange, Exp2)):
        return (statement.result,)
    if isinstance(statement, (Mma, LoadMatrix, GroupMma, AwaitGroups)):
        return statement.results
    return (statement.var, *statement.phis, *statement.results) if isinstance(statement, For) else ()
