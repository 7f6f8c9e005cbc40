"""Nodes of the graph IR and the user source lines they come from."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.types import DType, TensorType

AttrValue = int | float | bool | str | DType | tuple[int, ...]


def attrs_key(attrs: tuple[tuple[str, AttrValue], ...]) -> tuple[object, ...]:
    """Attributes as a key: floats by their bits, so that -0.0 is not 0.0 and NaN equals itself."""
    for _, value in attrs:
        if type(value) is float:
            return tuple((k, v.hex(), "float") if type(v) is float else (k, v) for k, v in attrs)
    return attrs


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A line of the user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


NO_LOCATIONS: frozenset[Location] = frozenset()


class Node:
    """One value of a graph: an operator applied to other nodes. Made by `Builder` only, which interns.

    Immutable as a value: `op`, `inputs`, `attrs` and `type` never change and equality is identity. `locs` is an
    annotation (the set of user lines that produced this value); it may grow when the same value is recorded again
    elsewhere.
    """

    __slots__ = ("__weakref__", "attrs", "inputs", "locs", "op", "type")

    def __init__(
        self,
        op: str,
        inputs: tuple[Node, ...],
        attrs: tuple[tuple[str, AttrValue], ...],
        type: TensorType,
        locs: frozenset[Location] = NO_LOCATIONS,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.type = type
        self.locs = locs

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def attr(self, name: str) -> AttrValue:
        """The attribute `name`; KeyError when the node has none of that name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute {name!r}")

    def ints(self, name: str) -> tuple[int, ...]:
        """The attribute `name`, which must be a tuple of integers."""
        value = self.attr(name)
        assert isinstance(value, tuple), f"{self.op}.{name} is not a list of integers"
        return value

    def integer(self, name: str) -> int:
        """The attribute `name`, which must be an integer."""
        value = self.attr(name)
        assert isinstance(value, int), f"{self.op}.{name} is not an integer"
        return value

    def text(self, name: str) -> str:
        """The attribute `name`, which must be a string."""
        value = self.attr(name)
        assert isinstance(value, str), f"{self.op}.{name} is not a string"
        return value

    def __repr__(self) -> str:
        operands = ", ".join(i.op for i in self.inputs)
        attrs = " {" + ", ".join(f"{k} = {v}" for k, v in self.attrs) + "}" if self.attrs else ""
        return f"<{self.op}({operands}){attrs} : {self.type}>"
