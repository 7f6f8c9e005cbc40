"""Which calls record the same whenever they are made at the same line, with the same nodes and other arguments.

Most calls in a loop are such: the table of `graphc.repeats` lets native code record them without running the function.
A call is entered after it was seen to make one new tensor of one recorded operation, out of nodes that were there
before, from all tensors that it was given, without a look at their values.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphc.counting import FRONT
from graphc.errors import GraphcError
from graphc.ir.node import Node
from graphc.naming import unnamed
from graphc.recording import THREADS, Check, Recorder
from graphc.repeats import ENTRY, FLOWS, KEY, KEY_WORDS, MADE, OTHERWISE, RECORDED, SAME, SEVERAL, SHOWN, VIEW
from graphc.source import user_location
from graphc.storage import TOUCHED, Binding, Value
from graphc.tensors.core import TensorBase, read, result_class
from graphc.tensors.size import Size
from graphc.warned import WARNED

_MOST_PARENTS = 8


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
# Functions that gave a view, or the tensor itself.
VIEWS: dict[Callable[..., Any], bool] = {}


def operand(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Value | Binding]:
    """`read`, for native code that finds no leaf or variable of a tensor."""
    recorder.b.locs = user_location(2)
    return read(recorder, tensor, grad)


@unnamed
def learned(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)`, after native code gave MISSED for it. If that lacked nothing but the entry, there
    may be one afterwards.
    """
    recorder = THREADS.recorder
    repeats = recorder.repeats
    wanted = repeats.wanted()
    if not wanted:
        return function(*args, **kwargs)
    key = repeats.key()
    code = None if wanted == VIEW else ctypes.cast(key[0], ctypes.py_object).value
    given = _parts((*args, *(part for pair in kwargs.items() for part in pair)))
    tensors = [each for each in given if isinstance(each, TensorBase)]
    about = [_about(tensor) for tensor in tensors]
    before, checks, warned = _state(recorder), len(recorder.checks), WARNED[0]
    result = function(*args, **kwargs)
    after = _state(recorder)
    made, kept = None, None
    if warned == WARNED[0] and before == after and checks == len(recorder.checks):
        if about == [_about(tensor) for tensor in tensors]:
            made, kept = _views(result, given)
        if made is not None:
            VIEWS.setdefault(function, True)
    if wanted == VIEW:
        others = _constants(given)
        repeats.add(key, made or {"kind": OTHERWISE}, (function, [each[1:5] for each in about], others, kept))
        return result
    if type(result) is not result_class() or warned != WARNED[0]:
        return result
    if (after[0] - 1, *after[1:]) != before:
        return result
    flows = bool(key[KEY.index("grad")] & FLOWS)
    with recorder.lock:
        seen, recorder.seen = recorder.seen, []  # what reads views adds to it
        # Nothing is held while the function runs: what dies then gives numbers back that others get.
        operands = [operand(recorder, tensor, flows) for tensor in tensors]
        recorder.seen = seen
    keeps = [keep for _, keep in operands]
    value = result._storage.value
    if value is None or not _is_plain(result, recorder):
        return result
    which = _places(value.parents, keeps)
    through, checked = _through(value, keeps), _checked(recorder.checks[checks:], keeps)
    if which is None or through is None or checked is None:
        return result
    if which == sorted(which):
        ORDERS.setdefault(function, 0)
    elif not kwargs:
        order = [next(at for at, part in enumerate(given) if part is tensors[place]) for place in which]
        ORDERS[function] = sum(place + 1 << 8 * at for at, place in enumerate(order))
    if wanted == ENTRY:
        words = set(key)
        if any(id(node) not in words and id(keep.node) not in words for node, keep in operands):
            return result  # an operand was computed while the key was made, after which leaves got other numbers
        others = _constants(given)
        chains = [tensor._chain for tensor in tensors]
        keep = (code, function, value.name, through, checked, chains, others)  # the builder keeps nodes
        repeats.add(key, _made(value, which, through, checked), keep)
    return result


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


