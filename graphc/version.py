"""Versions, as PyTorch's programs ask for them: `cuda` is that of the CUDA compiler, None where there is none."""

from __future__ import annotations

import re

import graphc
from graphc.absence import no_attribute
from graphc.codegen.cuda.build import compiler_version
from graphc.errors import CompileError

__all__ = ["__version__", "cuda", "debug", "git_version", "hip", "rocm", "xpu"]

__version__ = graphc.__version__
debug = False
git_version = "Unknown"  # as PyTorch's is outside of a repository
hip = rocm = xpu = None

cuda: str | None


def __getattr__(name: str) -> str | None:
    if name != "cuda":
        raise no_attribute("module 'graphc.version'", name, "version")
    try:
        found = re.search(r"\d+\.\d+", compiler_version())
    except CompileError:
        return None
    return found[0] if found else None
