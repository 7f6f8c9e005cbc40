"""Plans of native replays on devices that the host drives: guards, addresses and results are native, memory and the
launch are Python's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from graphc.host import TransferExecutable
from graphc.late_checks import FLAG_BYTES
from graphc.native.bringing import bring, current_stream, drive
from graphc.native.library import NativeLibrary
from graphc.native.plans import PlanMaker, require
from graphc.random import key_buffer
from graphc.recording import current
from graphc.replay import Replay
from graphc.signatures import Plain
from graphc_runtime.executor import DeviceExecutable


def _drawn_and_brought(replay: Replay, slots: list[Any], wanted: Sequence[int]) -> list[Any]:
    """Draw for a call, and bring its numbers and keys to the device: the buffers of the slots `wanted`. `slots` are
    those before the keys.
    """
    slots = slots.copy()
    for generator, is_read in replay._draws:
        if is_read:
            slots.append(key_buffer(generator))
        else:
            generator.skip()
    for executable, places in replay._before:
        slots += executable.run([slots[place] for place in places])
    return [slots[slot] for slot in wanted]


class _Judged:
    """Memory for the outputs of a call that checks look at, used again by each call: flags leave it on the stream, and
    so before the next call writes to it.
    """

    def __init__(self, replay: Replay, allocate: Callable[..., Any], first: int) -> None:
        found = [(slot - first, problem) for slot, problem in replay._checks]
        place = {j: at for at, j in enumerate(replay._allocated)}
        require(all(j in place and replay._sizes[place[j]] <= FLAG_BYTES for j, _ in found))
        self.buffers = {j: allocate(replay._sizes[place[j]], replay._what[place[j]]) for j, _ in found}
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
        self._current = current_stream(self._plan, self._device)
        self._judged = _Judged(replay, self._device.allocate, self._first)
        for j, buffer in self._judged.buffers.items():
            self._buffers.values[j] = id(buffer)
        self._keep(self._judged)

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
        drive(self._plan, self._executable, self._current[1], self._addresses)
        return {}

    def _guarding(self, calls: Sequence[tuple[Callable[[], Any], Any]]) -> list[tuple[Callable[[], Any], Any]]:
        return [*super()._guarding(calls), self._current]

    def _numbers(self, slot: int, place_of: Mapping[int, int]) -> None:
        replay, plan = self._replay, self._plan
        buffers = self._scratch.buffers
        plan.table("computes", [(id(c), b.ptr) for c, b in zip(replay._computes, buffers, strict=True)])
        places = {at: place for at, place in place_of.items() if at >= slot}
        if places or replay._draws:
            called = partial(_drawn_and_brought, replay, [*[None] * slot, *buffers], list(places))
            bring(plan, called, self._current[1], [self._addresses.at(place) for place in places.values()])

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
