"""Float arguments of a compiled function: which are constants of its captures, and which are read at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MOST_VALUES = 8  # combinations of constants that are captured; with others the function runs plainly

Key = tuple[str, ...]


class FloatArguments:
    """A float is a constant until it is seen to change. Then a tensor stands for it, which is read at run time; where
    the function does what tensors do not do in place of numbers (`looks`, asked once), it stays a constant.
    """

    def __init__(self, looks: Callable[[], bool]) -> None:
        self.changing: set[int] = set()  # places of floats that are read at run time
        self._fixed: set[int] = set()
        self._first: dict[int, float] = {}
        self._captured: set[Key] = set()
        self._looks = looks
        self._answer: bool | None = None

    def key(self, floats: Sequence[float]) -> Key:
        """What a capture depends on of these floats."""
        for place, value in enumerate(floats):
            is_open = place not in self.changing and place not in self._fixed
            if is_open and self._first.setdefault(place, value) != value:
                if self._answer is None:
                    self._answer = self._looks()
                (self._fixed if self._answer else self.changing).add(place)
        return tuple(["changes" if place in self.changing else value.hex() for place, value in enumerate(floats)])

    def fix(self) -> None:
        """No tensor can stand for a float of this function."""
        self._fixed |= self.changing
        self.changing.clear()

    def captures(self, key: Key) -> bool:
        """Whether a call with these constants is to be captured: the first few that differ are."""
        if self._fixed and key not in self._captured:
            if len(self._captured) >= MOST_VALUES:
                return False
            self._captured.add(key)
        return True


def with_floats(result: Any, floats: Mapping[int, float]) -> Any:
    """A result with floats in place of the tensors that stood for them, by the identity of these; also in lists, tuples
    and dictionaries. The same object where there are none.
    """
    if id(result) in floats:
        return floats[id(result)]
    if type(result) in (list, tuple):
        made = [with_floats(item, floats) for item in result]
        return result if all(a is b for a, b in zip(made, result, strict=True)) else type(result)(made)
    if type(result) is dict:
        named = {key: with_floats(item, floats) for key, item in result.items()}
        return result if all(named[key] is result[key] for key in result) else named
    return result
