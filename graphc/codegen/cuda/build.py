"""CUDA C to cubins and PTX: by NVRTC, the compiler in a library, else by nvcc.

NVRTC is looked for where the wheel `nvidia-cuda-nvrtc` puts it, in a CUDA toolkit, and where the system finds
libraries. It needs neither a driver nor a GPU.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent import futures
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from graphc.codegen.target import Target
from graphc.errors import CompileError
from graphc_runtime.machine import cpu_count

# No contraction: a kernel says where it wants `fma`. Quotients and roots are exact, subnormal numbers are kept: that is
# the default, said here once more.
_EXACT = ("--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")
_FLAGS = (*_EXACT, "--std=c++17", "--disable-warnings")
_VERBOSE = ("--ptxas-options=-v",)
_SHOWN = 30  # lines of a compiler's messages in an error
_MISSING = (
    "no CUDA compiler: neither NVRTC nor nvcc is there. Install NVRTC with `pip install nvidia-cuda-nvrtc` (for CUDA "
    "12: nvidia-cuda-nvrtc-cu12), or a CUDA toolkit, and set CUDA_HOME when it is in a place of its own"
)


class Resources(NamedTuple):
    """What a kernel takes: registers of a thread, bytes that it spills to local memory, static shared memory."""

    registers: int
    spilled: int
    shared: int


class Compiler(Protocol):
    """One of the two compilers. It compiles `workers` units at the same time."""

    version: str
    workers: int

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        """The code, and what the compiler said. CompileError with its messages when it refuses the unit."""
        ...


def build_cubin(unit: str, target: Target) -> bytes:
    """The code of a translation unit (`emit_unit`) for `target`. CompileError when no compiler takes it."""
    return compiler().compile(unit, target.cpu, False, _FLAGS)[0]


def build_cubins(units: Sequence[str], target: Target) -> list[bytes]:
    """The code of each unit, built on several threads: NVRTC takes most of the time until a program runs first."""
    if not units:
        return []
    found = compiler()
    with futures.ThreadPoolExecutor(min(len(units), found.workers), thread_name_prefix="graphc-build") as pool:
        return [code for code, _ in pool.map(lambda unit: found.compile(unit, target.cpu, False, _FLAGS), units)]


def workers() -> int:
    """How many units the compiler compiles at the same time; CompileError when there is none."""
    return compiler().workers


def build_ptx(unit: str, target: Target) -> str:
    """The PTX of a translation unit."""
    return compiler().compile(unit, target.cpu, True, _FLAGS)[0].rstrip(b"\0").decode()


def resource_report(unit: str, target: Target) -> dict[str, Resources]:
    """What each kernel of a translation unit takes."""
    _, said = compiler().compile(unit, target.cpu, False, (*_FLAGS, *_VERBOSE))
    return dict(_resources(said))


def compiler_version() -> str:
    """Name and version of the compiler, a part of cache keys: `NVRTC 13.0`."""
    return compiler().version


@cache
def compiler() -> Compiler:
    """NVRTC, or nvcc where it is not; CompileError when neither is there."""
    library = _find_nvrtc()
    if library is not None:
        return Nvrtc(library)
    nvcc = toolkit_program("nvcc")
    if nvcc is None:
        raise CompileError(_MISSING)
    return Nvcc(nvcc)


def _resources(said: str) -> Iterator[tuple[str, Resources]]:
    """Read the report of ptxas."""
    for part in re.split(r"Compiling entry function ", said)[1:]:
        name = re.match(r"'(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        stores, loads = (re.search(rf"(\d+) bytes spill {kind}", part) for kind in ("stores", "loads"))
        shared = re.search(r"(\d+) bytes smem", part)
        if name is not None and registers is not None:
            spilled = max(int(m[1]) if m else 0 for m in (stores, loads))
            yield name[1], Resources(int(registers[1]), spilled, int(shared[1]) if shared else 0)


def _refusal(name: str, arch: str, said: str) -> CompileError:
    if re.search("gpu[- ]architecture", said):
        return CompileError(f"{name} makes no code for {arch}; a CUDA compiler of another version may: {said.strip()}")
    lines = said.strip().splitlines()
    shown = "\n".join(lines[:_SHOWN] + ([f"... {len(lines) - _SHOWN} lines more"] if len(lines) > _SHOWN else []))
    return CompileError(f"{name} refuses the generated code (a bug in graphc):\n{shown}")


class Nvrtc:
    """NVRTC, through ctypes: its interface is a dozen plain functions, which several threads may call at once."""

    def __init__(self, path: str) -> None:
        try:
            # NVRTC asks for its built-ins by name alone, which finds them where they are loaded already.
            beside = _plain(Path(path).parent, "libnvrtc-builtins.so*") if os.path.isabs(path) else []
            self._builtins = [ctypes.CDLL(str(file)) for file in beside]
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise CompileError(f"NVRTC at {path} cannot be loaded: {error}") from error
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"NVRTC {major.value}.{minor.value}"
        self.workers = cpu_count()

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        """See `Compiler`."""
        # A real architecture (sm_90) gives both PTX and a cubin, a virtual one PTX alone, which is quicker.
        flags = [f"--gpu-architecture={arch.replace('sm_', 'compute_') if to_ptx else arch}", *options]
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), unit.encode(), b"graphc.cu", 0, None, None)
        try:
            given = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
            status = self._library.nvrtcCompileProgram(program, len(flags), given)
            log = self._bytes(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
            said = log.rstrip(b"\0").decode("utf-8", "replace")
            if status:
                raise _refusal(self.version, arch, said or self._error(status))
            kind = "PTX" if to_ptx else "CUBIN"
            return self._bytes(program, f"nvrtcGet{kind}Size", f"nvrtcGet{kind}"), said
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, size_of: str, get: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(size_of, program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(get, program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise CompileError(f"{self.version}: {name} failed: {self._error(status)}")

    def _error(self, status: int) -> str:
        return self._library.nvrtcGetErrorString(status).decode()


class Nvcc:
    """nvcc, in a process of its own: it takes ten times as long."""

    def __init__(self, path: str) -> None:
        self._path = path
        said = self._run([path, "--version"]).stdout
        found = re.search(r"release (\d+\.\d+), V([\d.]+)", said)
        self.version = f"nvcc {found[2] if found else 'of unknown version'}"
        self.workers = cpu_count()

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        """See `Compiler`."""
        with tempfile.TemporaryDirectory(prefix="graphc-nvcc-") as folder:
            source, result = Path(folder, "graphc.cu"), Path(folder, "graphc.out")
            source.write_text(unit, encoding="utf-8")
            kind = "--ptx" if to_ptx else "--cubin"
            command = [self._path, f"--gpu-architecture={arch}", kind, *options, "-o", str(result), str(source)]
            done = self._run(command)
            if done.returncode or not result.exists():
                raise _refusal(self.version, arch, (done.stderr or done.stdout).replace(folder + os.sep, ""))
            return result.read_bytes(), done.stderr + done.stdout

    @staticmethod
    def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CompileError(f"{command[0]} cannot be run: {error}") from error


def toolkits() -> list[Path]:
    """Folders of CUDA toolkits: the one that is asked for first."""
    named = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    return [Path(n) for n in named if n] + [Path("/usr/local/cuda")]


def toolkit_program(name: str) -> str | None:
    """The path of a program of a toolkit, else of one on PATH; None when there is none."""
    for toolkit in toolkits():
        path = toolkit / "bin" / name
        if os.access(path, os.X_OK):
            return str(path)
    return shutil.which(name)


def _find_nvrtc() -> str | None:
    """The path of libnvrtc, or its name where the system finds it by that."""
    folders = [Path(entry, "nvidia", part, "lib") for entry in sys.path for part in ("cu13", "cuda_nvrtc")]
    for toolkit in toolkits():
        folders += [toolkit / "lib64", *sorted(toolkit.glob("targets/*/lib"))]
    for folder in folders:
        # The newest of several.
        if found := _plain(folder, "libnvrtc.so*"):
            return str(found[-1])
    return ctypes.util.find_library("nvrtc")


def _plain(folder: Path, pattern: str) -> list[Path]:
    """Libraries of a folder, without those of NVRTC's alternative build."""
    return sorted(p for p in folder.glob(pattern) if ".alt." not in p.name)
