"""The native replay, linked into this process once, and what all plans share. The way in Python is always there too."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from heapq import heappop
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.call_places import MOVING
from graphc.counting import FRONT
from graphc.grad_mode import MODE
from graphc.ir.builder import Builder
from graphc.ir.node import Node
from graphc.ir.types import DType, TensorType, bf16, boolean, f32, f64, i32, i64
from graphc.late_checks import LateChecks
from graphc.native import (
    calls,
    driving,
    entering,
    finalizing,
    flushing,
    lending,
    owning,
    parts,
    picking,
    reading,
    recording,
    rooming,
    serving,
    storing,
    updating,
)
from graphc.native.code import INTERFACE, module_text
from graphc.native.layout import UnknownLayout, address_of, head, parts_of_slice, slots_of
from graphc.native.objects import Layout
from graphc.native.ready import Ready
from graphc.native.tables import SHARED, Words, prototype
from graphc.options import INTERPRET
from graphc.random import Generator, default_generator
from graphc.recording import THREADS, Recorder
from graphc.repeats import Repeats
from graphc.replay import write_buffer
from graphc.source import OWN_FILES
from graphc.storage import SERIALS, TOUCHED, Binding, Lineage, Seen, Storage, Value
from graphc.tensors.casting import OPEN
from graphc.tensors.changing import compute_first
from graphc.tensors.core import TensorBase, from_buffer, new
from graphc.tensors.learning import MISSED, ORDERS, UNREAD, VIEWS, operand
from graphc.tensors.size import Size
from graphc_runtime.buffer import IDLE, RETURNED, Buffer, Window
from graphc_runtime.counters import COUNTERS
from graphc_runtime.devices.cpu import build_text, link_text
from graphc_runtime.devices.cuda_blocks import Block
from graphc_runtime.devices.cuda_memory import DeviceBuffer
from graphc_runtime.errors import GraphcRuntimeError
from graphc_runtime.options import CODE, KEY, NO_SCOPE, POISON, SCOPE
from graphc_runtime.pool import POOL

_ENTRY = "graphc_replay"
_KIND = "replay"  # of the entry in the kernel cache
# METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, METH_O
_FASTCALL, _NAMED, _NO_ARGUMENTS, _ONE_ARGUMENT = 0x80, 0x2, 0x4, 0x8
# Words that all plans share and that are set later.
_LATER = ("thread_here", "modes_here", "own_here", *(name for name in SHARED if name.endswith("_in_python")))
_log = logging.getLogger("graphc")


class MethodDef(ctypes.Structure):
    """`PyMethodDef`, which describes a function of native code to Python."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@dataclass(frozen=True, eq=False)
class NativeLibrary:
    """Makes functions of plans. `shared` are words that all plans share, `code` the addresses of what is exported."""

    shared: Words
    layout: Layout
    code: Mapping[str, int]
    _replay: MethodDef
    _again: MethodDef
    _flush: MethodDef
    methods: list[object]
    _kept: tuple[object, ...]

    def function(self, plan: tuple[object, ...]) -> Callable[..., Any]:
        """The replay of a plan, as a Python function: `plan` is its address and what that needs."""
        return _function(self._replay, plan)

    def method(self, cls: type, name: str, symbol: str, text: str) -> Callable[..., Any]:
        """A method `name` of `cls`: what the function `symbol` cannot do, the one does that `cls` has now. `text`
        stands between the parentheses of its signature. For one class.
        """
        in_python = vars(cls)[name]
        self.shared.values[SHARED.index(f"{name.strip('_')}_in_python")] = id(in_python)
        flags = _NO_ARGUMENTS if text == "$self, /" else _FASTCALL | _NAMED
        shown = f"{name}({text})\n--\n\n{in_python.__doc__ or ''}"
        definition = MethodDef(name.encode(), self.code[symbol], flags, shown.encode())
        make: Any = ctypes.pythonapi.PyDescr_NewMethod
        make.restype, make.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.c_void_p)
        self.methods.extend((definition, in_python))
        return make(cls, ctypes.addressof(definition))

    def finalize(self, cls: type, symbol: str) -> None:
        """Let a function be `__del__` of `cls`. Objects call it to the very end: what it needs is never freed."""
        if not self.methods or self.methods[0] is not self:
            self.methods.insert(0, self)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        definition = MethodDef(b"__del__", self.code[symbol], _NO_ARGUMENTS, None)
        self.methods.append(definition)
        make: Any = ctypes.pythonapi.PyDescr_NewMethod
        make.restype, make.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.c_void_p)
        cls.__del__ = make(cls, ctypes.addressof(definition))

    @property
    def again(self) -> Callable[..., Any]:
        """What records a call again that `graphc.tensors.learning` entered, or gives MISSED."""
        return _function(self._again, None)

    @property
    def flush(self) -> Callable[[Recorder], bool | None]:
        """What computes what is pending if its program ran before: True, or None when Python must do it."""
        return _function(self._flush, None)


