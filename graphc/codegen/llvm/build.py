"""LLVM IR text to object code or assembly. No mid-level passes run: kernels come with their vectors and tiles made.

llvmlite's own wrappers hold one lock around every call into LLVM. Modules of different contexts do not touch each
other, so parsing and code generation go through handles of the same library without that lock, and several modules are
built at once. Making LLVM's passes ready takes as long as compiling a short kernel: what one thread compiles is linked
to one module first.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import ModuleType
from typing import Any

from graphc.codegen.parts import balanced
from graphc.codegen.target import Target
from graphc.errors import CompileError

PARTS = 3  # modules for each of several threads: more take longer, fewer leave threads without work at the end
_OPTIMIZED, _PLAIN = 2, 0  # LLVM's levels of code generation
_local = threading.local()


def build_object(text: str, target: Target) -> bytes:
    """The relocatable object code of a module for `target`.

    Raises CompileError with the line of IR that LLVM refuses.
    """
    return _generate((text,), target, use_object=True)


def build_assembly(text: str, target: Target) -> str:
    """The assembly of a module for `target`. Raises CompileError as `build_object` does."""
    return _generate((text,), target, use_object=False).decode()


def build_many(
    texts: Sequence[str], target: Target, workers: int | None = None, plain: frozenset[str] = frozenset()
) -> list[bytes]:
    """Objects with the functions of all `texts`, which are different modules, built on `workers` threads (by default
    the cores of the target): one object for each thread, or PARTS where there are several.

    Those in `plain` are made as quickly as LLVM can, code that runs once, and lie in an object of their own.
    """
    workers = max(1, workers or target.cores)
    jobs = [(part, _OPTIMIZED) for part in _parts([text for text in texts if text not in plain], workers)]
    quick = tuple(text for text in texts if text in plain)
    if quick:
        jobs.append((quick, _PLAIN))

    def build(job: tuple[tuple[str, ...], int]) -> bytes:
        return _generate(job[0], target, use_object=True, level=job[1])

    if min(workers, len(jobs)) <= 1:
        return list(map(build, jobs))
    with ThreadPoolExecutor(min(workers, len(jobs)), thread_name_prefix="graphc-build") as pool:
        return list(pool.map(build, jobs))


def _parts(texts: Sequence[str], workers: int) -> list[tuple[str, ...]]:
    """What is compiled together."""
    parts = balanced(list(map(len, texts)), 1 if workers == 1 else PARTS * workers)
    return [tuple(texts[number] for number in part) for part in parts]


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
        "LLVMPY_LinkModules": (ctypes.c_int, [pointer, pointer, message]),
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


def _generate(texts: tuple[str, ...], target: Target, use_object: bool, level: int = _OPTIMIZED) -> bytes:
    """The code of all `texts` together."""
    library, machine = _library(), _target_machine(target, level)
    context = library.LLVMPY_ContextCreate()
    module = None
    try:
        for text in texts:
            message = _Message(library)
            parsed = library.LLVMPY_ParseAssembly(context, text.encode(), message.out)
            problem = message.take()
            if problem or not parsed:
                raise CompileError(f"LLVM refuses the generated code (a bug in graphc): {problem.strip()}")
            if module is None:
                module = parsed
                continue
            message = _Message(library)
            failed = library.LLVMPY_LinkModules(module, parsed, message.out)  # disposes of `parsed`
            problem = message.take()
            if failed:
                raise CompileError(f"LLVM cannot link the generated code (a bug in graphc): {problem.strip()}")
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
        library.LLVMPY_ContextDispose(context)
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(memory)
