"""LLVM IR text to object code or assembly. No mid-level passes run: kernels come with their vectors and tiles made.

llvmlite's own wrappers hold one lock around every call into LLVM. Modules of different contexts do not touch each
other, so parsing and code generation go through handles of the same library without that lock, and several modules are
built at once. Making LLVM's passes ready takes as long as compiling a short kernel: what one thread compiles is linked
to one module first.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from graphc.codegen.parts import balanced
from graphc.codegen.recurring import Recurring
from graphc.codegen.target import Target
from graphc.errors import CompileError

PARTS = 3  # modules for each of several threads: more take longer, fewer leave threads without work at the end
BATCH = 1 << 17  # characters compiled together while others are written: a tenth of a second's work
# Characters of the first such piece, so that LLVM begins early; each is twice as long as the one before.
FIRST = 1 << 14
_OPTIMIZED, _PLAIN = 2, 0  # LLVM's levels of code generation
TURN_SECONDS = 5e-4
_LONG = ("LLVMPY_ParseAssembly", "LLVMPY_TargetMachineEmitToMemory")
_Key = tuple[str, Target]
_idle: dict[tuple[str, str, str, int], list[Any]] = {}  # code generators that no thread is using
OBJECTS = Recurring[bytes](1 << 24)  # bytes and characters of kernels that programs have in common


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
    """Objects with the functions of all `texts`, which are different modules: see `Building`."""
    with Building(target, workers) as building:
        return building.objects(texts, plain)


class Building:
    """Builds modules on `workers` threads (by default the cores of the target) while others are still being written.

    Objects hold FIRST characters of text, twice as many, and so on up to BATCH; what is left at the end is cut into one
    object for each thread, or PARTS where all is left and threads are several. A module that an earlier program had is
    an object of its own, kept for the next one. They depend on the texts, their order, and which of them recur.
    """

    def __init__(self, target: Target, workers: int | None = None) -> None:
        self._target = target
        self._workers = max(1, workers or target.cores)
        self._pool = _threads(self._workers) if self._workers > 1 else None
        self._known: set[str] = set()
        self._waiting: list[str] = []
        self._begun: list[Future[bytes]] = []
        self._held: list[bytes] = []  # what earlier programs built
        self._kept: list[tuple[_Key, Future[bytes]]] = []  # what later ones may want

    def __enter__(self) -> Building:
        if self._pool is not None:
            _TURNS.begin()
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            _TURNS.end()

    def add(self, text: str) -> None:
        """A module that `objects` will be asked for; one that was added before counts once."""
        if text in self._known:
            return
        self._known.add(text)
        if self._pool is not None:
            key = text, self._target
            held, recurs = OBJECTS.find(key)
            if held is not None:
                self._held.append(held)
                return
            if recurs:
                self._kept.append((key, self._submit((text,), _OPTIMIZED)))
                return
        self._waiting.append(text)
        if self._pool is not None and sum(map(len, self._waiting)) >= min(FIRST << len(self._begun), BATCH):
            parts = _parts(self._waiting, 1)
            self._begun.extend(self._submit(part, _OPTIMIZED) for part in parts)
            self._waiting = []

    def objects(self, texts: Sequence[str], plain: frozenset[str] = frozenset()) -> list[bytes]:
        """Objects with the functions of all `texts`, which are different modules; all that were added are among them.

        Those in `plain` are made as quickly as LLVM can, code that runs once, and lie in an object of their own.
        """
        rest = [*self._waiting, *(text for text in texts if text not in plain and text not in self._known)]
        count = self._workers if self._workers == 1 or self._begun else PARTS * self._workers
        jobs = [(part, _OPTIMIZED) for part in _parts(rest, count)]
        quick = tuple(text for text in texts if text in plain)
        if quick:
            jobs.append((quick, _PLAIN))
        if self._pool is None or not (self._begun or self._kept or len(jobs) > 1):
            return [*self._held, *(self._build(*job) for job in jobs)]
        # The quick one first: it is there as a whole, and nothing shares it out.
        begun = [self._submit(*job) for job in reversed(jobs)]
        for key, future in self._kept:
            code = future.result()
            OBJECTS.keep(key, code, len(key[0]) + len(code))
            self._held.append(code)
        return [*self._held, *(future.result() for future in (*self._begun, *reversed(begun)))]

    def _submit(self, texts: tuple[str, ...], level: int) -> Future[bytes]:
        assert self._pool is not None
        try:
            return self._pool.submit(self._build, texts, level)
        except RuntimeError:  # the interpreter ends, and lets no thread begin
            made: Future[bytes] = Future()
            made.set_result(self._build(texts, level))
            return made

    def _build(self, texts: tuple[str, ...], level: int) -> bytes:
        return _generate(texts, self._target, use_object=True, level=level)


def _threads(count: int) -> futures.ThreadPoolExecutor | None:
    """Threads to build on; None where the interpreter ends before the first were wanted."""
    try:
        return futures.ThreadPoolExecutor(count, thread_name_prefix="graphc-build")
    except RuntimeError:
        return None


class _Turns:
    """How long a thread may keep Python's lock while others wait for it: shorter while something is built, since a
    thread that comes back from LLVM waits for the one that writes modules.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._usual = 0.0

    def begin(self) -> None:
        with self._lock:
            if self._count == 0:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, TURN_SECONDS))
            self._count += 1

    def end(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                sys.setswitchinterval(self._usual)


_TURNS = _Turns()


def _parts(texts: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """What is compiled together: at most `count` parts of about the same length."""
    return [tuple(texts[number] for number in part) for part in balanced(list(map(len, texts)), count)]


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
    """LLVM's functions for parsing and code generation, without llvmlite's lock.

    The brief ones keep Python's: who gave it away waits for it while another thread writes modules.
    """
    name = _binding().ffi.lib._name
    library, brief = ctypes.CDLL(name), ctypes.PyDLL(name)
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
        if name not in _LONG:
            setattr(library, name, getattr(brief, name))
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _target_machine(target: Target, level: int) -> Iterator[ctypes.c_void_p]:
    """A code generator for `target`, which serves one module at a time. It is kept for the next one: what LLVM knows of
    a processor takes longer to look up than a short kernel to compile.
    """
    key = target.triple, target.cpu, target.features, level
    try:
        machine = _idle[key].pop()
    except (KeyError, IndexError):  # none, or another thread was faster
        try:
            machine = (
                _binding()
                .Target.from_triple(target.triple)
                .create_target_machine(
                    cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
                )
            )
        except RuntimeError as error:
            raise CompileError(f"LLVM cannot make code for {target.triple} ({target.cpu}): {error}") from error
    try:
        yield ctypes.cast(machine._ptr, ctypes.c_void_p)
    finally:
        _idle.setdefault(key, []).append(machine)


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


def _joined(texts: tuple[str, ...]) -> str:
    """One module of several: what stands outside functions, such as a declaration, once.

    Each call into LLVM waits for Python's lock when it comes back, so one module is read for many kernels.
    """
    if len(texts) == 1:
        return texts[0]
    outside: dict[str, None] = {}
    functions: list[str] = []
    for text in texts:
        before, define, rest = text.partition("define ")
        body, end, after = rest.rpartition("\n}\n")
        functions.append(f"{define}{body}{end}")
        outside.update(dict.fromkeys((*before.split("\n"), *after.split("\n"))))
    # A module has the name of one file, before all else.
    lines = [line for line in outside if not line.startswith("source_filename")]
    return "\n".join([*lines, *functions])


def _generate(texts: tuple[str, ...], target: Target, use_object: bool, level: int = _OPTIMIZED) -> bytes:
    """The code of all `texts` together."""
    with _target_machine(target, level) as machine:
        return _generated(machine, texts, target, use_object)


def _generated(machine: ctypes.c_void_p, texts: tuple[str, ...], target: Target, use_object: bool) -> bytes:
    library = _library()
    context = library.LLVMPY_ContextCreate()
    module = None
    try:
        message = _Message(library)
        module = library.LLVMPY_ParseAssembly(context, _joined(texts).encode(), message.out)
        problem = message.take()
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
        library.LLVMPY_ContextDispose(context)
    try:
        return ctypes.string_at(library.LLVMPY_GetBufferStart(memory), library.LLVMPY_GetBufferSize(memory))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(memory)
