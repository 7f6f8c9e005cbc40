"""Where Python keeps the slots of objects, found by looking: an object is made, a slot is set, and its words are read.

Nothing here is assumed about a version of Python: where something does not look as expected, native replays are not
used.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from types import FunctionType, MemberDescriptorType
from typing import Any, ClassVar

WORD = 8
_OBJECT_MEMBERS = (6, 16)  # T_OBJECT and T_OBJECT_EX of Python's structmember.h


class UnknownLayout(Exception):
    """Objects of this Python do not lie in memory as native replays can handle them."""


class _Nobody:
    """What a finalizer finds in a made object: a recorder without leaves, a block that nobody wants back."""

    bound: ClassVar[dict[None, None]] = {}
    owner: ClassVar[bool] = True
    others: ClassVar[None] = None


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
    for name, value in (
        ("value", None),
        ("_memory", None),
        ("_block", _Nobody),
        ("recorder", _Nobody),
        ("node", None),
        ("index", -1),
    ):
        if isinstance(getattr(cls, name, None), MemberDescriptorType):
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


@cache
def _fields_of_functions() -> dict[str, int]:
    """Offsets in bytes of what may be replaced of a function."""

    def probe(first: object = _words, *, second: object = _words) -> None:
        """It is not called."""

    words = _words(probe, FunctionType.__basicsize__ // WORD)
    found = {"__code__": probe.__code__, "__defaults__": probe.__defaults__, "__kwdefaults__": probe.__kwdefaults__}
    if any(words.count(id(value)) != 1 for value in found.values()):
        raise UnknownLayout("a function does not hold its parts")
    return {name: words.index(id(value)) * WORD for name, value in found.items()}


def field_of(holder: object, name: str) -> int:
    """The address of the word in which an object has what its attribute `name` gives: a slot, what may be replaced of a
    function, or the class. UnknownLayout for other attributes.
    """
    if name == "__class__":
        return id(holder) + head()[1]
    if type(holder) is FunctionType:
        return id(holder) + _fields_of_functions()[name]
    descriptor = next((vars(cls)[name] for cls in type(holder).__mro__ if name in vars(cls)), None)
    if isinstance(descriptor, MemberDescriptorType):
        # The class, the name and the qualified name follow the head; then comes where the member is described: by its
        # name, kind and offset.
        _, _, owner, own_name, _, member = _words(descriptor, 6)
        if owner == id(descriptor.__objclass__) and own_name == id(descriptor.__name__):
            text, kind, offset = (ctypes.c_uint64 * 3).from_address(member)
            if ctypes.string_at(text) == descriptor.__name__.encode() and kind & 0xFFFFFFFF in _OBJECT_MEMBERS:
                return id(holder) + offset
    raise UnknownLayout(f"{type(holder).__name__}.{name} is not a slot")


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
