"""Calls that take one place of a tensor after the other: a program for each would be compiled.

What a call takes of few places in turn is recorded as it is, and the same programs run again.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import CodeType

from graphc.source import call_site, is_inside

MOST_CALLS = 4096

# What each call took. By the identity of the code object, which is kept: comparing and hashing them is slow.
_taken: dict[Hashable, tuple[CodeType, set[Hashable]]] = {}
MOVING: set[Hashable] = set()  # calls that took more than enough, for native code: code object, instruction, what


def moves(what: Hashable, place: Hashable, most: int, users_only: bool = False) -> bool:
    """Whether the call that reached an operator took more than `most` places, with this one, for `what`.

    `users_only`: calls of this package mean the same number for the same parameter, and do not count.
    """
    code, at = call_site(2)
    if users_only and is_inside(code):
        return False
    if len(_taken) > MOST_CALLS:
        _taken.clear()
        MOVING.clear()
    _, seen = _taken.setdefault((id(code), at, what), (code, set()))
    if len(seen) > most:
        return True
    seen.add(place)
    if len(seen) <= most:
        return False
    MOVING.add((id(code), at, what))
    return True
