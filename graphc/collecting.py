"""Garbage collection, put off."""

from __future__ import annotations

import gc
import threading

_lock = threading.Lock()
_inside = [0, False]  # how many blocks of all threads are open; whether garbage was collected before the first


class _NoCollection:
    """See `no_collection`."""

    __slots__ = ()

    def __enter__(self) -> None:
        with _lock:
            if not _inside[0]:
                _inside[1] = gc.isenabled()
                gc.disable()
            _inside[0] += 1

    def __exit__(self, *error: object) -> None:
        with _lock:
            _inside[0] -= 1
            if not _inside[0] and _inside[1]:
                gc.enable()


_NONE = _NoCollection()


def no_collection() -> _NoCollection:
    """Inside the `with` block no garbage is collected, in no thread: no finalizer runs that finds a module half loaded
    or a program half recorded, and no time goes into looking for cycles among many new objects.
    """
    return _NONE
