"""Loops without gradients that nobody looks at: a simulation, clusters, an iteration to a fixed point.

What they record would be one program, as long as the loop runs, and another one for each number of turns. So it is
computed in rounds: of whole turns of the loop, as one ends where the user's code comes to the instruction at which the
one before ended. Each round then is the same program, unless that instruction belongs to a loop inside the loop: where
rounds go on being new programs, the instruction that comes most rarely is looked for. A loop of one instruction, such
as the call of a network, has no rounds.

A loop may run again and again, with a look at its result in between. Its rounds then end where they ended before, and
once they did so several times, what is recorded between two looks is one program, if it is not too long.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from graphc.counting import FRONT
from graphc.ir.node import Location
from graphc.storage import Storage

ROUND = 128  # recorded operations of a round, at least
LONGEST = 1 << 12  # after which it is asked where gradients were asked for before
MARGIN = 4  # operations before its end from which on a round is asked about: one may count for two, or none
LATE = 8 * ROUND  # operations without the instruction at which rounds end, after which that loop is over
WINDOW = 8 * ROUND  # operations among which the rarest instruction is looked for
MOST_NEW = 3  # rounds one after the other that are new programs, after which it is looked for
KNOWN = 256  # loops whose rounds are known
OFTEN = 8  # times that the same is recorded between two looks, after which it is one program
WHOLE = 4 * ROUND  # operations of such a program, at most
NEVER = 1 << 62

Place = frozenset[Location]  # the very object that an instruction has


class _Script:
    """The rounds between two looks: after how many operations each ends, and where; `total` operations in all. `cycle`
    operations lay between the first question and that after the look, `repeats` times one after the other; `whole` if
    there are no rounds.
    """

    __slots__ = ("cycle", "ends", "place", "repeats", "total", "whole")

    def __init__(self) -> None:
        self.ends: list[tuple[int, Place]] = []
        self.place: Place | None = None  # the instruction at which rounds behind them end
        self.cycle = self.repeats = self.total = 0
        self.whole = False

    def add(self, count: int, place: Place) -> None:
        """Another round."""
        self.ends.append((count, place))
        self.total += count
        self.repeats = 0

    def cut(self, number: int) -> None:
        """What is recorded from this round on is something else than before."""
        del self.ends[number:]
        self.total = sum(count for count, _ in self.ends)
        self.whole, self.repeats = False, 0


class Rounds:
    """Where rounds end. It is asked before operations, so that native code records the others: from the `first` on that
    is recorded after a look, and from the `next` on after a question.
    """

    __slots__ = (
        *("_after", "_at", "_before", "_known", "_last", "_learns", "_length", "_new", "_records", "_script", "_seen"),
        *("_since", "_turn", "first", "next"),
    )

    def __init__(self) -> None:
        self.first = self.next = ROUND
        self._learns = False  # gradients may be asked for of what is pending, which had better stay one program
        self._known: dict[Place, _Script] = {}  # by the instruction of the first question after a look
        self._script = _Script()
        self._at = 0  # the round of the script that is recorded; behind its rounds, one is looked for
        self._records = 0  # operations before the first question
        self._length = ROUND  # of a round
        self._turn = self._after = -1  # of the last question, and after the last round
        self._new = 0  # rounds that were new programs
        self._since = 0  # the number of operations from which on the instruction is waited for
        self._last: Place | None = None  # the instruction of the operation before, and how many there were before it
        self._before = 0
        self._seen: list[Place] | None = None  # the instructions of a window

    def ends(self, place: Place, pending: Sequence[weakref.ref[Storage]], turn: int) -> bool:
        """Whether a round ends before an operation at `place`. `turn` counts programs."""
        count = len(pending)
        if self._turn != turn:
            if turn != self._after:
                self._begin(place)
            self._turn, self._since, self._last = turn, count, place
            self._learns = any(map(_has_history, pending))
            self.first = LONGEST if self._learns else ROUND
        if self._learns:
            self.next = NEVER
            return False
        self.next = max(count, self._least())
        if self.next > count:
            return False
        is_entered, self._last = place is not self._last, place
        script = self._script
        if script.whole or self._at < len(script.ends):
            end, at = (0, None) if script.whole else script.ends[self._at]
            if is_entered and place is at:
                self._at += 1
                return True
            if count <= end + MARGIN:
                return False
            script.cut(self._at)
        if is_entered and place is script.place and self._seen is None:
            script.add(count, place)
            self._at += 1
            return True
        self._before = count
        if self._seen is not None:
            if is_entered:
                self._seen.append(place)
            if count >= self._since + WINDOW:
                script.place, self._since, self._seen = _rarest(self._seen), count, None
        elif is_entered and (script.place is None or count >= self._since + LATE):
            script.place, self._since, self._length = place, count, ROUND
        return False

    def ended(self, is_new: bool, turn: int) -> None:
        """A round ran as a program that `is_new`, or ran before; it is `turn` now."""
        if self._turn == self._after:  # nobody looked since the round before
            self._length = max(self._before - MARGIN, ROUND)
        self._after = turn
        if self._at == len(self._script.ends):
            self._new = self._new + 1 if is_new else 0
            self._seen = [] if self._new == MOST_NEW else None
        self.next = self._least()

    def _least(self) -> int:
        """After how many operations the round may end."""
        script = self._script
        if script.whole:
            return script.cycle + ROUND
        if self._at < len(script.ends):
            return script.ends[self._at][0] - MARGIN
        if self._seen is not None:
            return 0
        return max(self._length, script.cycle - script.total + MARGIN if script.repeats > 1 else 0)

    def _begin(self, place: Place) -> None:
        """Somebody looked; `place` is where it is asked first since."""
        before, cycle = self._script, FRONT.records - self._records
        if cycle != before.cycle:
            before.cycle, before.repeats, before.whole = cycle, 0, False
        before.repeats += 1
        if before.repeats >= OFTEN and before.ends and cycle <= WHOLE:
            before.cut(0)
            before.whole = True
        if place not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[place], self._length = _Script(), ROUND
        self._script = self._known[place]
        self._records, self._at, self._seen = FRONT.records, 0, None


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
