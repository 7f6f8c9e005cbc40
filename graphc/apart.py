"""Whether updates are computed apart from the gradients that they read.

A step of training is one program. Where gradients are another program each time, as those of batches of ever other
sizes are, all that an optimizer does would be recorded, looked up and compiled anew with it. Computed apart, it is the
same program in every step.
"""

from __future__ import annotations

MOST_NEW = 8  # steps one after the other whose updates read gradients that were never seen
AGAIN = 256  # steps one after the other whose gradients were known, after which they are one program again


class Apart:
    """What is known of the steps of a recorder; whether its updates are computed apart now (`is_now`)."""

    __slots__ = ("_again", "_new", "_turn", "is_now")

    def __init__(self) -> None:
        self.is_now = False
        self._new = self._again = 0
        self._turn = -1

    def found(self, is_known: bool, turn: int) -> None:
        """Note updates, and whether there were such with the same gradients before. `turn` counts programs."""
        if is_known:
            self._new = 0
        elif turn != self._turn:
            self._turn = turn
            self._new += 1
            self.is_now = self.is_now or self._new >= MOST_NEW

    def computed(self, is_known: bool) -> None:
        """Note a program of gradients alone, and whether there was the same before."""
        self._again = self._again + 1 if is_known else 0
        if self._again >= AGAIN:
            self.is_now = False
            self._new = self._again = 0
