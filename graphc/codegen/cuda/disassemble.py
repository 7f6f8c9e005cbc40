"""The instructions of a cubin in text, by the tools of a CUDA toolkit."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from graphc.codegen.cuda.build import toolkit_program
from graphc.errors import CompileError

_TOOLS = (("nvdisasm", ()), ("cuobjdump", ("-sass",)))


def disassemble(cubin: bytes) -> str:
    """The assembly of `cubin`. CompileError when there is no tool for that."""
    for name, options in _TOOLS:
        path = toolkit_program(name)
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
