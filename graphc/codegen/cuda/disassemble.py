"""The instructions of a cubin in text, by the tools of a CUDA toolkit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from graphc.errors import CompileError

_TOOLS = (("nvdisasm", ()), ("cuobjdump", ("-sass",)))


def disassemble(cubin: bytes) -> str:
    """The assembly of `cubin`. CompileError when there is no tool for that."""
    for name, options in _TOOLS:
        path = _find(name)
        if path is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "unit.cubin")
            file.write_bytes(cubin)
            done = subprocess.run([path, *options, str(file)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompileError(f"{path} cannot read the compiled kernels: {done.stderr.strip()}")
        return done.stdout
    names = " and ".join(name for name, _ in _TOOLS)
    raise CompileError(
        f"there is no tool to disassemble kernels: {names} are neither on PATH nor in CUDA_HOME/bin; install a CUDA "
        f"toolkit, or look at stage 'ptx'"
    )


def _find(name: str) -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if home and os.access(path := Path(home, "bin", name), os.X_OK):
            return str(path)
    return shutil.which(name)
