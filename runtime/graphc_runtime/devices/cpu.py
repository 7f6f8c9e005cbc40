"""The CPU: object code linked into this process by LLVM's JIT linker. The only file of the runtime that uses
llvmlite.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import threading
import weakref
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from graphc_runtime.artifact import PARALLEL_BYTES, PARALLEL_FLOPS, Artifact
from graphc_runtime.buffer import Buffer
from graphc_runtime.cache import default_cache
from graphc_runtime.errors import LoadError
from graphc_runtime.pool import POOL

# A CDLL-style function: the GIL is free while it runs.
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)

_RELAX = {
    "x86_64": ("@llvm.x86.sse2.pause()", ""),
    "aarch64": ("@llvm.aarch64.hint(i32 1)", "i32"),
}
# Reading the cycle counter traps on aarch64; its timer does not.
_TICKS = {"x86_64": "@llvm.readcyclecounter()", "aarch64": "@llvm.readsteadycounter()"}
# Work of a program, about half a millisecond of one thread, whose first run too has all threads: starting them takes a
# tenth of that.
_LONG_FLOPS, _LONG_BYTES = 20_000_000, 4 << 20
# Work of programs up to which it is tried whether several threads are faster than one: more than a few milliseconds are
# what threads are for.
_MOST_FLOPS, _MOST_BYTES = 200_000_000, 64 << 20
# Runs that try it: some milliseconds, for which systems give a core to another process that wants it.
_TRIAL, _LONG_TRIAL = 64, 16
_numbers = itertools.count()
_lock = threading.Lock()


@cache
def _llvm() -> ModuleType:
    # llvmlite takes long to load; a program that runs nothing does not need it.
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@cache
def _jit() -> Any:  # an LLJIT
    llvm = _llvm()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_lljit_compiler(machine, use_jit_link=True)


class Library(Mapping[str, int]):
    """Object code linked into this process: addresses by exported symbol. The code lives as long as this."""

    def __init__(self, name: str, objects: tuple[bytes, ...], symbols: tuple[str, ...]) -> None:
        """Link `objects` with each other and with the libraries of the process; LoadError when that fails."""
        with _lock:
            jit = _jit()
        builder = _llvm().JITLibraryBuilder().add_current_process()
        for code in objects:
            builder.add_object_img(code)
        for symbol in symbols:
            builder.export_symbol(symbol)
        try:
            self._tracker = builder.link(jit, f"graphc.{next(_numbers)}")
        except RuntimeError as error:
            raise LoadError(
                f"{name}: its native code cannot be linked ({error}). "
                "It was made for another machine or is incomplete: compile it again"
            ) from None
        _libraries.add(self)
        self._addresses = {symbol: int(self._tracker[symbol]) for symbol in symbols}

    def __getitem__(self, symbol: str) -> int:
        return self._addresses[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def detach(self) -> None:
        """Keep the code in memory until the process ends, also when this is gone."""
        self._tracker.detach()


_libraries: weakref.WeakSet[Library] = weakref.WeakSet()


def _leave_code() -> None:
    """At exit: leave native code where it is. A daemon thread may still run it, and the system takes all back."""
    for library in list(_libraries):
        library.detach()
    if _jit.cache_info().currsize:
        _jit().detach()


atexit.register(_leave_code)


class CpuProgram:
    """An artifact whose code is part of this process."""

    def __init__(self, artifact: Artifact) -> None:
        if artifact.steps:
            raise LoadError(f"{artifact.name} was compiled for a CUDA device, not for the CPU: compile it again")
        self._library = Library(artifact.name, artifact.objects, (artifact.entry,))
        address = self._library[artifact.entry]
        table, wanted = POOL.table(_link_pool)
        flops, nbytes = (sum(getattr(x, name) for x in artifact.launches) for name in ("flops", "bytes"))
        is_short = flops < PARALLEL_FLOPS and nbytes < PARALLEL_BYTES
        is_long = flops >= _LONG_FLOPS or nbytes >= _LONG_BYTES
        if not is_short and flops < _MOST_FLOPS and nbytes < _MOST_BYTES:
            address, self._record = POOL.choosing(address, _LONG_TRIAL if is_long else _TRIAL, _link_pool)
            table = ctypes.addressof(self._record)
        entry = _ENTRY(address)
        self.native: tuple[int, int, int] | None = (address, table, ctypes.addressof(wanted))
        if is_long:
            POOL.start()

        def run(pointers: int, /) -> None:
            entry(pointers, table)
            if wanted.value:
                POOL.start()

        self.run = run


class CpuDevice:
    """See the module."""

    name = "cpu"
    driven = False
    allocate_all = staticmethod(Buffer.allocate_all)

    def load(self, artifact: Artifact) -> CpuProgram:
        return CpuProgram(artifact)


CPU = CpuDevice()


def _link_pool(text: str, symbols: tuple[str, ...]) -> Library:
    machine = _llvm().get_process_triple().partition("-")[0]
    return link_text("pool", text + _relax(machine) + _ticks(machine), symbols)


def link_text(kind: str, text: str, symbols: tuple[str, ...], passes: bool = False) -> Library:
    """Code of the runtime's own, LLVM IR, from the kernel cache or compiled now. It uses no features beyond the
    architecture's base. With `passes` variables become registers first, and functions that ask for it are inlined:
    text that a program wrote gains. LoadError when it cannot be linked.
    """
    return Library(kind, (build_text(kind, text, passes),), symbols)


def build_text(kind: str, text: str, passes: bool = False) -> bytes:
    """The object code that `link_text` links. It is in the kernel cache afterwards."""
    llvm = _llvm()
    triple = llvm.get_process_triple()
    version = ".".join(map(str, llvm.llvm_version_info))
    key = {"kind": kind, "text": text, "triple": triple, "llvm": version, "passes": str(passes)}
    store = default_cache()
    code = store.get(key, frozenset())
    if code is None:
        target = llvm.Target.from_triple(triple)
        machine = target.create_target_machine(opt=2, reloc="pic", codemodel="small")
        with llvm.parse_assembly(text) as module:
            module.verify()
            if passes:
                manager = llvm.create_new_module_pass_manager()
                manager.add_always_inliner_pass()
                manager.add_sroa_pass()
                manager.add_simplify_cfg_pass()
                options = llvm.create_pipeline_tuning_options(speed_level=2)
                manager.run(module, llvm.create_pass_builder(machine, options))
            code = machine.emit_object(module)
        store.put(key, code, frozenset())
    return code


def _relax(machine: str) -> str:
    """`relax`: tell the processor that this thread spins; nothing on machines that have no such hint."""
    call, parameter = _RELAX.get(machine, ("", ""))
    if not call:
        return "define internal void @relax() {\n  ret void\n}\n"
    name = call.partition("(")[0]
    return f"declare void {name}({parameter})\ndefine internal void @relax() {{\n  call void {call}\n  ret void\n}}\n"


def _ticks(machine: str) -> str:
    """`ticks`: a clock; one that stands still on machines that are not known to have one."""
    call = _TICKS.get(machine, "")
    if not call:
        return "define internal i64 @ticks() {\n  ret i64 0\n}\n"
    return f"declare i64 {call}\ndefine internal i64 @ticks() {{\n  %now = call i64 {call}\n  ret i64 %now\n}}\n"