def _parts(values: Iterable[Any]) -> list[Any]:
    """Arguments and what they consist of, as native code goes through them."""
    found: list[Any] = []
    for value in values:
        found.append(value)
        if type(value) in (tuple, list, Size):
            found += _parts(value)
        elif type(value) is slice:
            found += _parts((value.start, value.stop, value.step))
    return found


def _constants(given: Iterable[Any]) -> list[Any]:
    """The parts whose addresses are in a key: not tensors, nor what holds tensors, which must not live on."""
    return [part for part in given if not isinstance(part, (TensorBase, list, tuple, slice))]


def _state(recorder: Recorder) -> tuple[int, int, int, int, object]:
    """What recording changes, but for checks of values; how much is recorded comes first."""
    return FRONT.records, FRONT.flushes, TOUCHED[0], len(recorder.b), recorder.b


def _about(tensor: TensorBase) -> tuple[object, ...]:
    """What a function may change of a tensor without recording anything."""
    lineage = tensor._lineage
    return (
        *(tensor._storage, type(tensor), tensor._type, tensor._strides, tensor._chain, tensor._offset, lineage),
        *(tensor._counter, tensor._root, tensor._grad, tensor._retains, tensor._fn, tensor._wrapped),
        *(lineage.requires_grad, lineage.hist, lineage.depth, lineage.version, lineage.owner, lineage.hooks),
    )


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


def _through(value: Value, keeps: Sequence[object]) -> tuple[object, ...] | int | None:
    """Through which views of the operands a value was made: 0 for none, None when they are not told apart."""
    if value.through is None:
        return 0
    nodes, seen = value.through
    views = [([place for place, keep in enumerate(keeps) if keep is view.keep], view) for view in seen]
    if not all(places for places, _ in views):
        return None
    return nodes, tuple((places[0], view.node, view.names) for places, view in views)


def _checked(checks: Sequence[Check], keeps: Sequence[object]) -> tuple[object, ...] | int | None:
    """The checks of values that were added: 0 for none, None when they cannot be made again."""
    found: list[tuple[Node, int, object]] = []
    for node, value, problem in checks:
        plain = value.node is node and len(value.parents) == 1 and not (value.grad or value.name)
        places = [place for place, keep in enumerate(keeps) if plain and keep is value.parents[0]]
        if not places or not isinstance(problem, GraphcError):
            return None
        found.append((node, places[0], problem))
    return tuple(found) or 0


def _places(parents: Sequence[object], keeps: Sequence[object]) -> list[int] | None:
    """Which of the arguments each parent is, if there are no others and all are among them."""
    places: dict[int, int] = {}
    for place, keep in enumerate(keeps):
        places.setdefault(id(keep), place)
    found = [places.get(id(parent), -1) for parent in parents]
    return found if -1 not in found and len(set(found)) == len(places) and len(found) <= _MOST_PARENTS else None


def _made(value: Value, which: Sequence[int], through: object, checked: object) -> dict[str, int]:
    type = value.node.type
    return {
        "kind": RECORDED,
        "through": id(through) if through else 0,
        "checks": id(checked) if checked else 0,
        "node": id(value.node),
        "type": id(type),
        "strides": id(type.strides),
        "name": id(value.name),
        "nbytes": type.nbytes,
        "flows": int(value.grad),
        "parents": len(which),
        "which": sum(place << 8 * at for at, place in enumerate(which)),
    }


def _is_plain(made: TensorBase, recorder: Recorder) -> bool:
    """Whether a tensor is nothing but the result of one operation, as native code makes it."""
    storage, lineage = made._storage, made._lineage
    value = storage.value
    if value is None or storage.recorder is not recorder or made._chain or made._wrapped or made._retains:
        return False
    return (
        lineage.hist is (value if value.grad else None)
        and made._type is value.node.type
        and made._strides is made._type.strides
        and not (lineage.requires_grad or lineage.depth or lineage.version or storage.version)
        and lineage.hooks is lineage.owner is lineage.variable is None
        and value.gate is value.fn is value.leaf is value.binding is None
        and not (value.saved or value.freed)
        and storage.origin is storage.export is storage.external is None
    )
