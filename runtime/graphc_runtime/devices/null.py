"""The null device: runs nothing and fills outputs with zeros. For tests of compilers, which count launches and check
plans.
"""

from __future__ import annotations

import ctypes

from graphc_runtime.artifact import Artifact
from graphc_runtime.buffer import Buffer


class NullProgram:
    """Writes zeros to every output that has a buffer of its own."""

    native: tuple[int, int, int] | None = None

    def __init__(self, artifact: Artifact) -> None:
        first = len(artifact.inputs)
        self._fills = tuple(
            (first + i, spec.nbytes)
            for i, (spec, alias) in enumerate(zip(artifact.outputs, artifact.output_aliases, strict=True))
            if alias < 0
        )
        self._count = first + len(artifact.outputs)

    def run(self, pointers: int, /) -> None:
        addresses = (ctypes.c_size_t * self._count).from_address(pointers)
        for i, nbytes in self._fills:
            ctypes.memset(addresses[i], 0, nbytes)


class NullDevice:
    """See the module."""

    name = "null"
    driven = False
    allocate_all = staticmethod(Buffer.allocate_all)

    def load(self, artifact: Artifact) -> NullProgram:
        return NullProgram(artifact)
