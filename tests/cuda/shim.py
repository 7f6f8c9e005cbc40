"""Units of CUDA C on the host: compiled by the system's C++ compiler after `shim.hpp`, loaded, launched on host memory.

`Unit(text)` compiles; `unit.launch("name", blocks, threads, addresses)` runs a kernel over a grid. In the variants
"checked" each access is looked at (`checks.hpp`). In "address" AddressSanitizer does so, which knows the arrays that a
thread has for itself; its library must have been loaded before all others (`preloaded`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
DYNAMIC_BYTES = 227 << 10  # of shared memory that a block may have at most
LANGUAGE = ("-std=c++17", "-shared", "-fPIC", "-fno-strict-aliasing", "-w")
# Each operation is rounded by itself, as nvcc does with -fmad=false.
ARITHMETIC = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")


@dataclass(frozen=True)
class Variant:
    """How units are compiled, and the scheduler that they share."""

    unit: tuple[str, ...]
    scheduler: tuple[str, ...] = ()


_UNDEFINED = "bounds,alignment,signed-integer-overflow,integer-divide-by-zero,shift,bool,unreachable,return,builtin"
# Without the compiler's own libraries for these flags: their calls come to the scheduler.
_CHECKS = ("-g1", "-fsanitize=thread", f"-fsanitize={_UNDEFINED}", "-nodefaultlibs", "-lm", "-lc", "-lgcc")
VARIANTS: Mapping[str, Variant] = {
    "plain": Variant(("-O1",)),
    "quick": Variant(("-O0",)),  # to compile; it runs several times slower
    "checked": Variant(("-O1", *_CHECKS), ("-DSHIM_CHECKED",)),
    "quick checked": Variant(("-O0", *_CHECKS), ("-DSHIM_CHECKED",)),  # for kernels without atomic operations
    "address": Variant(("-O1", "-g1", "-fsanitize=address", "-fno-omit-frame-pointer"), ("-fsanitize=address",)),
}


class ShimError(AssertionError):
    """A kernel did what CUDA does not allow; the text says which thread did what, at which line of the unit."""


class NoCompiler(pytest.skip.Exception):
    """There is no C++ compiler on this machine: a test that wants one is skipped, with the reason."""


@cache
def compiler() -> str:
    """The C++ compiler: $CXX, or the first that is found; NoCompiler when there is none."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NoCompiler("no C++ compiler (g++, clang++): install one, or name it in CXX")


@cache
def _machine() -> tuple[str, ...]:
    """Flags for this machine: with its fused multiply-add the functions of that name are exact and fast."""
    done = _compile(["-march=native", "-fsyntax-only", "-x", "c++", os.devnull], check=False)
    return ("-march=native",) if done.returncode == 0 else ()


