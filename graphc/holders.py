"""What objects of Python's own classes hold that a function may read, for the guards of compiled functions."""

from __future__ import annotations

import array
import collections
import contextvars
import ctypes
import functools
import os
import queue
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

# Classes whose objects keep what they hold in their attributes.
_NAMESPACES: tuple[type, ...] = (
    types.SimpleNamespace,
    collections.UserDict,
    collections.UserList,
    functools.partialmethod,
    functools.singledispatchmethod,
)
_MAPPINGS = (
    types.MappingProxyType,
    collections.ChainMap,
    weakref.WeakKeyDictionary,
    weakref.WeakValueDictionary,
    type(os.environ),
)
_BYTES = (bytearray, array.array, memoryview)
_MOST_BYTES = 4096
_OF_C = (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._SimpleCData)
# What a call does to them is as much a part of it as what it reads.
_OF_THREADS = (queue.Queue, queue.SimpleQueue, threading.Event, threading.Semaphore, threading.Barrier)
_MISSING = object()

Read = Callable[[], Any]


def _items(mapping: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(part for item in mapping.items() for part in item)


def is_namespace(value: Any) -> bool:
    """Whether what an object of the standard library holds are its attributes."""
    kind = type(value)
    return isinstance(value, _NAMESPACES) or (kind.__module__, kind.__name__) == ("argparse", "Namespace")


def reader(value: Any) -> Read | None:
    """A function that gives what `value` holds, as a tuple of objects or as bytes; None for objects of other classes.

    ValueError for what cannot be compared at each call: long bytes, what each thread has for itself, and what threads
    have in common.
    """
    if isinstance(value, _MAPPINGS):
        return functools.partial(_items, value)
    if isinstance(value, weakref.ref):
        return lambda: (value(),)
    if isinstance(value, contextvars.ContextVar):
        return lambda: (value.get(_MISSING),)
    if isinstance(value, _BYTES):
        if memoryview(value).nbytes > _MOST_BYTES:
            raise ValueError("the bytes")
        return lambda: bytes(value)
    if isinstance(value, _OF_C):
        if ctypes.sizeof(value) > _MOST_BYTES:
            raise ValueError("the bytes of")
        return lambda: bytes(value)
    if isinstance(value, threading.local):
        raise ValueError("what each thread has in")
    if isinstance(value, _OF_THREADS):
        raise ValueError("what threads do with")
    return None
