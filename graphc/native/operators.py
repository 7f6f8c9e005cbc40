"""Calls that recorded the same before are recorded in native code (`graphc.native.recording`) once there are many."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from graphc.native import readers
from graphc.native.flushes import plan_of
from graphc.native.library import MAKER, MethodDef, NativeLibrary, library
from graphc.native.owning import owned
from graphc.native.picking import OTHERWISE, PICK
from graphc.native.recording import DESK, OPERATORS
from graphc.native.services import service_of
from graphc.native.tables import Words
from graphc.options import NATIVE_CALLS
from graphc.recording_hooks import FLUSH, PLAN, set_often
from graphc.source import note_file
from graphc.tensors.changing import SERVE
from graphc.tensors.learning import AGAIN, learning
from graphc.tensors.methods import IndexingMethods, LinalgMethods, PointwiseMethods
from graphc.tensors.owning import OWN

_NO_ARGUMENTS, _ONE_ARGUMENT = 0x4, 0x8  # METH_NOARGS, METH_O
_UNARY = ("neg", "abs", "invert")
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift")
_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
_NAMES = ("getitem", *_UNARY, *_BINARY, *[f"r{name}" for name in _BINARY], *_COMPARED)
_SYMBOLS = {"getitem": PICK}  # of methods that look at their operands before they are operators

WAITED = 0.002  # seconds, each time that some hundred operations were recorded in Python

_kept: list[object] = []
_undone: list[Callable[[], None]] = []


def install() -> None:
    """Let native code stand before functions and operators of tensors, which do what it cannot. Nothing happens where
    native code is not to be had or not wanted.
    """
    native = library() if NATIVE_CALLS.get() and not _undone else None
    if native is not None:
        for module in list(sys.modules.values()):
            note_file(getattr(module, "__file__", None) or "")  # native code knows no others as graphc's
        _install_operators(native)
        readers.read_natively(native)
        plainly, AGAIN[0] = AGAIN[0], native.again
        in_python, FLUSH[0] = FLUSH[0], native.flush
        PLAN.append(partial(plan_of, native))
        SERVE.append(partial(service_of, native))
        OWN.append(owned)
        _undone.append(lambda: AGAIN.__setitem__(0, plainly))
        _undone.append(lambda: FLUSH.__setitem__(0, in_python))
        _undone.append(PLAN.clear)
        _undone.append(SERVE.clear)
        _undone.append(OWN.clear)


def remove() -> None:
    """Undo `install`."""
    while _undone:
        _undone.pop()()


def _install_operators(native: NativeLibrary) -> None:
    found = [
        (cls, f"__{name}__", vars(cls)[f"__{name}__"])
        for name in _NAMES
        for cls in (PointwiseMethods, LinalgMethods, IndexingMethods)
        if f"__{name}__" in vars(cls)
    ]
    assert len(found) == len(_NAMES) <= len(OPERATORS) and _NAMES[OTHERWISE] == "getitem"
    others = [learning(method) for _, _, method in found]
    words = [id(held) for (_, _, method), other in zip(found, others, strict=True) for held in (method, other)]
    desk = Words([native.shared.address, *words])
    ctypes.c_uint64.from_address(native.code[DESK]).value = desk.address
    make: Any = ctypes.pythonapi.PyDescr_NewMethod
    make.restype, make.argtypes = ctypes.py_object, (ctypes.py_object, ctypes.c_void_p)
    _kept.append((desk, found, others))
    for symbol, (cls, name, method) in zip(OPERATORS, found, strict=False):
        unary = name.strip("_") in _UNARY
        text = f"{name}($self, {'' if unary else 'other, '}/)\n--\n\n{method.__doc__ or ''}".encode()
        flags = _NO_ARGUMENTS if unary else _ONE_ARGUMENT
        code = native.code[_SYMBOLS.get(name.strip("_"), symbol)]
        definition = MethodDef(name.encode(), code, flags, text)
        _kept.append(definition)
        setattr(cls, name, make(cls, ctypes.addressof(definition)))
        _undone.append(lambda cls=cls, name=name, method=method: setattr(cls, name, method))


def install_when_ready() -> bool:
    """`install` as soon as the native code is there; whether it has come to that. LLVM is waited for a little: a loop
    that records holds Python's lock, which the other thread wants after each of its calls.
    """
    if NATIVE_CALLS.get() and not MAKER.ready(WAITED):
        return False
    install()
    return True


set_often(install_when_ready)
