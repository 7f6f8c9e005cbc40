"""Python functions that gradients go through: their tables, the handles that remove them, and how they are called."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphc.capture import Capture
from graphc.errors import CheckError
from graphc.grad_mode import MODE

_ids = itertools.count()


class Table(dict[int, Any]):
    """Functions in the order of their registration; a dictionary that handles can refer to weakly."""

    __slots__ = ("__weakref__",)


class RemovableHandle:
    """Takes a function out of its table again: by `remove`, or at the end of a `with` block. `extra_dict`: tables that
    have entries of the same number."""

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None, counted: bool = False) -> None:
        self._refer(hooks_dict, extra_dict)
        self._counted = counted
        self.id = next(_ids)

    def _refer(self, table: Any, extra: Any) -> None:
        extras = extra if isinstance(extra, list | tuple) else () if extra is None else (extra,)
        self._table = weakref.ref(table)
        self._extras = tuple(weakref.ref(e) for e in extras)

    def remove(self) -> None:
        """The function is not called any more; the second time nothing happens."""
        table = self._table()
        if table is not None and self.id in table:
            del table[self.id]
            if self._counted:
                COUNT.changes += 1
        for extra in self._extras:
            marks = extra()
            if marks is not None and self.id in marks:
                del marks[self.id]

    def __getstate__(self) -> tuple[Any, ...]:
        return self._table(), tuple(extra() for extra in self._extras), self._counted, self.id

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        table, extras, self._counted, self.id = state
        self._refer(Table() if table is None else table, [e for e in extras if e is not None])

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class _Count:
    """How often hooks of leaves changed: captured calls look whether some came or went since."""

    changes = 0


COUNT = _Count()


def add(table: Table, function: Callable[..., Any], of_leaf: bool = False) -> RemovableHandle:
    """Enter `function` as the last one of `table`."""
    handle = RemovableHandle(table, counted=of_leaf)
    table[handle.id] = function
    COUNT.changes += of_leaf
    return handle


def note_hooks(capture: Capture) -> None:
    """A captured call ran backward: it is captured again when hooks of leaves come or go, and not replayed while
    gradients are looked at, or what operations save is packed.
    """
    if not any(compute is _changes for compute, _ in capture.guards):
        capture.guards.append((_changes, COUNT.changes))


def _changes() -> int:
    return -1 if MODE.anomaly or MODE.packing else COUNT.changes


class _Tasks(threading.local):
    """The calls of `backward` and `grad` that run now in this thread, the innermost last: functions for their ends, by
    who asked for them."""

    def __init__(self) -> None:
        self.stack: list[dict[Any, Callable[[], None]]] = []


_TASKS = _Tasks()


@contextmanager
def task() -> Iterator[None]:
    """One call of `backward` or `grad`."""
    _TASKS.stack.append({})
    try:
        yield
        for end in tuple(_TASKS.stack[-1].values()):
            end()
    finally:
        _TASKS.stack.pop()


def at_end(key: Any, function: Callable[[], None]) -> bool:
    """Call `function` at the end of the innermost backward. False where `key` asked already."""
    if not _TASKS.stack:
        raise CheckError("expected this hook to be called inside a backward call")
    known = _TASKS.stack[-1]
    if key in known:
        return False
    known[key] = function
    return True


class LeafHooks:
    """What is called around the accumulation into `.grad` of one leaf."""

    __slots__ = ("nodes_after", "nodes_before", "post", "tensor")

    def __init__(self) -> None:
        self.tensor = Table()  # with the gradient, which they may replace
        self.nodes_before = Table()  # of the AccumulateGrad node, with a tuple
        self.post = Table()  # with the tensor, once `.grad` is filled
        self.nodes_after = Table()


def name_of(hook: Any) -> str:
    """What messages call a hook."""
    return str(getattr(hook, "__name__", "<unknown>"))
