"""Leaves that calls make themselves, besides those of their operands: Python numbers that are others each time, and the
keys of random draws.

Native code makes them again where it is told which ones a call makes: those at the same place in the code with numbers
among their arguments that are read at run time, and as many draws of the default generator.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.ir.types import TensorType, f32, f64, i32, i64
from graphc.naming import unnamed
from graphc.random import default_generator
from graphc.recording import Recorder
from graphc.repeats import DRAWN
from graphc.storage import Binding

_DTYPES = (f32, f64, i32, i64)  # of numbers that native code writes

Leaf = tuple[int, TensorType]  # the place of a number among the parts of the arguments, or DRAWN, and its type
Own = Sequence[tuple[object, Binding]]

# Where native code finds what it needs to make such leaves, and what must be kept for that; empty where there is none.
OWN: list[Callable[[Sequence[Leaf]], tuple[int, object]]] = []


@unnamed
def with_own(
    recorder: Recorder, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, Own]:
    """What a call gives, and the leaves that it made, with the numbers or generators that they are for."""
    outer, leaves = recorder.own, []
    recorder.own = leaves
    try:
        return function(*args, **kwargs), leaves
    finally:
        recorder.own = outer
        if outer is not None:
            outer += leaves


def has_own(
    recorder: Recorder,
    function: Callable[..., Any],
    leaves: Own,
    given: Sequence[object],
    own: Sequence[int],
    call: tuple[int, ...],
) -> bool:
    """Whether native code had made the leaves that the call made: `own`, by their nodes. If not, it will make such ones
    for later calls. `given` are the parts of the arguments, `call` is what it is known by (`Repeats.call`).
    """
    if [id(leaf.node) for _, leaf in leaves] == own:
        return True
    told = [_told(number, leaf, given) for number, leaf in leaves]
    places = [leaf[0] for leaf in told if leaf is not None and leaf[0] != DRAWN]
    numbers = {place: given[place] for place in places}
    if OWN and None not in told and len(numbers) == len(places) and recorder.repeats.may_own(call, numbers):
        address, keep = OWN[0]([leaf for leaf in told if leaf is not None])
        code = ctypes.cast(call[0], ctypes.py_object).value
        recorder.repeats.give_own(call, address, (code, function, keep))
    return False


def _told(number: object, leaf: Binding, given: Sequence[object]) -> Leaf | None:
    """What native code must know of a leaf; None if it cannot make such ones."""
    type = leaf.node.type
    if number is default_generator:
        return DRAWN, type
    places = [place for place, part in enumerate(given) if part is number]
    if len(places) != 1 or number.__class__ not in (int, float) or type.dtype not in _DTYPES:
        return None
    return places[0], type
