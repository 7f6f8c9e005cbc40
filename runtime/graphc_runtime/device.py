"""What a device must offer: memory, and to turn an artifact into a program that runs on addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from graphc_runtime.artifact import Artifact


class Program(Protocol):
    """An artifact loaded on a device. It keeps its code alive."""

    # Addresses, where the program is code of this process: of its entry, of the table that is the entry's second
    # operand, and of an i32 that is not 0 when the pool should be started after a run.
    native: tuple[int, int, int] | None

    def run(self, pointers: int, /) -> None:
        """Run once. `pointers` is the address of an array of addresses: inputs, outputs, arena. Safe from several
        threads.
        """
        ...


class Device(Protocol):
    """Something that runs artifacts."""

    name: str
    # Whether the host drives it: buffers are `DeviceBuffer`s, artifacts have steps, and calls return before they are
    # done.
    driven: bool
    # `allocate_all(sizes, what)`: a buffer for each of the sizes, either all or none.
    allocate_all: Callable[[Sequence[int], Sequence[object]], list[Any]]

    def load(self, artifact: Artifact) -> Program:
        """Make the artifact ready to run; LoadError when its code does not fit this machine."""
        ...
