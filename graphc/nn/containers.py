"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

import operator
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, groupby
from typing import Any, Self

from graphc.errors import CheckError, InputError, KindError, RangeError
from graphc.nn.hook_tables import count_write
from graphc.nn.module import Module, _indent


def pairs(name: str, given: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a mapping, or of an iterable of pairs; TypeError and ValueError in the name of a container's
    `update`."""
    holder = name.replace("Parameters", "Parameter")
    if not isinstance(given, Iterable):
        raise KindError(
            f"{name}.update should be called with an iterable of key/value pairs, but got {type(given).__name__}"
        )
    if isinstance(given, Mapping) or hasattr(given, "items"):
        yield from given.items()  # type: ignore[union-attr]
        return
    for place, entry in enumerate(given):
        if not isinstance(entry, Iterable):
            raise KindError(f"{holder} update sequence element #{place} should be Iterable; is{type(entry).__name__}")
        items = list(entry)
        if len(items) != 2:
            raise InputError(f"{holder} update sequence element #{place} has length {len(items)}; 2 is required")
        yield items[0], items[1]


class _Ordered(Module):
    """Children in order, named by position unless said otherwise."""

    def _at(self, index: Any) -> str:
        """The name at a position; IndexError when there is none."""
        index = operator.index(index)
        size = len(self._modules)
        if not -size <= index < size:
            raise RangeError(f"index {index} is out of range")
        return list(self._modules)[index]

    def _renumber(self, modules: Iterable[Any]) -> None:
        items = {str(position): module for position, module in enumerate(modules)}
        self._modules.clear()
        self._modules.update(items)
        count_write()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules.values())

    def __setitem__(self, index: int, module: Any) -> None:
        setattr(self, self._at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        if not isinstance(index, slice):
            self._at(index)
        items = list(self)
        del items[index]
        self._renumber(items)

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def pop(self, key: Any) -> Any:
        """Takes a module out and returns it."""
        taken = self[key]  # type: ignore[index]
        del self[key]
        return taken


class Sequential(_Ordered):
    """Applies modules one after the other. Takes them in order, or one OrderedDict of names and modules."""

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for position, module in enumerate(args):
                self.add_module(str(position), module)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._at(index)]

    def _check_other(self, other: object) -> None:
        if not isinstance(other, Sequential):
            raise InputError(f"add operator supports only objects of Sequential class, but {type(other)} is given.")

    def __add__(self, other: Sequential) -> Sequential:
        self._check_other(other)
        return Sequential(*self, *other)

    def __iadd__(self, other: Sequential) -> Self:
        self._check_other(other)
        for position, module in enumerate(list(other), len(self)):
            self.add_module(str(position), module)
        return self

    def _check_factor(self, other: object) -> int:
        if not isinstance(other, int):
            raise KindError(f"unsupported operand type(s) for *: {type(self)} and {type(other)}")
        if other <= 0:
            raise InputError(f"Non-positive multiplication factor {other} for {type(self)}")
        return other

    def __mul__(self, other: int) -> Sequential:
        return Sequential(*(list(self) * self._check_factor(other)))

    def __rmul__(self, other: int) -> Sequential:
        return self * other

    def __imul__(self, other: int) -> Self:
        items = list(self)
        for position, module in enumerate(items * (self._check_factor(other) - 1), len(items)):
            self.add_module(str(position), module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Puts a module before position `index`."""
        if not isinstance(module, Module):
            raise CheckError(f"module should be of type: {Module}")
        size = len(self)
        if not -size <= index <= size:
            raise RangeError(f"Index out of range: {index}")
        items = list(self)
        items.insert(index, module)
        self._renumber(items)
        return self

    def extend(self, sequential: Iterable[Module]) -> Self:
        """Adds several modules at the end."""
        for module in list(sequential):
            self.append(module)
        return self

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            input = module(input)
        return input


class ModuleList(_Ordered):
    """A list of modules, each registered as a child."""

    def __init__(self, modules: Iterable[Any] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._at(index)]

    def __add__(self, other: Iterable[Any]) -> ModuleList:
        return ModuleList(chain(self, other))

    def __iadd__(self, modules: Iterable[Any]) -> Self:
        return self.extend(modules)

    def insert(self, index: int, module: Any) -> None:
        """Puts a module before position `index`."""
        items = list(self)
        items.insert(index, module)
        self._renumber(items)

    def extend(self, modules: Iterable[Any]) -> Self:
        """Adds several modules at the end."""
        if not isinstance(modules, Iterable):
            raise KindError(f"ModuleList.extend should be called with an iterable, but got {type(modules).__name__}")
        for position, module in enumerate(list(modules), len(self)):
            self.add_module(str(position), module)
        return self

    def _child_lines(self) -> list[str]:
        lines: list[str] = []
        start = 0
        for text, run in groupby(map(repr, self)):
            count = len(list(run))
            if count == 1:
                lines.append(f"({start}): {_indent(text)}")
            else:
                lines.append(f"({start}-{start + count - 1}): {count} x {_indent(text)}")
            start += count
        return lines


class ModuleDict(Module):
    """A mapping of names to modules, each registered as a child."""

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Any) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]
        count_write()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def clear(self) -> None:
        """Takes out all modules."""
        self._modules.clear()
        count_write()

    def pop(self, key: str) -> Any:
        """Takes a module out and returns it."""
        taken = self[key]
        del self[key]
        return taken

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Any) -> None:
        """Adds or replaces several modules: a mapping, or pairs of name and module."""
        for key, module in pairs("ModuleDict", modules):
            self[key] = module


class Container(Module):
    """A module whose children are given as keywords. Deprecated."""

    def __init__(self, **kwargs: Any) -> None:
        warnings.warn(
            "`nn.Container` is deprecated. All of its functionality is now implemented in `nn.Module`. Subclass that "
            "instead.",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__()
        for name, module in kwargs.items():
            self.add_module(name, module)
