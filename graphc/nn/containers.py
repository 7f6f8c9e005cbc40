"""Modules that hold modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Self

from graphc.nn.module import Module, _indent


class _Ordered(Module):
    """Children named by position, with a list's ways of reaching them."""

    def _key(self, index: int) -> str:
        index = operator.index(index)
        size = len(self._modules)
        if not -size <= index < size:
            raise IndexError(f"index {index} is out of range")
        return str(index % size)

    def _set_all(self, modules: Iterable[Module]) -> None:
        for name in list(self._modules):
            delattr(self, name)
        for position, module in enumerate(modules):
            self.add_module(str(position), module)

    def _items(self) -> list[Any]:
        return list(self._modules.values())

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._items())

    def append(self, module: Module) -> Self:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Adds several modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """Puts a module before position `index`."""
        items = self._items()
        items.insert(index, module)
        self._set_all(items)
        return self

    def pop(self, index: int) -> Module:
        """Takes a module out and returns it."""
        items = self._items()
        taken = items.pop(index)
        self._set_all(items)
        return taken


class Sequential(_Ordered):
    """Applies modules one after the other. Takes them in order, or one ordered mapping of names to modules."""

    def __init__(self, *args: Module | Mapping[str, Any]) -> None:
        super().__init__()
        named: Mapping[str, Any] = {str(i): module for i, module in enumerate(args)}
        if len(args) == 1 and isinstance(args[0], Mapping):
            named = args[0]
        for name, module in named.items():
            self.add_module(name, module)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        self._key(index)
        return self._items()[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self._key(index)
        setattr(self, list(self._modules)[index], module)

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        del items[index]
        self._set_all(items)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            if module is not None:
                input = module(input)
        return input


class ModuleList(_Ordered):
    """A list of modules, each registered as a child."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(self._items()[index])
        return self._modules[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._key(index), module)

    def __delitem__(self, index: int | slice) -> None:
        items = self._items()
        del items[index]
        self._set_all(items)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def __iadd__(self, modules: Iterable[Module]) -> Self:
        return self.extend(modules)

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

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names and modules."""
        return self._modules.items()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Mapping[str, Module]) -> None:
        """Adds or replaces several modules."""
        for key, module in modules.items():
            self[key] = module
