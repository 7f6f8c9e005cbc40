"""Calls whose operands have other shapes each time, as those that read what grows.

What such a call records makes a program of its own each time of all that is recorded around it. Where most calls are
not such, it is computed at once instead, operator by operator, so that what comes before and after it is the same
program every time. Where most are, one program of them all is better (`graphc.interpreting`).

What such a call does is compiled for all sizes of its operands once it was seen often enough (`graphc.any_size`). From
then on its function is not called any more: native code runs that instead (`graphc.native.serving`), or leaves the call
to Python, which does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.any_size import Joined, Sized
from graphc.counting import FRONT
from graphc.interpreting import ELEMENT, MOST_VARIANTS, estimated
from graphc.ir.graph import Graph
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType
from graphc.ir.visit import topological
from graphc.memory import AnyBuffer, values_of
from graphc.naming import unnamed
from graphc.options import INTERPRET
from graphc.programs import canonical
from graphc.recording import Recorder
from graphc.repeats import FLOWS, KEY, Service
from graphc.rounds import has_history
from graphc.tensors.cases import Case, chained, is_given_up, learn, used
from graphc.tensors.core import TensorBase, from_buffer, read, result_class
from graphc.tensors.export import seen
from graphc.tensors.size import Size
from graphc.warned import WARNED

MOST_CALLS = 4096
MOST_KINDS = 1024
MOST_CHANGES = MOST_VARIANTS  # programs in which a call saw new shapes: from then on it is likely to see others,
APART = 64  # if there are fewer programs between them: those of one network after the other are not such
WINDOW = 64  # calls over which it is counted how many see changes
LENGTHY = 8  # calls on average, of which programs are not worth to be ever other ones
BRIEF = 2  # calls on average, of which programs are worth to be looked for that are ever other ones
MOST_TIMES = 32  # of one call with one kind of operands: then it is worth a program,
BUILT = 20_000  # microseconds, which takes so long to build, about
MOST_SERVED = 256  # if what serves all sizes does it, which takes less
MOST_NATIVE = 2048  # times that native code serves one kind, which takes little more than a program of its own
MANY = 16  # times that it did: native code need not look at the call any more
WORTH = -1
OFTEN, AGAINST = 16, -4  # more than four in five of the calls that Python sees are of kinds that came often
MOST_VAIN = 256  # counts of programs that are ever others, after which calls are served although they come again
MOST_TRIES = 16  # to find out what a call does

Place = tuple[int, ...]
_GRAD = KEY.index("grad")

# What native code needs to serve calls with such arguments, in parts; None where Python must do it.
SERVE: list[Callable[[Joined | Sized, Sequence[object]], Service | None]] = []

# What a call is: like calls before, the first with such operands where others change too, to be computed at once.
USUAL, NEW, AT_ONCE = range(3)
_PLAIN = frozenset((bool, int, str, DType, type(None)))


@dataclass(slots=True)
class Call:
    """What a call was seen to take: how often each kind of operands was computed at once (WORTH if it is not any more),
    how many kinds never were, in how many programs there was a new one, and which program was the last of them. `keep`
    are the objects that its place, a part of a key, has the addresses of.

    `cases` tell what it does for operands of any sizes, the most recently used first. They `served` so many calls;
    `left`: native code leaves them to Python, but for those that `service`, and those that it leads to, can do. `tries`
    counts calls that told nothing, since something was learnt the last time.
    """

    keep: tuple[object, ...]
    kinds: dict[tuple[object, ...], int] = field(default_factory=dict)
    usual: int = 0
    changes: int = 0
    turn: int = -1
    cases: list[Case] = field(default_factory=list)
    served: int = 0
    left: bool = False
    service: Service | None = None
    tries: int = 0

    def taken(self) -> int:
        """How many calls native code served since the last that Python made."""
        if self.service is None:
            return 0
        count = self.service.taken()
        self.served += count
        return count


def _others() -> int:
    """How many programs there were that were not compiled as they are."""
    return FRONT.interpreted + FRONT.any_size - FRONT.native_any_size


@dataclass(slots=True)
class Calls:
    """The calls of one recorder, as their keys begin. Of those since the last count, how many saw changes and how many
    did not, but for those that native code recorded, and how many had operands as none before; and whether those before
    the last count that did were few, or programs brief and most calls new.

    Calls that native code serves `come_again` if most are of kinds that came often: then programs of their own are
    better. `often` tells what speaks for it, or is left of that. Where programs go on being others all the same, in so
    `vain` a number of counts one after the other, that is not tried again.
    """

    known: dict[Place, Call] = field(default_factory=dict)
    changing: int = 0
    steady: int = 0
    native: int = field(default_factory=lambda: FRONT.native_records)
    new: int = 0
    flushes: int = field(default_factory=lambda: FRONT.flushes)
    others: int = field(default_factory=lambda: _others())
    are_few: bool = False
    come_again: bool = False
    often: int = 0
    vain: int = 0

    def count(self, changing: bool, calls: int, is_new: bool) -> bool:
        """Note calls that native code did not record; whether the last had operands as none before. Gives whether it
        was found out that there are no programs of their own for calls that come again.
        """
        self.new += is_new
        if changing:
            self.changing += calls
        else:
            self.steady += calls
        native = FRONT.native_records - self.native
        calls = self.changing + self.steady + native
        if calls >= WINDOW:
            flushes, others = FRONT.flushes - self.flushes, _others() - self.others
            is_brief = min(flushes, self.new) * BRIEF > calls
            is_new = 2 * others > flushes and calls > LENGTHY * flushes
            self.are_few = is_brief or is_new or self.changing <= self.steady + native
            self.changing = self.steady = self.new = 0
            self.native, self.flushes, self.others = FRONT.native_records, FRONT.flushes, _others()
            if self.vain < MOST_VAIN:
                self.vain = self.vain + 1 if is_new else 0
                if self.vain == MOST_VAIN:
                    self.come_again = False
                    return True
        return False

    def weigh(self, is_often: bool, is_new: bool) -> None:
        """Note a call that native code could serve."""
        if self.come_again:
            self.often -= is_new
            self.come_again = self.often > 0
        elif self.vain < MOST_VAIN:
            self.often = max(0, self.often + (1 if is_often else AGAINST))
            self.come_again = self.often >= OFTEN


def call_of(recorder: Recorder, place: Place, function: Callable[..., Any]) -> Call:
    """What is known of the calls at `place` (`Repeats.call`)."""
    calls = recorder.calls
    if calls is None:
        calls = recorder.calls = Calls()
    call = calls.known.get(place)
    if call is None:
        if len(calls.known) >= MOST_CALLS:
            forget(recorder)
            calls = recorder.calls = Calls()
        code = ctypes.cast(place[0], ctypes.py_object).value
        call = calls.known[place] = Call((code, function, recorder.place))
    return call


def forget(recorder: Recorder) -> None:
    """Know nothing of calls any more."""
    recorder.calls = None
    recorder.repeats.end_services()


def kind_of(recorder: Recorder, place: Place, call: Call, args: Iterable[Any], kwargs: Mapping[str, Any]) -> int:
    """What the call is that is made now at `place`. It is computed at once if it takes operands of ever new shapes, and
    few times each, among calls that do not.
    """
    if recorder.capture is not None or recorder.example_since is not None:
        return USUAL  # nor does native code look at calls then
    if recorder.updating or not INTERPRET.get():  # parameters do not change, however many shapes they have
        return _not_at_once(recorder, place, call, False)
    types = (*_types(args), *_types(kwargs.values()))
    kind: tuple[object, ...] = types or tuple(each for each in args if type(each) is int)  # a shape
    times, taken = call.kinds.get(kind), call.taken()
    is_new = times is None
    if is_new:
        if call.turn != recorder.turn:
            if recorder.turn - call.turn > APART and call.changes <= MOST_CHANGES:
                call.changes = 0
            call.turn = recorder.turn
            call.changes += 1
        if len(call.kinds) >= MOST_KINDS:
            call.kinds.clear()
            call.usual = 0
        times, call.usual = 0, call.usual + 1
    changes = call.changes > MOST_CHANGES
    if recorder.calls.count(changes, 1 + taken, is_new):
        for known, each in recorder.calls.known.items():
            if each.service is not None:
                each.left = True
                recorder.repeats.leave(known, each.keep, each.service)
    # Later ones are done as the first was, but for a few that came before there was something for all of them.
    is_few = bool(call.served) and (call.service is not None or 2 * call.usual < len(call.kinds))
    if times == 0 and (is_new or is_few):
        # What native code serves is served even where most calls change: to record some of it makes programs of both.
        are_few = recorder.calls.are_few or call.service is not None
        times = int(changes and are_few and not place[_GRAD] & FLOWS)
        call.usual -= times
    elif times > 0:
        times += 1 + taken  # as if they were all of this kind: one of each in so many is seen here
    most = MOST_NATIVE if call.service is not None else MOST_SERVED if call.served else MOST_TIMES
    is_often = times == WORTH or times > most or times * ELEMENT * sum([t.size for t in types]) > BUILT
    if call.service is None:
        times = WORTH if is_often else times
        now = times > 0
    else:  # native code does not look at kinds: it serves all, or none
        recorder.calls.weigh(is_often, is_new)
        now = times != 0 and (is_new or not recorder.calls.come_again)
    call.kinds[kind] = times
    if now:
        return AT_ONCE
    return _not_at_once(recorder, place, call, is_new and changes)


def _not_at_once(recorder: Recorder, place: Place, call: Call, is_new: bool) -> int:
    if recorder.repeats.take_back(place):
        call.left = False
        return NEW  # native code did not read its operands: it cannot be told how to repeat the call
    return NEW if is_new else USUAL


def _types(values: Iterable[Any]) -> Iterable[TensorType]:
    for value in values:
        if isinstance(value, TensorBase):
            yield value._type
        elif type(value) in (list, tuple):
            yield from _types(value)


@unnamed
def at_once(
    recorder: Recorder,
    place: Place,
    call: Call,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """`function(*args, **kwargs)`, whose results are computed now where that takes less than a program of their own."""
    with recorder.lock:
        if not compute_first(recorder):
            return function(*args, **kwargs)
        tensors: list[TensorBase] = []
        rest: list[object] = []
        if not _apart(args, tensors, rest) or (kwargs and not _apart(kwargs.items(), tensors, rest)):
            return _computed(recorder, function, args, kwargs)
        types = [tensor._type for tensor in tensors]
        if call.cases and (memory := _memory(tensors)) is not None:
            for case in call.cases:
                found = case.whole.run(types, memory) if case.rest == rest else None
                if found is None:
                    continue
                (buffer, type), *checks = found
                if any(values_of(*check).any() for check in checks):
                    return _computed(recorder, function, args, kwargs)  # tells what is wrong
                FRONT.any_size += 1
                call.served += 1
                used(call.cases, case)
                if call.served > MANY and not recorder.calls.come_again:
                    _leave(recorder, place, call, case, (*args, *(part for pair in kwargs.items() for part in pair)))
                return from_buffer(buffer, type)
        return _shown(recorder, place, call, tensors, rest, function, args, kwargs)


def _leave(recorder: Recorder, place: Place, call: Call, case: Case, values: tuple[Any, ...]) -> None:
    """Let native code serve calls as the last, which was of a case, or leave them to Python."""
    changes = case.whole.changes
    if case.changes != changes:
        case.service = SERVE[0](case.whole, parts(values)) if SERVE else None
        case.changes, call.service, call.left = changes, chained(call.cases), False
    if not call.left or recorder.repeats.was_read():
        call.left = True
        recorder.repeats.leave(place, call.keep, call.service)


def compute_first(recorder: Recorder) -> bool:
    """Compute what is pending, unless that is done with what gradients want of the same step; whether it is done."""
    if any(map(has_history, recorder.pending)):
        return False
    if recorder.has_pending():
        recorder.flush("")
    return True


def _computed(
    recorder: Recorder, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    made = function(*args, **kwargs)
    recorder.compute_by_operators()
    return made


def _shown(
    recorder: Recorder,
    place: Place,
    call: Call,
    tensors: list[TensorBase],
    rest: list[object],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """What `function` gives, computed now. What it did is looked at, so that it may be compiled for any sizes."""
    if call.tries > MOST_TRIES or is_given_up(call.cases, rest, [tensor._type for tensor in tensors]):
        if call.service is None:
            call.left = False
            recorder.repeats.take_back(place)
        return _computed(recorder, function, args, kwargs)
    nodes = [read(recorder, tensor, False)[0] for tensor in tensors]
    before, first = _state(recorder, tensors), len(recorder.checks)
    made = function(*args, **kwargs)
    graph = _graph(recorder, made, nodes, first) if _state(recorder, tensors) == before else None
    recorder.compute_by_operators()
    if graph is None:
        call.tries += 1
        return made
    is_new, is_compiled = learn(call.cases, rest, graph, estimated(graph.nodes))
    call.tries = 0 if is_compiled else call.tries + is_new
    if call.tries > MOST_TRIES and not call.served:
        call.cases.clear()
    return made


def _state(recorder: Recorder, tensors: Iterable[TensorBase]) -> tuple[object, ...]:
    """What functions do not change that give nothing but results."""
    written = [(id(tensor._storage), tensor._storage.version, tensor._storage.value) for tensor in tensors]
    return written, recorder.turn, FRONT.flushes, WARNED[0]


def _graph(recorder: Recorder, made: Any, operands: list[Node], first: int) -> Graph | None:
    """How `made`, and behind it what was checked from the `first` check on, was recorded from the operands alone. None
    where it is more than one new tensor, or something is checked that does not tell by a number whether all is well.
    """
    if type(made) is not result_class() or made._chain or made._strides != made._type.strides:
        return None
    value = made._storage.value
    if value is None or value.grad or len(set(operands)) < len(operands):
        return None
    checks = recorder.checks[first:]
    if not all(isinstance(problem, Exception) and node.type.size == 1 for node, _, problem in checks):
        return None
    outputs = tuple(dict.fromkeys([value.node, *[node for node, _, _ in checks]]))
    order = [node for node in topological(outputs, operands.__contains__) if node not in operands]
    if not order or any(node.op == "input" for node in order) or value.node.type != made._type:
        return None
    return canonical(operands, outputs, order)[0]


def _apart(values: Iterable[Any], tensors: list[TensorBase], rest: list[object]) -> bool:
    """Add the tensors among arguments to `tensors`, what else they are to `rest`; whether that tells all of them."""
    for value in values:
        kind = value.__class__
        rest.append(kind)
        if isinstance(value, TensorBase):
            tensors.append(value)
        elif kind in _PLAIN:
            rest.append(value)
        elif kind is float:
            rest.append(value.hex())
        elif kind is tuple or kind is list:
            rest.append(len(value))
            if not _apart(value, tensors, rest):
                return False
        else:
            return False
    return True


def parts(values: Iterable[Any]) -> list[Any]:
    """Arguments and what they consist of, as native code goes through them."""
    found: list[Any] = []
    for value in values:
        found.append(value)
        if type(value) in (tuple, list, Size):
            found += parts(value)
        elif type(value) is slice:
            found += parts((value.start, value.stop, value.step))
    return found


def _memory(tensors: Iterable[TensorBase]) -> list[AnyBuffer | np.ndarray] | None:
    """Where the elements of computed tensors lie; None if some are not computed, or not on the CPU."""
    made: list[AnyBuffer | np.ndarray] = []
    for tensor in tensors:
        storage, type = tensor._storage, tensor._type
        if storage.value is not None or type.device != "cpu" or tensor._wrapped:
            return None
        buffer = storage.realise()
        made.append(seen(buffer, type, tensor._strides, tensor._offset) if tensor._chain else buffer)
    return made
