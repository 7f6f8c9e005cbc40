"""What native code needs of a device that the host drives: its launch, its memory, and numbers brought to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from graphc.native.tables import Plan, Words
from graphc_runtime.executor import DeviceExecutable


class _Several:
    """Buffers that are made together, and asked for one by one: `first` makes all and gives the first; `following`,
    which is not Python's, gives the next one.
    """

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make
        self._left: list[Any] = []
        self.following = self._left.pop

    def first(self) -> Any:
        self._left[:] = reversed([*self._make()])
        return self._left.pop() if self._left else None


class Taken:
    """New memory for a call, in one visit to the pool of its device."""

    def __init__(self, plan: Plan, device: Any) -> None:
        self._plan = plan
        self._sizes: list[int] = []
        self._types: list[object] = []
        self._several = _Several(lambda: device.allocate_all(self._sizes, self._types))

    def take(self, nbytes: int, what: object) -> int:
        """A record of memory for `what`. All of them are taken for a call, in the order in which they were made."""
        self._sizes.append(nbytes)
        self._types.append(what)
        several = self._several
        return self._plan.take_of(several.first if len(self._sizes) == 1 else several.following)


def bring(plan: Plan, called: Callable[[], list[Any]], stream: Any, places: Sequence[int]) -> None:
    """Let a plan call `called`, and put the addresses of the buffers that it gives to these places."""

    def made() -> list[Any]:
        buffers = called()
        for buffer in buffers:
            buffer.used_by(stream)
        return buffers

    several = _Several(made)
    functions = several.first, several.following
    plan.keep.append(functions)
    plan.table("draws", [(id(functions[min(i, 1)]), id(()), place) for i, place in enumerate(places or (0,))])


def drive(plan: Plan, executable: DeviceExecutable, stream: Any, addresses: Words) -> None:
    """Let a plan launch a program on buffers of a stream, whose addresses it has put to `addresses`."""
    launch = partial(executable.launch_at, addresses.values)
    plan.keep += launch, stream
    plan.set("launch", id(launch))
    plan.set("stream", id(stream))


def current_stream(plan: Plan, device: Any) -> tuple[Callable[[], Any], Any]:
    """A function of the plan that gives the stream that is current, and which is so now."""
    get = partial(getattr, device, "current_stream")
    plan.keep.append(get)
    return get, device.current_stream
