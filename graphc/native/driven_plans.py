"""Plans of native replays on devices that the host drives: guards, addresses and results are native, memory and the
launch are Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from graphc.host import TransferExecutable
from graphc.late_checks import FLAG_BYTES
from graphc.native.library import NativeLibrary
from graphc.native.plans import PlanMaker, require
from graphc.random import key_buffer
from graphc.recording import current
from graphc.replay import Replay
from graphc.signatures import Plain
from graphc_runtime.executor import DeviceExecutable


class _Brought:
    """The numbers of a call, and the keys of its draws, brought to the device.

    `first` gives the buffer of the first of the slots `wanted`, and each call of `following` that of the next one.
    """

    def __init__(
        self, replay: Replay, numbers: Sequence[Any], sources: int, wanted: Sequence[int], stream: Any
    ) -> None:
        self._replay = replay
        self._numbers = numbers
        self._sources = sources
        self._wanted = wanted
        self._stream = stream
        self._left: list[Any] = []

    def first(self) -> Any:
        """Draw, and bring all."""
        slots = [*[None] * self._sources, *self._numbers]
        for generator, is_read in self._replay._draws:
            if is_read:
                slots.append(key_buffer(generator))
            else:
                generator.skip()
        for executable, places in self._replay._before:
            slots += executable.run([slots[place] for place in places])
        self._left = [slots[slot] for slot in reversed(self._wanted)]
        return self.following() if self._left else None

    def following(self) -> Any:
        """The next buffer."""
        buffer = self._left.pop()
        buffer.used_by(self._stream)
        return buffer


class _Judged:
    """Memory for the outputs of a call that checks look at, used again by each call: flags leave it on the stream, and
    so before the next call writes to it.
    """

    def __init__(self, replay: Replay, allocate: Callable[..., Any], first: int) -> None:
        found = [(slot - first, problem) for slot, problem in replay._checks]
        place = {j: at for at, j in enumerate(replay._allocated)}
        require(all(j in place and replay._sizes[place[j]] <= FLAG_BYTES for j, _ in found))
        self.buffers = {j: allocate(replay._sizes[place[j]], replay._types[place[j]]) for j, _ in found}
        self._checks = [(self.buffers[j], problem) for j, problem in found]

    def judge(self) -> None:
        """What the checks found is looked at later."""
        late = current().late
        for buffer, problem in self._checks:
            late.judge(buffer, problem)


class DrivenPlanMaker(PlanMaker):
    """A plan in the making, of a replay whose program runs on one such device and the stream that is current now."""

    again = -1  # another stream may read what was a result

    _executable: Any

    def __init__(self, native: NativeLibrary, replay: Replay, plain: Plain) -> None:
        super().__init__(native, replay, plain)
        self._device = self._executable.device
        self._stream = self._device.current_stream
        self._judged = _Judged(replay, self._device.allocate, self._first)
        for j, buffer in self._judged.buffers.items():
            self._buffers.values[j] = id(buffer)
        self._keep(self._stream, self._judged)

    @staticmethod
    def _suits(replay: Replay) -> bool:
        hosted = len(replay._storages) + len(replay._arguments) + len(replay._gradients)
        return (
            isinstance(replay._segments[-1][0], DeviceExecutable)
            and replay._main is not None
            and not (replay._after or replay._brings or replay._flags or any(copied for *_, copied in replay._fresh))
            and all(isinstance(executable, TransferExecutable) for executable, _ in replay._before)
            and all(hosted <= slot < replay._first_output for _, places in replay._before for slot in places)
        )

    def _way(self) -> dict[str, int]:
        launch = partial(self._executable.launch_at, self._addresses.values)
        self._keep(launch)
        return {"launch": id(launch), "stream": id(self._stream)}

    def _guarding(self, calls: Sequence[tuple[Callable[[], Any], Any]]) -> list[tuple[Callable[[], Any], Any]]:
        stream = partial(getattr, self._device, "current_stream")
        self._keep(stream)
        return [*super()._guarding(calls), (stream, self._stream)]

    def _numbers(self, slot: int, place_of: Mapping[int, int]) -> None:
        replay, plan = self._replay, self._plan
        buffers = self._scratch.buffers
        plan.table("computes", [(id(c), b.ptr) for c, b in zip(replay._computes, buffers, strict=True)])
        places = {at: place for at, place in place_of.items() if at >= slot}
        brought = _Brought(replay, buffers, slot, list(places), self._stream)
        functions = brought.first, brought.following
        self._keep(functions)
        records = [
            (id(functions[min(i, 1)]), id(()), self._addresses.at(place)) for i, place in enumerate(places.values())
        ]
        if not records and replay._draws:
            records = [(id(functions[0]), id(()), 0)]
        plan.table("draws", records)

    def _take(self, nbytes: int, what: object) -> int:
        return self._plan.take_of(self._device.allocate, nbytes, what)

    def _result(self) -> None:
        super()._result()
        require(self._results.isdisjoint(self._judged.buffers))
        self._results.update(self._judged.buffers)  # nothing is taken for them

    def _arena(self, takes: list[tuple[int, int]], outputs: list[tuple[int, int]]) -> None:
        """The launch takes it."""

    def _checks(self) -> None:
        self._plan.table("flags", [])
        judge = self._judged.judge
        self._keep(judge)
        self._plan.set("check", id(judge))
        self._plan.set("always_check", int(bool(self._judged.buffers)))
