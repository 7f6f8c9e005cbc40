"""The tables in which modules keep their hooks, under PyTorch's names, and the count of changes to modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple

from graphc.gradients import RemovableHandle

_writes = [0]
_NONE = object()
# How many attribute changes all modules of this process have seen. Every replay asks: no Python function answers.
attribute_version: Callable[[], int] = partial(_writes.__getitem__, 0)


def count_write() -> None:
    """Note a change of an attribute, entry or hook of some module."""
    _writes[0] += 1


class HookTable(OrderedDict[int, Any]):
    """Hooks by the number of their handle, in the order of their calls. Changes are counted, for compiled steps."""

    def __setitem__(self, key: int, value: Any) -> None:
        super().__setitem__(key, value)
        count_write()

    def __delitem__(self, key: int) -> None:
        super().__delitem__(key)
        count_write()

    def pop(self, key: int, default: Any = _NONE) -> Any:
        """Take an entry out."""
        count_write()
        return super().pop(key) if default is _NONE else super().pop(key, default)

    def popitem(self, last: bool = True) -> tuple[int, Any]:
        """Take the last or the first entry out."""
        count_write()
        return super().popitem(last)

    def clear(self) -> None:
        """Take all entries out."""
        count_write()
        super().clear()

    def move_to_end(self, key: int, last: bool = True) -> None:
        """Make an entry the last or the first one."""
        count_write()
        super().move_to_end(key, last)


# What each module has, in the order in which PyTorch makes them.
_KIND = "_is_full_backward_hook"
_FIELDS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    _KIND,
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
TABLES = tuple(name for name in _FIELDS if name != _KIND)


def give_tables(fields: dict[str, Any]) -> None:
    """Add the tables that are not there to the attributes of a module."""
    for name in _FIELDS:
        if name not in fields:
            fields[name] = HookTable() if name != _KIND else None


class LoadHook(NamedTuple):
    """A function to call before a module loads its tensors, and whether it gets the module."""

    hook: Callable[..., Any]
    with_module: bool


def enter(
    table: MutableMapping[int, Any],
    hook: Any,
    prepend: bool = False,
    marks: tuple[MutableMapping[int, Any], ...] = (),
) -> RemovableHandle:
    """Add a hook to a table and its number to the tables of marks; the handle takes it out of all of them."""
    handle = RemovableHandle(table, extra_dict=list(marks))
    table[handle.id] = hook
    for mark in marks:
        mark[handle.id] = True
    if prepend and isinstance(table, OrderedDict):
        table.move_to_end(handle.id, last=False)
    return handle
