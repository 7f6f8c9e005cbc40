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
from graphc.tensors.owning import has_own, with_own
from graphc.tensors.recipes import Before, about, held, rewritten, trace
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
    code = None if wanted == VIEW else ctypes.cast(key[0], ctypes.py_object).value
    given = parts((*args, *(part for pair in kwargs.items() for part in pair)))
    places = [place for place, each in enumerate(given) if isinstance(each, TensorBase)]
    tensors = [given[place] for place in places]
    seen = Before(tensors, places, list(map(about, tensors)), list(map(held, tensors)), next_serial())
    linked = [bool(t._chain or t._lineage.requires_grad or t._lineage.hist is not None) for t in tensors]
    before, checks, warned = _state(recorder), len(recorder.checks), WARNED[0]
    result, leaves = with_own(recorder, function, args, kwargs)
    after = _state(recorder)
    made, kept = None, None
    if warned == WARNED[0] and before == after and checks == len(recorder.checks):
        if seen.about == [about(tensor) for tensor in tensors]:
            made, kept = _views(result, given)
        if made is not None:
            VIEWS.setdefault(function, True)
            _NO_VIEWS.pop(function, None)
    if wanted == VIEW:
        if made is None:
            _NO_VIEWS[function] = count = _NO_VIEWS.get(function, 0) + 1
            if count > _MOST_NO_VIEWS:
                VIEWS.pop(function, None)
        others = _constants(given)
        repeats.add(key, made or {"kind": OTHERWISE}, (function, [each[1:5] for each in seen.about], others, kept))
        return result
    count, nbytes, writes = (now - was for now, was in zip(after[0], before[0], strict=True))
    if warned != WARNED[0] or after[1:] != before[1:] or count < 1 or nbytes < 0 or writes not in (0, 1):
        return result
    apart = rewritten(seen) if writes else set()
    if bool(apart) != bool(writes):
        return result
    flows = bool(key[KEY.index("grad")] & FLOWS)
    if any(_is_left(recorder, tensor, flows) for tensor in tensors):
        return result
    bits = [
        1 << place + ARGUMENTS * is_linked if place < ARGUMENTS else 0
        for place, is_linked in zip(places, linked, strict=True)
    ]
    hidden, here = UNREAD.get(function, 0), sum(bits)
    # A call may read what other calls do not, as a join leaves out empty vectors.
    for unread in (hidden, 0) if hidden & here else (0,):
        left = [number in apart or bool(unread & bit) for number, bit in enumerate(bits)]
        operands = _operands(recorder, tensors, left, flows)
        keeps = [*[pair[1] if pair is not None else None for pair in operands], *[leaf for _, leaf in leaves]]
        traced = trace(seen, result, recorder, recorder.checks[checks:], keeps, apart, (count, nbytes))
        if traced is not None:
            break
    else:
        repeats.note_hopeless(key)
        return result
    same = {id(keeps[number]) for number in traced.read}
    reads = [
        number in traced.read or (keep is not None and id(keep) in same) or (number in apart and traced.reads_memory)
        for number, keep in enumerate(keeps[: len(tensors)])
    ]
    unread = sum(bit for bit, read in zip(bits, reads, strict=True) if not read)
    _READ[function] = seen_read = _READ.get(function, 0) | here & ~unread
    if unread != hidden & here:
        UNREAD[function] = now_hidden = (hidden | unread) & ~seen_read
        if now_hidden == hidden:  # else the next call has another key
            repeats.note_hopeless(key)
        return result
    read = [number for number in traced.read if number < len(tensors)]
    if read == sorted(read):
        ORDERS.setdefault(function, 0)
    elif not kwargs and len(read) < 8:
        ORDERS[function] = _order([places[number] for number in read])
    if wanted == ENTRY:
        if not has_own(recorder, function, leaves, given, own, place):
            repeats.note_hopeless(key)
            return result
        words = set(key)
        lost = any(id(pair[0]) not in words and id(pair[1].node) not in words for pair in operands if pair is not None)
        if lost or any(id(node) not in words for node in traced.nodes):
            return result  # an operand was computed while the key was made, after which leaves got other numbers
        others = _constants(given)
        shown = [each[1:5] for each in seen.about]
        repeats.add(key, traced.made, (code, function, shown, others, traced.keep))  # the builder keeps nodes
    return result


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
