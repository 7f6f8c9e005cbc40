"""Calls whose operands have other shapes each time, as those that read what grows.

What such a call records makes a program of its own each time of all that is recorded around it. Where most calls are
not such, it is computed at once instead, operator by operator, so that what comes before and after it is the same
program every time. Where most are, one program of them all is better (`graphc.interpreting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.counting import FRONT
from graphc.interpreting import ELEMENT, MOST_VARIANTS
from graphc.ir.types import TensorType
from graphc.options import INTERPRET
from graphc.recording import Recorder
from graphc.repeats import FLOWS
from graphc.rounds import has_history
from graphc.tensors.core import TensorBase

MOST_CALLS = 4096
MOST_KINDS = 1024
MOST_CHANGES = MOST_VARIANTS  # programs in which a call saw new shapes: from then on it is likely to see others
WINDOW = 64  # calls over which it is counted how many see changes
MOST_TIMES = 32  # of one call with one kind of operands: then it is worth a program,
BUILT = 20_000  # microseconds, which takes so long to build, about

Place = tuple[int, int, int, int]


@dataclass(slots=True)
class Call:
    """What a call was seen to take: how often each kind of operands was computed at once (0 if it is not any more), in
    how many programs there was a new one, and which program was the last of them.
    """

    kinds: dict[tuple[object, ...], int] = field(default_factory=dict)
    changes: int = 0
    turn: int = -1


@dataclass(slots=True)
class Calls:
    """The calls of one recorder, as their keys begin. Of those since the last count, how many saw changes and how many
    did not, but for those that native code recorded; and whether those before the last count that did were few.
    """

    known: dict[Place, Call] = field(default_factory=dict)
    changing: int = 0
    steady: int = 0
    native: int = field(default_factory=lambda: FRONT.native_records)
    are_few: bool = False

    def count(self, changing: bool) -> None:
        """Note a call that native code did not record."""
        if changing:
            self.changing += 1
        else:
            self.steady += 1
        native = FRONT.native_records - self.native
        if self.changing + self.steady + native >= WINDOW:
            self.are_few = self.changing <= self.steady + native
            self.changing = self.steady = 0
            self.native = FRONT.native_records


# What a call is: like calls before, the first with such operands where others change too, to be computed at once.
USUAL, NEW, AT_ONCE = range(3)


def kind_of(recorder: Recorder, what: Place, args: Iterable[Any], kwargs: Mapping[str, Any]) -> int:
    """What the call is that `what` tells of (`graphc.repeats`). It is computed at once if it takes operands of ever new
    shapes, and few times each, among calls that do not.
    """
    if recorder.capture is not None or recorder.example_since is not None:
        return USUAL
    types = (*_types(args), *_types(kwargs.values()))
    kind: tuple[object, ...] = types or tuple(each for each in args if type(each) is int)  # a shape
    if (calls := recorder.calls) is None:
        calls = recorder.calls = Calls()
    call = calls.known.get(what)
    if call is None:
        if len(calls.known) >= MOST_CALLS:
            calls.known.clear()
        call = calls.known[what] = Call()
    times = call.kinds.get(kind)
    is_new = times is None
    if is_new and call.turn != recorder.turn:
        call.turn = recorder.turn
        call.changes += 1
        if len(call.kinds) >= MOST_KINDS:
            call.kinds.clear()
    changes = call.changes > MOST_CHANGES
    calls.count(changes)
    if is_new:  # later ones are done as the first was
        times = int(changes and calls.are_few and not what[-1] & FLOWS and INTERPRET.get())
    elif times:
        times += 1
    if times > MOST_TIMES or times * ELEMENT * sum([type.size for type in types]) > BUILT:
        times = 0
    call.kinds[kind] = times
    if times:
        return AT_ONCE
    return NEW if is_new and changes else USUAL


def _types(values: Iterable[Any]) -> Iterator[TensorType]:
    for value in values:
        if isinstance(value, TensorBase):
            yield value._type
        elif type(value) in (list, tuple):
            yield from _types(value)


def at_once(recorder: Recorder, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)`, whose results are computed now where that takes less than a program of their own."""
    with recorder.lock:
        if any(map(has_history, recorder.pending)):
            return function(*args, **kwargs)  # it is computed with what gradients want of the same step
        if recorder.has_pending():
            recorder.flush("")
        made = function(*args, **kwargs)
        recorder.compute_by_operators()
    return made
