"""Compiled functions that are called with tensors of ever other sizes.

A capture is for the shapes that it saw, and takes as long to compile as hundreds of calls. From the fifth on of calls
that differ in shapes alone a function is run as ordinary code, whose programs are compiled once for all sizes
(`graphc.any_size`), until a call of the same shapes came often.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from graphc.ir.types import TensorType

MOST_SHAPES = 4  # of calls that are captured when they come first, as of programs (`interpreting.MOST_VARIANTS`)
PLAIN_CALLS = 256  # of the same shapes, before they are captured after all
_MOST_KEPT = 1024


class ManyShapes:
    """Which calls are run as ordinary code. `most` shapes are captured at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._captured: dict[Any, int] = {}  # how many shapes of a kind of calls
        self._calls: OrderedDict[Any, int] = OrderedDict()  # how often calls came that are not captured

    def captured(self, key: tuple[Any, ...]) -> None:
        """A call was captured. A key begins with the structure of the arguments (`signatures.flatten`)."""
        kind = _kind(key)
        self._captured[kind] = self._captured.get(kind, 0) + 1
        self._calls.pop(key, None)

    def is_left(self, key: tuple[Any, ...]) -> bool:
        """Whether a call that is not captured is to be run as ordinary code."""
        if self._captured.get(_kind(key), 0) < self.most:
            return False
        self._calls[key] = count = self._calls.pop(key, 0) + 1
        if len(self._calls) > _MOST_KEPT:
            self._calls.popitem(last=False)
        return count <= PLAIN_CALLS


def _kind(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return _shapeless(key[0]), *key[1:]


def _shapeless(structure: Any) -> Any:
    """The structure of arguments without shapes and strides."""
    if not isinstance(structure, tuple):
        return structure
    if len(structure) == 6 and isinstance(type := structure[1], TensorType):
        return type.dtype, type.rank, type.device, structure[2], structure[3] is None, *structure[4:]
    return tuple(map(_shapeless, structure))
