"""What `graphc.compile` notes while it captures a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphc.ir.node import Location
from graphc.storage import Binding


@dataclass(slots=True, eq=False)
class GradNote:
    """What a captured call did with `.grad` of one tensor: `before` is what it read first (False when it wrote first),
    `original` what stood there."""

    tensor: Any
    before: Any = False
    original: Any = None


@dataclass(slots=True, eq=False)
class Capture:
    """Notes of one captured call. `serial` is the number of the last storage made before it.

    `broken` says why the call cannot be replayed; the call goes on all the same. `draws` are the random draws in
    order, with the leaf
    of each key (None for a draw on the host); `guards` the choices that libraries asked to be checked at each replay.
    """

    serial: int
    broken: str = ""
    draws: list[tuple[Any, Binding | None]] = field(default_factory=list)
    grads: dict[int, GradNote] = field(default_factory=dict)
    guards: list[tuple[Any, Any]] = field(default_factory=list)

    def give_up(self, reason: str, where: frozenset[Location] = frozenset()) -> None:
        """The call did something that a replay cannot repeat."""
        if not self.broken:
            lines = ", ".join(map(str, sorted(where)))
            self.broken = f"{reason}{f' at {lines}' if lines else ''}"

    def read_grad(self, tensor: Any) -> None:
        """`.grad` of a tensor is looked at."""
        if id(tensor) not in self.grads:
            self.grads[id(tensor)] = GradNote(tensor, tensor._grad, tensor._grad)

    def write_grad(self, tensor: Any) -> None:
        """`.grad` of a tensor is about to be replaced."""
        if id(tensor) not in self.grads:
            self.grads[id(tensor)] = GradNote(tensor, False, tensor._grad)
