"""Native forms of replays, as recent signatures keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.native.driven_plans import DrivenPlanMaker
from graphc.native.library import NativeLibrary, library
from graphc.native.plans import PlanMaker, Unsuitable
from graphc.native.tables import Plan
from graphc.replay import Replay
from graphc.signatures import Plain
from graphc_runtime.executor import DeviceExecutable
from graphc_runtime.options import NATIVE_CALLS

_MOST_MISSED, _TRIED_AGAIN = 16, 256  # calls in a row


class Direct:
    """A native replay: `call(*arguments)` gives the result, or MISSED when it did nothing. `held` is the address of its
    plan, and what that needs.
    """

    def __init__(self, plan: Plan, native: NativeLibrary, replay: Replay, *needed: object) -> None:
        self._plan = plan
        self._replay = replay
        self.held = (plan.words.address, plan.keep, plan.words, native, *needed)
        self.call = native.function(self.held)

    def renewed(self) -> Callable[..., Any] | None:
        """The replay was done in Python, as it could not be done here. What to call the next time; None when many calls
        in a row were in vain.
        """
        self._plan.set("writes_seen", self._replay._guards._writes_seen)
        missed = self._plan.get("missed_calls") + 1
        self._plan.set("missed_calls", missed)
        return self.call if missed <= _MOST_MISSED or missed % _TRIED_AGAIN == 0 else None


def direct(replay: Replay, plain: Plain) -> Direct | None:
    """The native form of a replay for arguments like `plain`; None when there is none."""
    native = library() if NATIVE_CALLS.get() else None
    if native is None:
        return None
    classes = tuple([cls for _, cls, *_ in plain.types])  # all else is the same in all calls of this replay
    if classes not in replay.natives:
        try:
            driven = any(isinstance(executable, DeviceExecutable) for executable, _ in replay._segments)
            plan = (DrivenPlanMaker if driven else PlanMaker)(native, replay, plain).made()
            replay.natives[classes] = Direct(plan, native, replay, plain)
        except Unsuitable:
            replay.natives[classes] = None
    return replay.natives[classes]