@cache
def library() -> NativeLibrary | None:
    """The native replay of this process; None, after a line in the log, when it cannot be had here."""
    try:
        return _load()
    except (UnknownLayout, GraphcRuntimeError, RuntimeError, AttributeError) as reason:
        _log.info("compiled calls are replayed in Python: %s", reason)
        return None
    finally:
        MAKER.is_loaded = True


class Maker:
    """Makes the native code on a thread of its own: LLVM takes a third of a second for it, once per cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.is_loaded = False  # by `library`, which waits for it

    def ready(self, seconds: float = 0.0) -> bool:
        """Whether the code is there, or cannot be had, after so many seconds at most; the first call begins to make
        it.
        """
        if self.is_loaded:
            return True
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._make, name="graphc-native")
                self._thread.start()
        if seconds:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait until what was begun is done."""
        with self._lock:
            self._join()

    def hold(self) -> None:
        """`join`, and begin nothing until `let_go`: a forked child would find LLVM's lock taken by a thread that it
        does not have."""
        self._lock.acquire()
        self._join()

    def let_go(self) -> None:
        """Let work begin again after `hold`."""
        self._lock.release()

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _make(self) -> None:
        # What goes wrong here does so again for `library`, which tells of it.
        with suppress(UnknownLayout, GraphcRuntimeError, RuntimeError, AttributeError):
            build_text(_KIND, _code()[1], passes=True)


MAKER = Maker()
os.register_at_fork(before=MAKER.hold, after_in_parent=MAKER.let_go, after_in_child=MAKER.let_go)


@cache
def _code() -> tuple[Layout, str]:
    """Where the parts of objects lie in this Python, and the text of the native code."""
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
        slots_of(DeviceBuffer),
        slots_of(Block),
        slots_of(type(FRONT)),
        slots_of(type(COUNTERS.locked)),
        slots_of(Recorder),
        slots_of(Binding),
        slots_of(Repeats),
        slots_of(TensorType),
        slots_of(LateChecks),
        parts_of_slice(),
        slots_of(type(POISON)),
        slots_of(Ready),
        slots_of(DType),
        slots_of(type(IDLE)),
        slots_of(Generator),
        slots_of(Node),
    )
    functions = [
        *calls.functions(layout),
        *driving.functions(layout),
        *entering.functions(layout),
        *reading.functions(layout),
        *parts.functions(layout),
        *recording.functions(layout),
        *owning.functions(layout),
        *flushing.functions(layout),
        *lending.functions(layout),
        *serving.functions(layout),
        *rooming.functions(layout),
        *storing.functions(layout),
        *updating.functions(layout),
        *finalizing.functions(layout),
        *picking.functions(layout),
    ]
    return layout, module_text(functions, (recording.DESK, entering.HOME))


