"""Which calls record the same whenever they are made at the same line, with the same nodes and other arguments.

Most calls in a loop are such: the table of `graphc.repeats` lets native code record them without running the function.
A call is entered after it was seen to make one new tensor of one recorded operation, out of nodes that were there
before, from all tensors that it was given, without a look at their values.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.counting import FRONT
from graphc.ir.node import Node
from graphc.recording import THREADS, Recorder
from graphc.repeats import ENTRY, FLOWS, KEY
from graphc.storage import TOUCHED, Binding, Value
from graphc.tensors.core import TensorBase, read, result_class

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


def operand(recorder: Recorder, tensor: TensorBase, grad: bool) -> tuple[Node, Value | Binding]:
    """`read`, for native code that finds no leaf or variable of a tensor that is no view."""
    return read(recorder, tensor, grad)


def _learned(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """`function(*args, **kwargs)`, after native code gave MISSED for it. If that lacked nothing but the entry, there
    may be one afterwards.
    """
    recorder = THREADS.recorder
    repeats = recorder.repeats
    wanted = repeats.wanted()
    if not wanted:
        return function(*args, **kwargs)
    key = repeats.key()
    code = ctypes.cast(key[0], ctypes.py_object).value
    before = (FRONT.records, FRONT.flushes, TOUCHED[0], len(recorder.b), len(recorder.checks), recorder.b)
    result = function(*args, **kwargs)
    after = (FRONT.records - 1, FRONT.flushes, TOUCHED[0], len(recorder.b), len(recorder.checks), recorder.b)
    if before != after or type(result) is not result_class() or not _is_plain(result, recorder):
        return result
    # Nothing is held while the function runs: what dies then gives numbers back that others get.
    tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, TensorBase)]
    keeps = [operand(recorder, tensor, bool(key[KEY.index("grad")] & FLOWS))[1] for tensor in tensors]
    value = result._storage.value
    assert value is not None
    which = _places(value.parents, keeps)
    if which is None:
        return result
    if which == sorted(which):
        ORDERS.setdefault(function, 0)
    elif not kwargs:
        order = [_place(args, tensors[place]) for place in which]
        ORDERS[function] = sum(place + 1 << 8 * at for at, place in enumerate(order))
    if wanted == ENTRY:
        others = [each for each in (*args, *kwargs.values()) if not isinstance(each, TensorBase)]
        repeats.add(key, _made(value, which), (code, function, value.name, *kwargs, *others))  # the builder keeps nodes
    return result


learned = _learned  # messages name the calls of users: they leave out functions whose names begin so


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


def _place(args: Sequence[object], tensor: TensorBase) -> int:
    return next(place for place, given in enumerate(args) if given is tensor)


def _places(parents: Sequence[object], keeps: Sequence[object]) -> list[int] | None:
    """Which of the arguments each parent is, if there are no others and all are among them."""
    places: dict[int, int] = {}
    for place, keep in enumerate(keeps):
        places.setdefault(id(keep), place)
    found = [places.get(id(parent), -1) for parent in parents]
    return found if -1 not in found and len(set(found)) == len(places) and len(found) <= _MOST_PARENTS else None


def _made(value: Value, which: Sequence[int]) -> dict[str, int]:
    type = value.node.type
    return {
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
        and value.through is value.gate is value.fn is value.leaf is value.binding is None
        and not (value.saved or value.freed)
        and storage.origin is storage.export is storage.external is None
    )
