"""Hooks of modules: functions that run before and after `forward`, and around saving and loading."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, Self

_ids = count()
_writes = 0


def attribute_version() -> int:
    """How many attribute changes all modules of this process have seen."""
    return _writes


def count_write() -> None:
    """Note a change of an attribute, entry or hook of some module."""
    global _writes
    _writes += 1


class Hook(NamedTuple):
    """A registered function and how it wants to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False
    with_module: bool = True


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook away. Also a context manager that does so at its
    end."""

    def __init__(self, hooks: dict[int, Hook]) -> None:
        self.id = next(_ids)
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hook away; nothing happens when it is gone already."""
        if self._hooks.pop(self.id, None) is not None:
            count_write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, type: Any, value: Any, tb: Any) -> None:
        self.remove()


def register(hooks: dict[str, OrderedDict[int, Hook]], kind: str, hook: Hook, prepend: bool = False) -> RemovableHandle:
    """Add a hook of one kind to those of a module."""
    own = hooks.setdefault(kind, OrderedDict())
    handle = RemovableHandle(own)
    own[handle.id] = hook
    if prepend:
        own.move_to_end(handle.id, last=False)
    count_write()
    return handle


def _before(module: Any, hooks: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for hook in tuple(hooks.get("forward_pre", {}).values()):
        if hook.with_kwargs:
            made = hook.function(module, args, kwargs)
            if made is None:
                continue
            if not (isinstance(made, tuple) and len(made) == 2):
                raise RuntimeError(
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {made}."
                )
            args, kwargs = made
        else:
            made = hook.function(module, args)
            if made is not None:
                args = made if isinstance(made, tuple) else (made,)
    return args, kwargs


def call_with_hooks(module: Any, hooks: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` with the hooks of all kinds around it."""
    called: set[int] = set()
    result: Any = None
    try:
        args, kwargs = _before(module, hooks, args, kwargs)
        result = module.forward(*args, **kwargs)
        for number, hook in tuple(hooks.get("forward", {}).items()):
            if hook.always_call:
                called.add(number)
            made = _after(module, hook, args, kwargs, result)
            if made is not None:
                result = made
        return result
    except Exception:
        for number, hook in tuple(hooks.get("forward", {}).items()):
            if not hook.always_call or number in called:
                continue
            try:
                made = _after(module, hook, args, kwargs, result)
                if made is not None:
                    result = made
            except Exception as error:
                warnings.warn(
                    "module forward hook with ``always_call=True`` raised an exception that was silenced as another "
                    f"error was raised in forward: {error}",
                    stacklevel=3,
                )
        raise


def _after(module: Any, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, result)
    return hook.function(module, args, result)