def _load() -> NativeLibrary:
    MAKER.join()
    layout, text = _code()
    exported = (
        _ENTRY,
        entering.CALL,
        entering.HOME,
        *reading.METHODS,
        storing.STORE,
        *updating.SYMBOLS.values(),
        *finalizing.FINALIZERS,
        picking.PICK,
        rooming.RUN,
        flushing.FLUSH,
        recording.AGAIN,
        recording.DESK,
        *recording.OPERATORS,
    )
    code = link_text(_KIND, text, exported, passes=True)
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
        "poison": POISON,
        "value_name": "_value",
        "scope": SCOPE,
        "no_scope": NO_SCOPE,
        "counters": COUNTERS,
        "peak_name": "peak_bytes",
        "returned": RETURNED,
        "pool": IDLE,
        "allocate": Buffer.allocate,
        "serials": SERIALS,
        "write": write_buffer,
        "front": FRONT,
        "tally": COUNTERS.locked,
        "start_pool": POOL.start,
        "moving": MOVING,
        "flush_name": "flush",
        "clear_up_name": "clear_up",
        "no_reason": ("",),
        "packing_name": "packing",
        "float_class": float,
        "int_class": int,
        "bool_class": bool,
        "none_class": type(None),
        "str_class": str,
        "dtype_class": dtypes.dtype,
        "ellipsis_class": type(Ellipsis),
        "tuple_class": tuple,
        "list_class": list,
        "slice_class": slice,
        "size_class": Size,
        "tensor_class": TensorBase,
        "value_class": Value,
        "read_operand": operand,
        "take_least": heappop,
        "inputs_name": "_inputs",
        "no_name": "",
        "seen_class": Seen,
        "views": VIEWS,
        "orders": ORDERS,
        "unread": UNREAD,
        "touched": TOUCHED,
        "file_name": "co_filename",
        "own_files": OWN_FILES,
        "casting": OPEN,
        "dtypes": vars(dtypes),
        "default_name": "_default",
        "at_once": (False,),
        "generator": default_generator,
        "data_name": "data",
        "codes": CODE,
        "code_name": KEY,
        "buffer_class": Buffer,
        "device_buffer_class": DeviceBuffer,
        "storage_class": Storage,
        "flush_tally": COUNTERS.flushed,
        "exception_class": Exception,
        "judge": LateChecks.judge,
        "interprets": INTERPRET,
        "compute_first": compute_first,
        "cpu_name": "cpu",
        "with_shape": TensorType.with_shape,
        "from_buffer": from_buffer,
        "constant_name": Builder().constant(0, TensorType(f32, ())).op,
        "window_class": Window,
        "window_at": Window.from_address,
        "buffer_name": "buffer",
        "array_class": np.ndarray,
        "tolist_name": "tolist",
        "bf16": bf16,
        "f32": f32,
        "f64": f64,
        "i32": i32,
        "i64": i64,
        "boolean": boolean,
    }
    likes = _prototypes()
    codes_seen = Words([0] * recording.SEEN_WORDS)
    addresses = {"wanted": ctypes.addressof(POOL.wanted), "codes_seen": codes_seen.address}
    addresses |= {name: like.address for name, (like, _) in likes.items()}
    addresses |= dict.fromkeys(_LATER, 0)
    shared = Words(addresses[name] if name in addresses else id(objects[name]) for name in SHARED)
    ctypes.c_uint64.from_address(code[entering.HOME]).value = shared.address
    replay = MethodDef(b"replay", code[_ENTRY], _FASTCALL, None)
    again = MethodDef(b"again", code[recording.AGAIN], _FASTCALL, None)
    flush = MethodDef(b"flush", code[flushing.FLUSH], _ONE_ARGUMENT, None)
    return NativeLibrary(shared, layout, code, replay, again, flush, [], (objects, likes, codes_seen))


def _function(definition: MethodDef, held: object) -> Callable[..., Any]:
    make: Any = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return make(ctypes.addressof(definition), held, None)


def _prototypes() -> dict[str, tuple[Words, object]]:
    """What native recording copies: the objects of a recorded operation, but for what is its own."""
    recorder = Recorder()
    node = recorder.b.input(0, TensorType(f32, ()))
    storage, lineage = Storage.pending(recorder, node, (), "", False)
    value, tensor = storage.value, new(storage, node.type, lineage)
    for held in (storage, lineage, value, tensor):
        for name in ("recorder", "type", "value", "counter", "node", "_storage", "_type", "_lineage", "_counter"):
            if name in slots_of(type(held)):
                setattr(held, name, None)
    binding, buffer = Binding(recorder, node, -1, None, None), Buffer.__new__(Buffer)
    buffer._memory = buffer._array = None
    made: dict[str, tuple[Words, object]] = {}
    likes = {"tensor": tensor, "storage": storage, "lineage": lineage, "value": value}
    for name, held in {**likes, "binding": binding, "buffer": buffer}.items():
        slots = Words(slots_of(type(held)).values())
        made[f"{name}_like"] = prototype(held, slots), (held, slots)
    return made
