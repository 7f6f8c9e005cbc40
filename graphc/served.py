"""Programs that were never seen, run by what is compiled for all sizes: found by their operators, and compared
with what it was made of, before anything is made of their nodes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from graphc.any_size import Sized
from graphc.counting import FRONT
from graphc.interpreting import MOST_KEPT, Same
from graphc.ir.node import Node
from graphc.memory import AnyBuffer
from graphc.room_programs import Run

FEWEST = 24  # operators of a program that is looked for: to look takes as long as to run it with NumPy
OFTEN = 4  # runs of the same nodes, after which it is looked whether they are worth a program of their own

_lock = threading.RLock()
_like: OrderedDict[int, Same | None] = OrderedDict()  # what programs with the same operators have in common


class Served:
    """Runs a program by what is compiled for all sizes, and by what `otherwise` makes where that is not to be had."""

    def __init__(self, run: Run, outputs: int, sized: Sized, otherwise: Callable[[], Any]) -> None:
        self.output_aliases = (-1,) * outputs
        self.served = run
        self._sized = sized
        self._changes = sized.changes
        self._otherwise = otherwise
        self._runs = 0

    @property
    def is_due(self) -> bool:
        """Whether it ran often."""
        return self._runs >= OFTEN

    @property
    def is_outdated(self) -> bool:
        """Whether there is something else for other sizes now."""
        return self._sized.changes != self._changes

    def run(self, inputs: Sequence[AnyBuffer]) -> list[AnyBuffer]:
        """The outputs for the inputs' buffers, in memory of their own."""
        self._runs += 1
        made = self.served(inputs)
        if made is None:
            return self._otherwise().run(inputs)
        FRONT.any_size += 1
        return list(made)


def served(
    inputs: Sequence[Node], order: Sequence[Node], outputs: Sequence[Node], otherwise: Callable[[], Any]
) -> Served | None:
    """What runs the nodes `order`, operands before users; None where they are few, or nothing is known to do that."""
    if len(order) < FEWEST or any(node.type.device != order[0].type.device for node in inputs):
        return None
    with _lock:
        same = _like.get(operators(order))
    if same is None or same.sized is None or same.sized.is_given_up:
        return None
    run = same.sized.runner(inputs, order, outputs)
    return None if run is None else Served(run, len(outputs), same.sized, otherwise)


def may_be_served(order: Sequence[Node]) -> bool:
    """Whether a program is not short, has the operators of others, and something compiled for all sizes may run it."""
    if len(order) < FEWEST:
        return False
    ops = operators(order)
    with _lock:
        if ops not in _like:
            keep_like(ops, None)
            return False
        same = _like[ops]
    return same is None or same.sized is None or not same.sized.is_given_up


def operators(order: Sequence[Node]) -> int:
    """What stands for the operators of a program, and its device."""
    return hash((order[0].type.device, *[node.op for node in order]))


def keep_like(ops: int, same: Same | None) -> None:
    """Know what programs with such operators have in common."""
    with _lock:
        _like[ops] = same
        _like.move_to_end(ops)
        if len(_like) > MOST_KEPT:
            _like.popitem(last=False)
