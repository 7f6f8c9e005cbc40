"""LLVM gives the same code for the same text: here a kernel that several programs have is built once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import pytest

from graphc.codegen.llvm import build

KEPT = 1000  # kernels


@contextmanager
def kernels_built_once() -> Iterator[None]:
    """Meanwhile the code of the last kernels is kept by their texts and targets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_generate", lru_cache(KEPT)(build._generate))
        yield
