"""Loops without gradients that nobody looks at: a simulation, clusters, an iteration to a fixed point.

What they record would be one program, as long as the loop runs, and another one for each number of turns. So it is
computed in rounds: of whole turns of the loop, as one ends where the user's code comes to the instruction at which the
one before ended. Each round then is the same program, unless that instruction belongs to a loop inside the loop: where
rounds go on being new programs, the instruction that comes most rarely is looked for. A loop of one instruction, such
as the call of a network, has no rounds.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from graphc.ir.node import Location
from graphc.storage import Storage

ROUND = 128  # recorded operations of a round, at least
LONGEST = 1 << 12  # which that grows to where somebody looks after more of them
MARGIN = 4  # operations before its end from which on a round is asked about: one may count for two, or none
LATE = 8 * ROUND  # operations without the instruction at which rounds end, after which that loop is over
WINDOW = 8 * ROUND  # operations among which the rarest instruction is looked for
MOST_NEW = 3  # rounds one after the other that are new programs, after which it is looked for

Place = frozenset[Location]  # the very object that an instruction has


class Rounds:
    """Where rounds end. It is asked before operations from `length` on, the last few of a round, so that native code
    records the others. `learns`: gradients may be asked for of what is pending, which had better stay one program.
    """

    __slots__ = (
        *("_after", "_before", "_last", "_new", "_open", "_place", "_seen", "_since", "_turn"),
        *("learns", "length"),
    )

    def __init__(self) -> None:
        self.length = ROUND
        self.learns = False
        self._place: Place | None = None
        self._turn = self._after = -1  # of the last question, and after the last round
        self._open = 0  # programs one after the other that were longer, and were not ended here
        self._new = 0  # rounds that were new programs
        self._since = 0  # the number of operations from which on the instruction is waited for
        self._last: Place | None = None  # the instruction of the operation before, and how many there were before it
        self._before = 0
        self._seen: list[Place] | None = None  # the instructions of a window

    def ends(self, place: Place, pending: Sequence[weakref.ref[Storage]], turn: int) -> bool:
        """Whether a round ends before an operation at `place`. `turn` counts programs."""
        count = len(pending)
        if self._turn != turn:
            if self._open > 1:
                self.length = min(2 * self.length, LONGEST)
            self._turn, self._since, self._last, self._open = turn, count, place, self._open + 1
            self.learns = any(map(_has_history, pending))
        if self.learns:
            return False
        is_entered = place is not self._last
        if is_entered and place is self._place and self._seen is None:
            return True
        self._last, self._before = place, count
        if self._seen is not None:
            if is_entered:
                self._seen.append(place)
            if count >= self._since + WINDOW:
                self._place, self._since, self._seen = _rarest(self._seen), count, None
        elif is_entered and (self._place is None or count >= self._since + LATE):
            self._place, self._since, self.length = place, count, ROUND
        return False

    def ended(self, is_new: bool, turn: int) -> None:
        """A round ran as a program that `is_new`, or ran before; it is `turn` now."""
        self._open = 0
        if self._turn == self._after:  # nobody looked since the round before
            self.length = max(self._before - MARGIN, ROUND)
        self._after = turn
        self._new = self._new + 1 if is_new else 0
        self._seen = [] if self._new == MOST_NEW else None


def _rarest(places: Sequence[Place]) -> Place | None:
    """The instruction that comes most rarely, but more than once."""
    counts: dict[int, int] = {}
    for place in places:
        counts[id(place)] = counts.get(id(place), 0) + 1
    return min((p for p in places if counts[id(p)] > 1), key=lambda p: counts[id(p)], default=None)


def _has_history(reference: weakref.ref[Storage]) -> bool:
    storage = reference()
    value = storage.value if storage is not None else None
    return value is not None and value.grad and not value.freed
