"""What native code finds a compiled function by."""

from __future__ import annotations


class Ready:
    """A compiled function. `_ready` is what replays its calls: the address of a plan, and what that needs; None when
    there is nothing.
    """

    __slots__ = ("_ready",)

    _ready: tuple[object, ...] | None
