"""Garbage collection, put off."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = [0, False]  # how many blocks of all threads are open; whether garbage was collected before the first


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside the `with` block no garbage is collected, in no thread: no finalizer runs that finds a module half loaded
    or a program half recorded, and no time goes into looking for cycles among many new objects.
    """
    with _lock:
        if not _inside[0]:
            _inside[1] = gc.isenabled()
            gc.disable()
        _inside[0] += 1
    try:
        yield
    finally:
        with _lock:
            _inside[0] -= 1
            if not _inside[0] and _inside[1]:
                gc.enable()
