"""Which calls record the same whenever they are made at the same line, with the same nodes and other arguments.

Most calls in a loop are such: the table of `graphc.repeats` lets native code record them without running the function.
A call is entered after it was seen to make new tensors of recorded operations, or to write one tensor in place, out of
nodes that were there before and of tensors that it was given, without a look at their values.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphc.counting import FRONT
from graphc.ir.node import Node
from graphc.naming import unnamed
from graphc.recording import THREADS, Recorder
from graphc.repeats import ARGUMENTS, ENTRY, FLOWS, KEY, KEY_WORDS, MADE, OTHERWISE, SAME, SEVERAL, SHOWN, VIEW
from graphc.source import user_location
from graphc.storage import TOUCHED, Binding, Value, next_serial
from graphc.tensors.changing import AT_ONCE, NEW, at_once, call_of, kind_of, parts
from graphc.tensors.core import TensorBase, lends, read, result_class
from graphc.tensors.kinds import call_checked
from graphc.tensors.owning import Own, has_own, with_own
from graphc.tensors.recipes import Before, Traced, about, held, rewritten, trace
from graphc.tensors.variables import runs_pending
from graphc.warned import WARNED


class _LeftToPython(Exception):
    """Native code cannot read an operand."""


class _Missed:
    """What native code gives for a call that Python must make."""

    def __repr__(self) -> str:
        return "MISSED"


MISSED = _Missed()


def _plainly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Stands for native code where there is none."""
    return MISSED


Again = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]
AGAIN: list[Again] = [_plainly]  # what records a call again, or gives MISSED


# In which order functions read their tensors, which decides about the numbers of new leaves: 0 is that of the
# arguments, else the places of the arguments from 1 on, a byte each.
ORDERS: dict[Callable[..., Any], int] = {}
# Which parts of the arguments are tensors that functions do not read, a bit each: from ARGUMENTS on for views and for
# what requires gradients, as writing reads the memory of the one and the history of the other.
UNREAD: dict[Callable[..., Any], int] = {}
# Which they were seen to read, and are never taken for unread again: `x[0] = v` reads `x`, and `x[:] = v` does not.
_READ: dict[Callable[..., Any], int] = {}
# Functions that gave a view, or the tensor itself; and how many new calls of them since then did not. After some of
# these they are taken for functions that do not.
VIEWS: dict[Callable[..., Any], bool] = {}
_NO_VIEWS: dict[Callable[..., Any], int] = {}
_MOST_NO_VIEWS = 16


