"""What several programs have in common is kept: a network that runs at many shapes has kernels that depend on none of
them, such as the update of its parameters.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MARKS = 1 << 16

V = TypeVar("V")


class Recurring(Generic[V]):
    """Values by key. The first program that makes one leaves a mark only, so that a process with one program keeps
    nothing; what a second one makes is kept for those that follow, up to a sum of `room`. Safe from several threads.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._marks: OrderedDict[int, None] = OrderedDict()
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._taken = 0

    def find(self, key: Hashable) -> tuple[V | None, bool]:
        """The value that is kept, and if there is none whether the one that is made now should be."""
        mark = hash(key)
        with self._lock:
            held = self._kept.get(key)
            if held is not None:
                self._kept.move_to_end(key)
                return held[0], False
            known = mark in self._marks
            self._marks[mark] = None
            self._marks.move_to_end(mark)
            if len(self._marks) > MARKS:
                self._marks.popitem(last=False)
            return None, known

    def keep(self, key: Hashable, value: V, size: int = 1) -> None:
        """Keep a value that takes `size` of the room; those that were not found for the longest time give way."""
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = value, size
            self._taken += size - before
            while self._taken > self._room:
                _, (_, given) = self._kept.popitem(last=False)
                self._taken -= given

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._marks.clear()
            self._kept.clear()
            self._taken = 0
