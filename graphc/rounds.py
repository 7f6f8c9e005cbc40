"""Loops without gradients that nobody looks at: a simulation, clusters, an iteration to a fixed point.

What they record would be one program, as long as the loop runs, and another one for each number of turns. So it is
computed in rounds: of whole turns of the loop, as one ends where the user's code comes to the instruction at which the
one before ended. Each round then is the same program, unless that instruction belongs to a loop inside the loop: where
rounds go on being new programs, the instruction that comes most rarely is looked for. A loop of one instruction, such
as the call of a network, has no rounds.

Where as much is recorded between two looks again and again, rounds end where they ended before, whatever other loops
there were since; and after some more times there are none, if it is little enough for one program.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from graphc.counting import FRONT
from graphc.ir.node import Location
from graphc.storage import Storage

ROUND = 128  # recorded operations of a round, at least
LONGEST = 1 << 12  # which that grows to where somebody looks after more of them
MARGIN = 4  # operations before its end from which on a round is asked about: one may count for two, or none
LATE = 8 * ROUND  # operations without the instruction at which rounds end, after which that loop is over
WINDOW = 8 * ROUND  # operations among which the rarest instruction is looked for
MOST_NEW = 3  # rounds one after the other that are new programs, after which it is looked for
KNOWN = 256  # loops of which is known how much they record
SETTLED = 3  # times that as much is recorded between two looks, after which rounds end where they ended before
OFTEN = 8  # times after which it is one program
WHOLE = 4 * ROUND  # operations of such a program, at most
NEVER = 1 << 62

Place = frozenset[Location]  # the very object that an instruction has


class _Stretch:
    """What is recorded between two looks: `size` operations, from the first question on to the one after the look,
    `repeats` times one after the other; after how many operations each round ended, and where.
    """

    __slots__ = ("ends", "repeats", "size", "whole")

    def __init__(self) -> None:
        self.ends: list[tuple[int, Place]] = []
        self.size = self.repeats = 0
        self.whole = False  # one program, without rounds

    def is_settled(self) -> bool:
        """Whether its rounds are known."""
        return self.repeats >= SETTLED


class Rounds:
    """Where rounds end. It is asked before operations, so that native code records the others: from the `first` on that
    is recorded after a look, and from the `next` on after a question.
    """

    __slots__ = (
        *("_after", "_asked", "_at", "_before", "_known", "_last", "_learns", "_length", "_new", "_open", "_place"),
        *("_records", "_seen", "_since", "_stretch", "_turn", "first", "next"),
    )

    def __init__(self) -> None:
        self.first = self.next = self._length = ROUND
        self._known: dict[Place, _Stretch] = {}  # by the instruction of the first question after a look
        self._stretch = _Stretch()
        self._records = 0  # operations before its first question
        self._at = 0  # the number of its round that is recorded
        self._learns = False  # gradients may be asked for of what is pending, which had better stay one program
        self._place: Place | None = None
        self._asked = self._turn = self._after = -1  # of the last question, of that about length, after the last round
        self._open = 0  # programs one after the other that were longer, and were not ended here
        self._new = 0  # rounds that were new programs
        self._since = 0  # the number of operations from which on the instruction is waited for
        self._last: Place | None = None  # the instruction of the operation before, and how many there were before it
        self._before = 0
        self._seen: list[Place] | None = None  # the instructions of a window

    def ends(self, place: Place, pending: Sequence[weakref.ref[Storage]], turn: int) -> bool:
        """Whether a round ends before an operation at `place`. `turn` counts programs."""
        count = len(pending)
        if self._asked != turn:
            if turn != self._after:
                self._begin(place)
            self._asked, self._last = turn, place
            self._learns = any(map(has_history, pending))
            self.first = LONGEST if self._learns else ROUND
        self.next = NEVER if self._learns else max(count, self._least())
        if self.next > count:
            return False
        is_entered, self._last = place is not self._last, place
        stretch = self._stretch
        if stretch.is_settled():
            end, at = stretch.ends[self._at] if self._at < len(stretch.ends) else (0, None)
            if is_entered and place is at:
                self._at += 1
                return True
            if count <= end + MARGIN:
                return False
            del stretch.ends[self._at :]  # something else is recorded than before
            stretch.repeats, stretch.whole = 0, False
        if not self._is_end(place, is_entered, count, turn):
            return False
        stretch.ends.append((count, place))
        self._at += 1
        return True

    def ended(self, is_new: bool, turn: int) -> None:
        """A round ran as a program that `is_new`, or ran before; it is `turn` now."""
        if not self._stretch.is_settled():
            self._open = 0
            if self._turn == self._after:  # nobody looked since the round before
                self._length = max(self._before - MARGIN, ROUND)
            self._new = self._new + 1 if is_new else 0
            self._seen = [] if self._new == MOST_NEW else None
        self._after = turn
        self.next = self._least()

    def _begin(self, place: Place) -> None:
        """Somebody looked; `place` is where it is asked first since."""
        stretch, size = self._stretch, FRONT.records - self._records
        if size != stretch.size:
            stretch.size, stretch.repeats, stretch.whole = size, 0, False
        stretch.repeats += 1
        if stretch.repeats >= OFTEN and stretch.ends and size <= WHOLE:
            stretch.whole = True
            stretch.ends.clear()
        if place not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[place] = _Stretch()
        self._stretch = self._known[place]
        self._records, self._at = FRONT.records, 0
        if not self._stretch.is_settled():
            self._stretch.ends.clear()

    def _least(self) -> int:
        """After how many operations the round may end."""
        stretch = self._stretch
        if not stretch.is_settled():
            return self._length
        if self._at < len(stretch.ends):
            return stretch.ends[self._at][0] - MARGIN
        return stretch.size - (0 if stretch.whole else sum(count for count, _ in stretch.ends)) + ROUND

    def _is_end(self, place: Place, is_entered: bool, count: int, turn: int) -> bool:
        """Whether a round of a stretch that is not settled ends."""
        if self._turn != turn:
            if self._open > 1:
                self._length = min(2 * self._length, LONGEST)
            self._turn, self._since, self._open = turn, count, self._open + 1
        if is_entered and place is self._place and self._seen is None:
            return True
        self._before = count
        if self._seen is not None:
            if is_entered:
                self._seen.append(place)
            if count >= self._since + WINDOW:
                self._place, self._since, self._seen = _rarest(self._seen), count, None
                self._length, self._after = ROUND, -1  # this round, which is longer, tells nothing of the others
        elif is_entered and (self._place is None or count >= self._since + LATE):
            self._place, self._since, self._length = place, count, ROUND
        return False


def _rarest(places: Sequence[Place]) -> Place | None:
    """The instruction that comes most rarely, but more than once."""
    counts: dict[int, int] = {}
    for place in places:
        counts[id(place)] = counts.get(id(place), 0) + 1
    return min((p for p in places if counts[id(p)] > 1), key=lambda p: counts[id(p)], default=None)


def has_history(reference: weakref.ref[Storage]) -> bool:
    """Whether a pending storage is part of what gradients will be asked of."""
    storage = reference()
    value = storage.value if storage is not None else None
    return value is not None and value.grad and not value.freed