def _compile(arguments: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [compiler(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if check and done.returncode:
        raise ShimError(f"{' '.join(command)}\n{done.stderr[:4000]}")
    return done


def preloaded(**environment: str) -> dict[str, str]:
    """The environment in which units of the variant "address" can be loaded; NoCompiler when they cannot be."""
    library = _compile(["-print-file-name=libasan.so"]).stdout.strip()
    if not os.path.isabs(library):
        raise NoCompiler(f"{compiler()} has no AddressSanitizer (libasan.so)")
    return {**os.environ, "LD_PRELOAD": library, "ASAN_OPTIONS": "detect_leaks=0", **environment}


@cache
def folder() -> Path:
    """Where compiled units are kept: with the kernels of this test run."""
    place = Path(os.environ.get("GRAPHC_CACHE_DIR") or tempfile.mkdtemp(prefix="graphc-shim-")) / "shim"
    place.mkdir(parents=True, exist_ok=True)
    return place


def made_library(source: str, arguments: Sequence[str], sources: Sequence[Path]) -> Path:
    """The library that the compiler makes from `source`, which includes `sources`, with `arguments`; from the folder if
    it is there.
    """
    key = "\0".join([compiler(), *arguments, source, *(p.read_text() for p in sources)])
    path = folder() / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".so")
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder()) as scratch:
        text, out = Path(scratch, "unit.cpp"), Path(scratch, "out")
        text.write_text(source)
        _compile([*LANGUAGE, *ARITHMETIC, *_machine(), f"-I{HERE}", str(text), *arguments, "-o", str(out)])
        out.rename(path)
    return path


@cache
def _scheduler(variant: str) -> Path:
    """The library that runs the threads of units of a variant."""
    flags = ("-O2", f"-DSHIM_DYNAMIC={DYNAMIC_BYTES}", *VARIANTS[variant].scheduler)
    return made_library(f'#include "{HERE / "shim.cpp"}"\n', flags, _SOURCES)


_SOURCES = (HERE / "shim.hpp", HERE / "shim.cpp", HERE / "checks.hpp")
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\(([^)]*)\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{")
_LIMIT = re.compile(r"\d+")


_IMAGE = """
extern "C" {
extern __attribute__((visibility("hidden"))) const char __ehdr_start[], __bss_start[], _end[];
const char* shim_image[] = {__ehdr_start, __bss_start, _end};
}"""


@dataclass(frozen=True)
class Signature:
    """The C types of a kernel's parameters, and the most threads that it says its blocks have (0: it does not say)."""

    types: tuple[str, ...]
    threads: int


def signatures(unit: str) -> dict[str, Signature]:
    """The kernels of a unit."""
    found = {}
    for bounds, name, parameters in _KERNEL.findall(unit):
        words = [p.replace("__restrict__", " ").strip() for p in parameters.split(",") if p.strip()]
        limit = _LIMIT.match(bounds.strip()) if bounds else None
        found[name] = Signature(tuple(re.sub(r"\w+$", "", w).strip() for w in words), int(limit[0]) if limit else 0)
    return found


def host_source(unit: str) -> str:
    """The unit as C++: after the header, with functions that take the kernels' parameters from an array."""
    lines = ['#include "shim.hpp"', '#line 1 "unit.cu"', unit, '#line 1 "entries"']
    for name, kernel in signatures(unit).items():
        arguments = ", ".join(f"({type})values[{i}]" for i, type in enumerate(kernel.types))
        lines.append(
            'extern "C" __attribute__((no_sanitize("thread", "address"))) '
            f"void enter_{name}(void** values) {{ {name}({arguments}); }}"
        )
        lines.append(f'extern "C" unsigned int facts_{name}[] = {{{len(kernel.types)}, {kernel.threads}}};')
    lines.append(_IMAGE)
    return "\n".join(lines) + "\n"


class _Index(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


Extent = int | tuple[int, ...]


def _index(extent: Extent) -> _Index:
    given = (extent,) if isinstance(extent, int) else extent
    return _Index(*given, *[1] * (3 - len(given)))


class Unit:
    """A unit of CUDA C, ready to run."""

    def __init__(self, text: str, variant: str = "plain") -> None:
        """Compile `text`; ShimError with the compiler's reasons when it is no C++, NoCompiler when there is none."""
        scheduler = _scheduler(variant)
        # Linked with the scheduler by its path: variants do not see each other's.
        self.path = made_library(
            host_source(text), [*VARIANTS[variant].unit, "-Wl,--no-as-needed", str(scheduler)], _SOURCES
        )
        self.text = text
        self.kernels = signatures(text)
        # The lock of Python is held while a kernel runs: a unit runs one at a time.
        self._library = ctypes.PyDLL(str(self.path))
        self._launch = ctypes.PyDLL(str(scheduler)).shim_launch

    def launch(
        self,
        name: str,
        blocks: Extent,
        threads: Extent,
        addresses: Sequence[int],
        shared: int = 0,
        order: int = 0,
        ranges: Sequence[tuple[str, int, int]] = (),
    ) -> None:
        """Run a kernel over `blocks` blocks of `threads` threads with `shared` bytes of dynamic shared memory.

        `order`: 0 and 1 let threads run forward and backward, other numbers shuffle them. `ranges` (name, address,
        bytes) is the memory that a checked kernel may touch. ShimError for what CUDA does not allow.
        """
        kernel = self.kernels.get(name)
        if kernel is None:
            raise ShimError(f"the unit has no kernel {name}; it has {', '.join(self.kernels) or 'none'}")
        count = int(np.prod(threads))
        if not 0 < count <= (kernel.threads or 1024) or shared > DYNAMIC_BYTES:
            raise ShimError(f"{name} cannot have {count} threads and {shared} bytes of dynamic shared memory")
        if len(addresses) != len(kernel.types):
            raise ShimError(f"{name} has {len(kernel.types)} parameters, got {len(addresses)}")
        text = ctypes.create_string_buffer(4096)
        spans = [number for _, address, size in ranges for number in (address, size)]
        failed = self._launch(
            ctypes.cast(self._library[f"enter_{name}"], ctypes.c_void_p),
            (ctypes.c_void_p * len(addresses))(*addresses),
            ctypes.byref(_index(blocks)),
            ctypes.byref(_index(threads)),
            ctypes.c_uint(order),
            (ctypes.c_uint64 * len(spans))(*spans),
            ctypes.c_size_t(len(ranges)),
            ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(self._library, "shim_image"))),
            ctypes.c_size_t(shared),
            text,
            ctypes.c_size_t(len(text)),
        )
        if failed:
            raise ShimError(f"{name}: {self._explain(text.value.decode(), [r[0] for r in ranges])}")

    def _explain(self, message: str, names: Sequence[str]) -> str:
        """The message with names of ranges, and with the lines of the unit that it speaks of."""
        message = re.sub(r"\{(\d+)\}", lambda m: names[int(m[1])], message)
        place = re.search(r" \[\+(0x[0-9a-f]+)\]$", message)
        if place:
            message = message[: place.start()]
            tool = shutil.which("addr2line")
            found = subprocess.run([tool, "-e", self.path, place[1]], capture_output=True, text=True) if tool else None
            line = re.search(r"unit\.\w+:(\d+)", found.stdout) if found else None
            message += f" at line {line[1]}" if line else ""
        lines = self.text.splitlines()
        for number in sorted({int(n) for n in re.findall(r"\bline (\d+)", message)}):
            if 0 < number <= len(lines):
                message += f"\n  {number}: {lines[number - 1].strip()}"
        return message
