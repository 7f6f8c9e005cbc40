"""Where Python keeps the slots of objects, found by looking: an object is made, a slot is set, and its words are read.

Nothing here is assumed about a version of Python: where something does not look as expected, native replays are not
used.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from types import MemberDescriptorType
from typing import Any, ClassVar

WORD = 8


class UnknownLayout(Exception):
    """Objects of this Python do not lie in memory as native replays can handle them."""


class _Nobody:
    bound: ClassVar[dict[None, None]] = {}


def _words(value: object, count: int) -> list[int]:
    return list((ctypes.c_uint64 * count).from_address(id(value)))


@cache
def slots_of(cls: type) -> dict[str, int]:
    """Offsets in bytes of the slots of the objects of `cls`, by name."""
    found: dict[str, int] = {}
    count = cls.__basicsize__ // WORD
    for base in cls.__mro__:
        for name, descriptor in vars(base).items():
            if not isinstance(descriptor, MemberDescriptorType) or name in found:
                continue
            made, mark = object.__new__(cls), object()
            before = _words(made, count)
            descriptor.__set__(made, mark)
            after = _words(made, count)
            places = [place for place in range(count) if after[place] == id(mark) and before[place] == 0]
            if len(places) != 1:
                raise UnknownLayout(f"{cls.__name__}.{name} is not one word")
            found[name] = places[0] * WORD
            _clear(made, cls)
    return found


def _clear(made: object, cls: type) -> None:
    """Give an object what its finalizer wants to see."""
    for name, value in (("value", None), ("_memory", None), ("recorder", _Nobody), ("node", None), ("index", -1)):
        if isinstance(vars(cls).get(name), MemberDescriptorType):
            setattr(made, name, value)


@cache
def head() -> tuple[int, int]:
    """Offsets of the number of references (its lower 32 bits) and of the type of every object."""
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != WORD or not hasattr(sys, "getrefcount"):
        raise UnknownLayout("this machine orders bytes otherwise")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise UnknownLayout("this Python runs threads without a common lock")

    class Probe:
        __slots__ = ("held",)

    probe = Probe()
    count = Probe.__basicsize__ // WORD
    types = [place for place, word in enumerate(_words(probe, count)) if word == id(Probe)]
    first = _words(probe, count)
    held = [probe] * 7
    second = _words(probe, count)
    grown = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if (b - a) & 0xFFFFFFFF == 7]
    del held
    third = _words(probe, count)
    if types != [1] or grown != [0] or third != first or first[0] & 0xFFFFFFFF > 8:
        raise UnknownLayout("objects do not begin with the number of references and the type")
    return 0, types[0] * WORD


def parts_of_slice() -> tuple[int, int, int]:
    """Offsets in bytes of start, stop and step of a slice."""
    parts = object(), object(), object()
    words = _words(slice(*parts), slice.__basicsize__ // WORD)
    if any(words.count(id(part)) != 1 for part in parts):
        raise UnknownLayout("a slice does not hold its parts")
    first, second, third = (words.index(id(part)) * WORD for part in parts)
    return first, second, third


def address_of(name: str) -> int:
    """The address of a function of Python's C interface."""
    function: Any = getattr(ctypes.pythonapi, name)
    return ctypes.cast(function, ctypes.c_void_p).value or 0
