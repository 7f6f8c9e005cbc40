"""PyCUDA and cuda-bindings themselves without a GPU: over a libcuda.so.1 whose devices are the host (`libcuda.cpp`).

`make test-libcuda` runs the tests of real devices on it. It takes PyCUDA, cuda-bindings, the header cuda.h of a CUDA
toolkit, and a C++ compiler.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from graphc.codegen.cuda import build
from tests.cuda.shim import Unit, made_library

HERE = Path(__file__).parent
_OF_COMPILERS = ("cuda/test_compile.py", "codegen/test_cuda_build.py", "benchmarks/test_cuda.py")


class HostCompiler:
    """Takes the place of NVRTC: the code of a unit is a library for the host (the protocol `cuda.build.Compiler`)."""

    version = "host libcuda"
    workers = 1

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        return Unit(unit, os.environ.get("GRAPHC_SHIM_VARIANT", "plain")).path.read_bytes(), ""


def load() -> None:
    """Let this library be the process's libcuda.so.1; UsageError where there is no cuda.h."""
    folders = [folder / "include" for folder in build.toolkits()]
    include = next((folder for folder in folders if (folder / "cuda.h").exists()), None)
    if include is None:
        raise pytest.UsageError(
            f"there is no cuda.h in {', '.join(map(str, folders))}: set CUDA_HOME to a CUDA toolkit"
        )
    source = f'#include "{HERE / "libcuda.cpp"}"\n'
    flags = ["-O1", "-g1", f"-I{include}", f"-I{HERE}", "-Wl,-soname,libcuda.so.1", "-ldl"]
    # Whoever asks for libcuda.so.1 gets the library of that name that is loaded already.
    ctypes.CDLL(str(made_library(source, flags, [HERE / "libcuda.hpp", HERE / "libcuda.cpp"])), ctypes.RTLD_GLOBAL)
    # It has not all that PyCUDA might call.
    sys.setdlopenflags(os.RTLD_LAZY)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if str(item.path).endswith(_OF_COMPILERS)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_configure(config: pytest.Config) -> None:
    load()
    build.compiler = HostCompiler
    config.addinivalue_line("filterwarnings", "ignore:CUDA initialization")  # PyTorch's libraries want more of it
