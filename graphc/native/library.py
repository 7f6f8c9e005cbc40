"""The native replay, linked into this process once, and what all plans share. The way in Python is always there too."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphc.counting import FRONT
from graphc.grad_mode import MODE
from graphc.native.calls import functions
from graphc.native.code import INTERFACE, module_text
from graphc.native.layout import UnknownLayout, address_of, head, slots_of
from graphc.native.objects import Layout
from graphc.native.tables import SHARED, Words
from graphc.recording import THREADS
from graphc.replay import write_buffer
from graphc.storage import SERIALS, Lineage, Storage, Value
from graphc.tensors.core import TensorBase
from graphc_runtime.buffer import RETURNED, Buffer
from graphc_runtime.counters import COUNTERS
from graphc_runtime.devices.cpu import link_text
from graphc_runtime.errors import GraphcRuntimeError
from graphc_runtime.options import NO_SCOPE, POISON, SCOPE
from graphc_runtime.pool import POOL

_ENTRY = "graphc_replay"
_FASTCALL = 0x80  # METH_FASTCALL
_NEW = 65  # Py_tp_new
_log = logging.getLogger("graphc")


class _Missed:
    """What a native replay gives when it did nothing, as the call must be done in Python."""

    def __repr__(self) -> str:
        return "MISSED"


MISSED = _Missed()


class _MethodDef(ctypes.Structure):
    """`PyMethodDef`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@dataclass(frozen=True)
class NativeLibrary:
    """Makes functions of plans. `shared` are the words that all plans share."""

    shared: Words
    layout: Layout
    _definition: _MethodDef
    _kept: tuple[object, ...]

    def function(self, address: int, *keep: object) -> Callable[..., Any]:
        """The replay of the plan at an address, as a Python function; it keeps the objects `keep`."""
        make = ctypes.pythonapi.PyCFunction_NewEx
        make.restype = ctypes.py_object
        make.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        return make(ctypes.addressof(self._definition), (address, *keep), None)


@cache
def library() -> NativeLibrary | None:
    """The native replay of this process; None, after a line in the log, when it cannot be had here."""
    try:
        return _load()
    except (UnknownLayout, GraphcRuntimeError, RuntimeError, AttributeError) as reason:
        _log.info("compiled calls are replayed in Python: %s", reason)
        return None


def _load() -> NativeLibrary:
    references, kind = head()
    for name in INTERFACE:
        address_of(name)  # AttributeError where Python has no such function
    layout = Layout(
        references,
        kind,
        slots_of(TensorBase),
        slots_of(Storage),
        slots_of(Lineage),
        slots_of(Value),
        slots_of(Buffer),
        slots_of(type(FRONT)),
        slots_of(type(COUNTERS.locked)),
    )
    code = link_text("replay", module_text(functions(layout)), (_ENTRY,))
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.restype, get_slot.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_int)
    POISON.get()  # reads the environment, if nobody did
    objects: dict[str, object] = {
        "none": None,
        "true": True,
        "false": False,
        "empty": (),
        "zero": 0,
        "missed": MISSED,
        "mode": MODE,
        "dict_name": "__dict__",
        "enabled_name": "enabled",
        "inference_name": "inference",
        "threads": THREADS,
        "recorder_name": "recorder",
        "capture_name": "capture",
        "pending_name": "pending",
        "kept_name": "kept",
        "poison": POISON,
        "value_name": "_value",
        "scope": SCOPE,
        "no_scope": NO_SCOPE,
        "counters": COUNTERS,
        "peak_name": "peak_bytes",
        "returned": RETURNED,
        "allocate": Buffer.allocate,
        "serials": SERIALS,
        "write": write_buffer,
        "front": FRONT,
        "tally": COUNTERS.locked,
        "start_pool": POOL.start,
    }
    numbers = {"make": get_slot(object, _NEW), "wanted": ctypes.addressof(POOL.wanted)}
    shared = Words(numbers[name] if name in numbers else id(objects[name]) for name in SHARED)
    definition = _MethodDef(b"replay", code[_ENTRY], _FASTCALL, None)
    return NativeLibrary(shared, layout, definition, (objects, code))
