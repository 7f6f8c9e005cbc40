"""What was decided about an operation: looked up by the types of its operands and by its arguments.

A training loop calls the same operations with the same types over and over. Their arguments are checked, and the
function that records them is made, the first time only.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Generic, TypeVar

from graphc.tensors.core import TensorBase

Plan = TypeVar("Plan")

_MOST = 20_000
_FIXED = frozenset((int, bool, float, str, type(None)))


def _is_fixed(value: Any) -> bool:
    """Whether `value` is the same whenever it is the same object."""
    return value.__class__ in _FIXED or (value.__class__ is tuple and all(n.__class__ in _FIXED for n in value))


class Plans(Generic[Plan]):
    """The plans of one function. `same` finds them by the identity of arguments, which layers give again and again:
    its entries hold these arguments.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Plan] = {}
        self.same: dict[tuple[Any, ...], tuple[Plan, tuple[Any, ...]]] = {}

    def keep_same(self, key: tuple[Any, ...], plan: Plan, arguments: tuple[Any, ...]) -> Plan:
        """`plan`, found in `same` from now on, if `arguments`, whose identities `key` holds, can never change."""
        if all(map(_is_fixed, arguments)):
            if len(self.same) >= _MOST:
                self.same.clear()
            self.same[key] = plan, arguments
        return plan

    @staticmethod
    def key(*parts: Any) -> tuple[Any, ...]:
        """What a plan depends on: types of tensors, and arguments with their own types (1.0 is not 1)."""
        found: list[Any] = []
        for part in parts:
            kind = part.__class__
            if kind is int or kind is str or part is None:
                found.append(part)
            elif isinstance(part, TensorBase):
                found.append(part._type)
            elif kind is tuple:
                found += (part, *[n.__class__ for n in part])
            else:
                found += (kind, part)
        return tuple(found)

    def get(self, key: tuple[Any, ...]) -> Plan | None:
        """The plan for `key`; None when there is none yet."""
        try:
            return self._known.get(key)
        except TypeError:  # an argument that cannot be a key, such as a list
            return None

    def keep(self, key: tuple[Any, ...], plan: Plan) -> Plan:
        """`plan`, found from now on."""
        if len(self._known) >= _MOST:
            self._known.clear()
        with suppress(TypeError):
            self._known[key] = plan
        return plan
