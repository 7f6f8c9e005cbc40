"""LLVM gives the same code for the same text: here a kernel that several programs have is built once, by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps

import pytest

from graphc.codegen.llvm import build

KEPT = 1000  # kernels


_Parts = Callable[[Sequence[str], int], list[tuple[str, ...]]]


def _alone(parts: _Parts) -> _Parts:
    @wraps(parts)
    def each(texts: Sequence[str], count: int) -> list[tuple[str, ...]]:
        return [(text,) for text in texts]

    return each


@contextmanager
def kernels_built_once() -> Iterator[None]:
    """Meanwhile the code of the last kernels is kept by their texts and targets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_generate", lru_cache(KEPT)(build._generate))
        patch.setattr(build, "_parts", _alone(build._parts))
        yield
