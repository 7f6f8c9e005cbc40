"""Process-wide counters: what the compiler and the runtime have done. Tests assert on them, `graphc.counters()` shows
them.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

_NAMES: tuple[str, ...] = (
    "traces",  # calls recorded whole: by `graphc.trace`, or captured by `graphc.compile`
    "compiles",  # programs that went through code generation
    "tuned_kernels",  # kernels whose schedules were searched
    "tuned_faster",  # those of which another schedule than the cost model's was kept
    "candidates",  # schedules that were compiled and timed for that, besides the cost model's
    "cache_hits",  # look-ups in the kernel cache answered from memory or disk
    "cache_disk_hits",  # those answered from disk
    "cache_misses",
    "cache_bad",  # entries on disk that were damaged, foreign or made for another machine
    "launches",  # kernels run
    "runs",  # calls of programs
    "allocations",  # blocks of memory asked from the system (not those re-used)
)


@dataclass(slots=True, eq=False)
class Tally:
    """What one thread has run. Nobody else writes it, so counting takes no lock."""

    runs: int = 0
    launches: int = 0


class _Own(threading.local):
    """The tally of the thread that asks."""

    def __init__(self, all_tallies: list[Tally]) -> None:
        self.tally = Tally()
        all_tallies.append(self.tally)


class Counters:
    """Integers by name. Safe from several threads; a fork starts with the parent's values.

    `own.tally` counts the runs of this thread, `locked` those of native replays, `flushed` those of native flushes.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a finalizer may count while its thread counts
        self._tallies: list[Tally] = []
        self.own = _Own(self._tallies)
        self.locked = Tally()  # of whoever counts with the interpreter's lock held throughout
        self.flushed = Tally()  # likewise
        self._tallies += self.locked, self.flushed
        self._values: dict[str, int] = dict.fromkeys(_NAMES, 0)
        self.peak_bytes = 0  # largest sum of live tensor and arena memory

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._values[name] += amount

    def add_peak(self, live_bytes: int) -> None:
        """So much memory is in use now."""
        with self._lock:
            self.peak_bytes = max(self.peak_bytes, live_bytes)

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            runs, launches = self._run()
            values = self._values
            counted = {"runs": values["runs"] + runs, "launches": values["launches"] + launches}
            return {**values, **counted, "peak_bytes": self.peak_bytes}

    def reset(self) -> None:
        with self._lock:
            # Tallies belong to their threads: what they show now is taken off from now on.
            runs, launches = self._run()
            self._values = {**dict.fromkeys(_NAMES, 0), "runs": -runs, "launches": -launches}
            self.peak_bytes = 0

    def _run(self) -> tuple[int, int]:
        """Runs and launches of all threads since the start."""
        tallies = tuple(self._tallies)
        return sum(t.runs for t in tallies), sum(t.launches for t in tallies)

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()


COUNTERS = Counters()
os.register_at_fork(after_in_child=COUNTERS.after_fork)


def counters() -> dict[str, int]:
    """A snapshot of all counters."""
    return COUNTERS.snapshot()


def reset() -> None:
    """Set all counters to zero (`peak_bytes` starts again from what is live at the next allocation)."""
    COUNTERS.reset()
