"""Classes of plain data that are quick to make: loading the compiler makes a hundred of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T]) -> type[T]: ...


@overload
def record(*, slots: bool) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[Any] | None = None, *, slots: bool = True) -> Any:
    """A frozen dataclass, made in a third of the time: comparing, hashing and printing share functions where
    `dataclass` compiles some for each class, and only the type checker refuses assignments, which makes instances
    quicker too. Without `slots` it can have cached properties.
    """
    return _made(cls, slots) if cls is not None else lambda given: _made(given, slots)


def _made(cls: type[Any], slots: bool) -> type[Any]:
    made = dataclass(eq=False, repr=False, slots=slots)(cls)
    names = tuple(f.name for f in fields(made))
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def __eq__(self: Any, other: object) -> bool:
        if self is other:
            return True
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: Any) -> int:
        return hash(values(self))

    made.__eq__, made.__hash__ = __eq__, __hash__
    if made.__repr__ is object.__repr__:
        made.__repr__ = _text
    return made


def members(cls: type[Any]) -> tuple[Field[Any], ...]:
    """The fields of a class of records, in order."""
    return fields(cls)


def _text(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))})"
