"""What `graphc.compile` notes while it captures a call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphc.ir.node import Location
from graphc.storage import Binding, Storage
from graphc.tensors.views import Chain


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

    `broken` says why the call cannot be replayed; the call goes on all the same. `draws` are the random draws in order,
    with the leaf of each key (None for a draw on the host); `guards` the choices that libraries asked to be checked at
    each replay. `parts` are arguments that are views, by the storage that they show: the chain of each, and the leaf of
    a copy.
    """

    serial: int
    broken: str = ""
    draws: list[tuple[Any, Binding | None]] = field(default_factory=list)
    grads: dict[int, GradNote] = field(default_factory=dict)
    guards: list[tuple[Any, Any]] = field(default_factory=list)
    parts: dict[Storage, list[tuple[Chain, Binding]]] = field(default_factory=dict)

    def give_up(self, reason: str, where: frozenset[Location] = frozenset()) -> None:
        """The call did something that a replay cannot repeat."""
        if not self.broken:
            lines = ", ".join(map(str, sorted(where)))
            self.broken = f"{reason}{f' at {lines}' if lines else ''}"

    def part(self, storage: Storage, chain: Chain) -> tuple[Binding, Chain] | None:
        """The leaf that stands for an argument of which `chain` shows something, and the rest of the chain. None once
        the call cannot be replayed: after a look at values, memory may have other contents than the copy.
        """
        if self.broken:
            return None
        for begin, binding in self.parts.get(storage, ()):
            if chain[: len(begin)] == begin:
                return binding, chain[len(begin) :]
        return None

    def read_grad(self, tensor: Any) -> None:
        """`.grad` of a tensor is looked at."""
        if id(tensor) not in self.grads:
            self.grads[id(tensor)] = GradNote(tensor, tensor._grad, tensor._grad)

    def write_grad(self, tensor: Any) -> None:
        """`.grad` of a tensor is about to be replaced."""
        if id(tensor) not in self.grads:
            self.grads[id(tensor)] = GradNote(tensor, False, tensor._grad)
