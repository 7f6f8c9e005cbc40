"""LLVM IR text to object code or assembly. No mid-level passes run: kernels come with their vectors and tiles made.

llvmlite's own wrappers hold one lock around every call into LLVM. Modules of different contexts do not touch each
other, so parsing and code generation go through handles of the same library without that lock, and several modules are
built at once.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

from graphc.codegen.target import Target
from graphc.errors import CompileError

_OPTIMIZED, _PLAIN = 2, 0  # LLVM's levels of code generation
_local = threading.local()


def build_object(text: str, target: Target) -> bytes:
    """The relocatable object code of a module for `target`.

    Raises CompileError with the line of IR that LLVM refuses.
    """
    return _generate(text, target, use_object=True)


def build_assembly(text: str, target: Target) -> str:
    """The assembly of a module for `target`. Raises CompileError as `build_object` does."""
    return _generate(text, target, use_object=False).decode()


def build_many(
    texts: Sequence[str], target: Target, workers: int | None = None, plain: frozenset[str] = frozenset()
) -> list[bytes]:
    """The objects of several modules, in order, built on `workers` threads (by default the cores of the target).

    Those in `plain` are made as quickly as LLVM can: code that runs once.
    """

    def build(number: int) -> bytes:
        text = texts[number]
        return _generate(text, target, use_object=True, level=_PLAIN if text in plain else _OPTIMIZED)

    workers = min(len(texts), workers or target.cores)
    if workers <= 1:
        return list(map(build, range(len(texts))))
    # The longest begin first, so that no thread is left with one of them at the end.
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    with ThreadPoolExecutor(workers, thread_name_prefix="graphc-build") as pool:
        objects = dict(zip(order, pool.map(build, order), strict=True))
    return [objects[number] for number in range(len(texts))]


@cache
def _binding() -> ModuleType:
    """llvmlite's binding, initialised. Threads that come here at once all initialise it, which does no harm."""
    # llvmlite takes long to load and only compiling needs it.
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm


@cache
def _library() -> ctypes.CDLL:
    """LLVM's functions for parsing and code generation, without llvmlite's lock."""
    library = ctypes.CDLL(_binding().ffi.lib._name)
    pointer, message = ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p)
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "LLVMPY_ContextCreate": (pointer, []),
        "LLVMPY_ContextDispose": (None, [pointer]),
        "LLVMPY_ParseAssembly": (pointer, [pointer, ctypes.c_char_p, message]),
        "LLVMPY_VerifyModule": (ctypes.c_bool, [pointer, message]),
        "LLVMPY_DisposeModule": (None, [pointer]),
        "LLVMPY_DisposeString": (None, [ctypes.c_char_p]),
        "LLVMPY_TargetMachineEmitToMemory": (pointer, [pointer, pointer, ctypes.c_int, message]),
        "LLVMPY_GetBufferStart": (pointer, [pointer]),
        "LLVMPY_GetBufferSize": (ctypes.c_size_t, [pointer]),
        "LLVMPY_DisposeMemoryBuffer": (None, [pointer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _target_machine(target: Target, level: int) -> ctypes.c_void_p:
    """The code generator of this thread for `target`; it serves one module at a time."""
    machines: dict[tuple[str, str, str, int], Any] = _local.__dict__.setdefault("machines", {})
    key = target.triple, target.cpu, target.features, level
    if key not in machines:
        try:
            machines[key] = (
                _binding()
                .Target.from_triple(target.triple)
                .create_target_machine(
                    cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
                )
            )
        except RuntimeError as error:
            raise CompileError(f"LLVM cannot make code for {target.triple} ({target.cpu}): {error}") from error
    return ctypes.cast(machines[key]._ptr, ctypes.c_void_p)


class _Message:
    """A C string that LLVM hands over."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.pointer = ctypes.c_char_p()
        self.out = ctypes.byref(self.pointer)
        self._library = library

    def take(self) -> str:
        """The text, given back to LLVM; empty when there is none."""
        text = self.pointer.value
        if self.pointer:
            self._library.LLVMPY_DisposeString(self.pointer)
        return (text or b"").decode(errors="replace")


def _generate(text: str, target: Target, use_object: bool, level: int = _OPTIMIZED) -> bytes:
    library, machine = _library(), _target_machine(target, level)
    context = library.LLVMPY_ContextCreate()
    try:
        message = _Message(library)
        module = library.LLVMPY_ParseAssembly(context, text.encode(), message.out)
        problem = message.take()
        try:
            if problem or not module:
                raise CompileError(f"LLVM refuses the generated code (a bug in graphc): {problem.strip()}")
            message = _Message(library)
            broken = library.LLVMPY_VerifyModule(module, message.out)
            problem = message.take()
            if broken:
                raise CompileError(f"LLVM's verifier refuses the generated code (a bug in graphc): {problem.strip()}")
            message = _Message(library)
            memory = library.LLVMPY_TargetMachineEmitToMemory(machine, module, int(use_object), message.out)
            problem = message.take()
            if not memory:
                raise CompileError(f"LLVM cannot generate code for {target.cpu}: {problem.strip()}")
        finally:
            if module:
                library.LLVMPY_DisposeModule(module)
    finally:
        library.LLVMPY_ContextDispose(context)
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(memory)