def reads(*places: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Say the order in which a function reads tensors among its arguments, where that is not theirs: a call without the
    last of them would tell another one.
    """

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        ORDERS[function] = _order(places)
        return function

    return told


def _order(places: Sequence[int]) -> int:
    return sum(place + 1 << 8 * at for at, place in enumerate(places))


def operand(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Value | Binding]:
    """`read`, for native code that finds no leaf or variable of a tensor. It leaves to Python what `read_now` reads
    where it lies, and what runs pending work: operands that were read before were computed then, and the call may raise
    an error before it reads anything.
    """
    if _is_left(recorder, tensor, grad):
        raise _LeftToPython
    recorder.b.locs = user_location(2)
    recorder.width = recorder.repeats.given
    return read(recorder, tensor, grad)


def _is_left(recorder: Recorder, tensor: TensorBase, grad: bool) -> bool:
    return runs_pending(recorder, tensor, grad) or (not grad and lends(recorder, tensor))


@unnamed
def learned(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)`, after native code gave MISSED for it. If that lacked nothing but the entry, there
    may be one afterwards. KindError where an argument is not of the kind that `function` wants.
    """
    return call_checked(_observed, function, args, kwargs)


def _observed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    recorder = THREADS.recorder
    repeats = recorder.repeats
    wanted = repeats.wanted()
    if not wanted:
        return function(*args, **kwargs)
    place = repeats.call()
    if wanted != VIEW:
        call = call_of(recorder, place, function)
        kind = kind_of(recorder, place, call, args, kwargs)
        if kind == AT_ONCE:
            return at_once(recorder, place, call, function, args, kwargs)
        recorder.is_new |= kind == NEW
        if kind == NEW:
            return function(*args, **kwargs)  # it likely is not made again
    key = repeats.key()
    own = repeats.own(key)
    if not repeats.comes_again(key) if wanted == VIEW else wanted == ENTRY and repeats.is_hopeless(key):
        return function(*args, **kwargs)
    if recorder.apart.is_now and wanted == ENTRY and not repeats.was_met(key):
        return function(*args, **kwargs)  # steps have ever other operands: few calls are made again
    seen = _Seen(recorder, place, key, function, args, kwargs)
    result, leaves = with_own(recorder, function, args, kwargs)
    view, kept = seen.views(result)
    if wanted == VIEW:
        seen.enter_view(view, kept)
    else:
        seen.enter(result, leaves, own if wanted == ENTRY else None)
    return result


class _Seen:
    """A call, as it was before it was made, and afterwards what it did: whether an entry tells how to repeat it."""

    def __init__(
        self,
        recorder: Recorder,
        place: tuple[int, ...],
        key: list[int],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._recorder, self._place, self._key, self._function = recorder, place, key, function
        self._is_named = bool(kwargs)
        self._given = parts((*args, *(part for pair in kwargs.items() for part in pair)))
        places = [place for place, each in enumerate(self._given) if isinstance(each, TensorBase)]
        tensors = [self._given[place] for place in places]
        self._tensors = Before(tensors, places, list(map(about, tensors)), list(map(held, tensors)), next_serial())
        self._bits = [_bit(place, tensor) for place, tensor in zip(places, tensors, strict=True)]
        self._checks, self._warned = len(recorder.checks), WARNED[0]
        self._state = _state(recorder)

    def views(self, result: Any) -> tuple[dict[str, int] | None, object]:
        """How native code makes what the call gave, if that is a view or views and nothing was recorded, and what must
        be kept for it.
        """
        recorder, before = self._recorder, self._tensors
        if self._warned != WARNED[0] or self._state != _state(recorder) or self._checks != len(recorder.checks):
            return None, None
        if before.about != [about(tensor) for tensor in before.tensors]:
            return None, None
        made, kept = _views(result, self._given)
        if made is not None:
            VIEWS.setdefault(self._function, True)
            _NO_VIEWS.pop(self._function, None)
        return made, kept

    def enter_view(self, made: dict[str, int] | None, kept: object) -> None:
        """Let native code make the view again, or know that there is none."""
        if made is None:
            _NO_VIEWS[self._function] = count = _NO_VIEWS.get(self._function, 0) + 1
            if count > _MOST_NO_VIEWS:
                VIEWS.pop(self._function, None)
        self._add(made or {"kind": OTHERWISE}, kept)

    def enter(self, result: Any, leaves: Own, own: list[int] | None) -> None:
        """Learn in which order the operands are read, and let native code record the call again. It made the nodes
        `own` for leaves of the call; None if it does not want to know.
        """
        recorder, key, tensors = self._recorder, self._key, self._tensors.tensors
        before, after = self._state, _state(recorder)
        count, nbytes, writes = (now - was for now, was in zip(after[0], before[0], strict=True))
        if self._warned != WARNED[0] or after[1:] != before[1:] or count < 1 or nbytes < 0 or writes not in (0, 1):
            return
        apart = rewritten(self._tensors) if writes else set[int]()
        if bool(apart) != bool(writes):
            return
        flows = bool(key[KEY.index("grad")] & FLOWS)
        if any(_is_left(recorder, tensor, flows) for tensor in tensors):
            return
        hidden, here = UNREAD.get(self._function, 0), sum(self._bits)
        # A call may read what other calls do not, as a join leaves out empty vectors.
        for unread in (hidden, 0) if hidden & here else (0,):
            left = [number in apart or bool(unread & bit) for number, bit in enumerate(self._bits)]
            operands = _operands(recorder, tensors, left, flows)
            keeps = [*[pair[1] if pair is not None else None for pair in operands], *[leaf for _, leaf in leaves]]
            checks = recorder.checks[self._checks :]
            traced = trace(self._tensors, result, recorder, checks, keeps, apart, (count, nbytes))
            if traced is not None:
                break
        else:
            recorder.repeats.note_hopeless(key)
            return
        if not self._learn_order(traced, keeps, apart) or own is None:
            return
        if has_own(recorder, self._function, leaves, self._given, own, self._place):
            self._add_entry(traced, operands)
        else:
            recorder.repeats.note_hopeless(key)

    def _learn_order(self, traced: Traced, keeps: Sequence[object], apart: set[int]) -> bool:
        """Note which operands the function reads, and in which order; whether that was known when the key was made."""
        function, bits = self._function, self._bits
        hidden, here = UNREAD.get(function, 0), sum(bits)
        same = {id(keeps[number]) for number in traced.read}
        reads = [
            number in traced.read
            or (keep is not None and id(keep) in same)
            or (number in apart and traced.reads_memory)
            for number, keep in enumerate(keeps[: len(bits)])
        ]
        unread = sum(bit for bit, read in zip(bits, reads, strict=True) if not read)
        _READ[function] = seen_read = _READ.get(function, 0) | here & ~unread
        if unread != hidden & here:
            UNREAD[function] = now_hidden = (hidden | unread) & ~seen_read
            if now_hidden == hidden:  # else the next call has another key
                self._recorder.repeats.note_hopeless(self._key)
            return False
        read = [number for number in traced.read if number < len(bits)]
        if read == sorted(read):
            ORDERS.setdefault(function, 0)
        elif not self._is_named and len(read) < 8:
            ORDERS[function] = _order([self._tensors.places[number] for number in read])
        return True

    def _add_entry(self, traced: Traced, operands: Sequence[tuple[Node, Value | Binding] | None]) -> None:
        """Let native code record the call again."""
        words = set(self._key)
        lost = any(id(pair[0]) not in words and id(pair[1].node) not in words for pair in operands if pair is not None)
        if lost or any(id(node) not in words for node in traced.nodes):
            return  # an operand was computed while the key was made, after which leaves got other numbers
        code = ctypes.cast(self._key[0], ctypes.py_object).value
        self._add(traced.made, (code, traced.keep))  # the builder keeps nodes

    def _add(self, made: Mapping[str, int], keep: object) -> None:
        """Enter how the call is repeated; what the entry has the addresses of is kept with it."""
        shown = [each[1:5] for each in self._tensors.about]
        self._recorder.repeats.add(self._key, made, (self._function, shown, _constants(self._given), keep))


def _bit(place: int, tensor: TensorBase) -> int:
    """What stands in `UNREAD` for a tensor among the arguments."""
    is_linked = tensor._chain or tensor._lineage.requires_grad or tensor._lineage.hist is not None
    return 1 << place + ARGUMENTS * bool(is_linked) if place < ARGUMENTS else 0


def _operands(
    recorder: Recorder, tensors: Sequence[TensorBase], left: Sequence[bool], flows: bool
) -> list[tuple[Node, Value | Binding] | None]:
    """What native code reads of the tensors after a call, but for those that are left out. Nothing is held while the
    function runs: what dies then gives numbers back that others get.
    """
    with recorder.lock:
        through, recorder.seen = recorder.seen, []  # what reads views adds to it
        try:
            return [None if out else operand(recorder, t, flows) for out, t in zip(left, tensors, strict=True)]
        finally:
            recorder.seen = through


def repeatable(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, of which a call may be recorded again in native code."""

    @functools.wraps(function)
    def _repeatable(*args: Any, **kwargs: Any) -> Any:
        made = AGAIN[0](function, args, kwargs)
        return learned(function, args, kwargs) if made is MISSED else made

    return _repeatable


def learning(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method`, as it is called after native code could not do it."""

    def otherwise(*operands: Any) -> Any:
        return learned(method, operands, {})

    return otherwise


def _constants(given: Iterable[Any]) -> list[Any]:
    """The parts whose addresses are in a key: not tensors, nor what holds tensors, which must not live on."""
    return [part for part in given if not isinstance(part, (TensorBase, list, tuple, slice))]


def _state(recorder: Recorder) -> tuple[tuple[int, int, int], int, int, object]:
    """What recording changes, but for checks of values: first how much is recorded, how often memory was touched."""
    return (FRONT.records, recorder._bytes, TOUCHED[0]), FRONT.flushes, len(recorder.b), recorder.b


def _fields(made: TensorBase) -> tuple[object, ...]:
    """What an entry of a view points to."""
    return made._type, made._chain, made._strides, made._offset, made._lineage.depth


def _views(result: Any, given: Sequence[Any]) -> tuple[dict[str, int] | None, object]:
    """How native code makes the view or views that a function gave, or None, and what must be kept for that."""
    if isinstance(result, TensorBase):
        return _view(result, given), _fields(result)
    if type(result) is not tuple or not result or not all(isinstance(one, TensorBase) for one in result):
        return None, None
    found = [view for one in result if (view := _view(one, given)) is not None]
    if len(found) != len(result) or any(v["kind"] != SHOWN or v["which"] != found[0]["which"] for v in found):
        return None, None
    words = [one.get(name, 0) for one in found for name in MADE]
    memory = (ctypes.c_uint64 * len(words))(*words)
    views = ctypes.addressof(memory) - 8 * KEY_WORDS
    made = {"kind": SEVERAL, "which": found[0]["which"], "views": views, "several": len(found)}
    return made, (memory, [_fields(one) for one in result])


def _view(made: Any, given: Sequence[Any]) -> dict[str, int] | None:
    """How native code makes a view, or gives the tensor itself; None when it cannot, or when it may be the view of
    several tensors.
    """
    same = [place for place, part in enumerate(given) if part is made]
    if same:
        return {"kind": SAME, "which": same[0]} if len(same) == 1 else None
    sources = [place for place, part in enumerate(given) if isinstance(part, TensorBase) and _shows(made, part)]
    if len(sources) != 1:
        return None
    lineage = made._lineage
    return {
        "kind": SHOWN,
        "type": id(made._type),
        "strides": id(made._strides),
        "chain": id(made._chain),
        "offset": id(made._offset),
        "which": sources[0],
        "apart": int(lineage is not given[sources[0]]._lineage),
        "depth": id(lineage.depth),
    }


def _shows(made: TensorBase, source: TensorBase) -> bool:
    """Whether a tensor is nothing but a view of another."""
    root: Any = source if source._root is None else source._root
    steps, lineage = source._chain, made._lineage
    return (
        type(made) is result_class()
        and made._storage is source._storage
        and made._counter is source._counter
        and made._root is root
        and len(made._chain) > len(steps)
        and all(a is b for a, b in zip(made._chain, steps, strict=False))
        and made._grad is made._fn is None
        and not (made._retains or made._wrapped)
        and (
            lineage is source._lineage
            or (
                lineage.hist is lineage.owner is lineage.variable is lineage.hooks is None
                and lineage.depth == len(made._chain)
                and lineage.requires_grad is root.requires_grad
                and lineage.version == source._storage.version
            )
        )
    )
