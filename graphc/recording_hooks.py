"""What stands above the recorder, and what it asks of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.programs import Program
    from graphc.recording import Recorder
    from graphc.storage import Value


def _nothing_needed(recorder: Recorder, value: Value) -> tuple[Node, ...]:
    return ()


# Which values a later `backward` from a value will read; set by `graphc.backward`.
_needed_later: list[Callable[[Recorder, Value], tuple[Node, ...]]] = [_nothing_needed]


def set_needed_later(function: Callable[[Recorder, Value], tuple[Node, ...]]) -> None:
    """Tell what a later `backward` will read."""
    _needed_later[:] = [function]


def needed_later(recorder: Recorder, value: Value) -> tuple[Node, ...]:
    """Computed nodes that the gradient of `value` reads: they are kept when the forward part runs by itself."""
    return _needed_later[0](recorder, value)


# What is done once a recorder has recorded many operations, and after as many more until it gives true.
WHEN_OFTEN: list[Callable[[], bool]] = []


def set_often(function: Callable[[], bool]) -> None:
    """Tell what to do once a recorder has recorded many operations."""
    WHEN_OFTEN[:] = [function]


def _in_python(recorder: Recorder) -> bool | None:
    """Stands for native code where there is none."""
    return None


# What computes what is pending, True, or leaves that to Python, None.
FLUSH: list[Callable[[Recorder], bool | None]] = [_in_python]
# What native code needs to run the program of some nodes, or None when Python must run it.
PLAN: list[Callable[[tuple[Node, ...], Program], Any]] = []
