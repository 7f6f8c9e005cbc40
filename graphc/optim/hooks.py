"""Hooks of optimizers: functions around their steps, and around saving and loading their state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from itertools import chain
from typing import Any

from graphc.errors import UsageError
from graphc.gradients import RemovableHandle

Hook = Callable[..., Any]
Table = OrderedDict[int, Hook]


_ALL_PRE: Table = OrderedDict()  # of the steps of all optimizers
_ALL_POST: Table = OrderedDict()


def _enter(table: Table, hook: Hook, prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = hook
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


def register_optimizer_step_pre_hook(hook: Hook) -> RemovableHandle:
    """`hook(optimizer, args, kwargs)` runs before each step of any optimizer; it may give other arguments."""
    return _enter(_ALL_PRE, hook)


def register_optimizer_step_post_hook(hook: Hook) -> RemovableHandle:
    """`hook(optimizer, args, kwargs)` runs after each step of any optimizer."""
    return _enter(_ALL_POST, hook)


def with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A method `step` with the hooks around it; `args` of hooks begin with the optimizer."""

    @wraps(step)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        optimizer = args[0]
        before = optimizer.__dict__.get("_optimizer_step_pre_hooks", {})
        after = optimizer.__dict__.get("_optimizer_step_post_hooks", {})
        for hook in tuple(chain(_ALL_PRE.values(), before.values())):
            made = hook(optimizer, args, kwargs)
            if made is None:
                continue
            if not (isinstance(made, tuple) and len(made) == 2):
                raise UsageError(f"{step} must return None or a tuple of (new_args, new_kwargs), but got {made}.")
            args, kwargs = made
        result = step(*args, **kwargs)
        for hook in tuple(chain(after.values(), _ALL_POST.values())):
            hook(optimizer, args, kwargs)
        return result

    stepped.hooked = True  # type: ignore[attr-defined]
    return stepped


class OptimizerHooks:
    """The methods of `Optimizer` that register hooks."""

    _optimizer_step_pre_hooks: Table
    _optimizer_step_post_hooks: Table
    _optimizer_state_dict_pre_hooks: Table
    _optimizer_state_dict_post_hooks: Table
    _optimizer_load_state_dict_pre_hooks: Table
    _optimizer_load_state_dict_post_hooks: Table

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        step = cls.__dict__.get("step")
        if step is not None and not hasattr(step, "hooked"):
            cls.step = with_hooks(step)  # type: ignore[attr-defined]

    def _give_tables(self) -> None:
        for part in ("step", "state_dict", "load_state_dict"):
            for when in ("pre", "post"):
                self.__dict__.setdefault(f"_optimizer_{part}_{when}_hooks", OrderedDict())

    def __getstate__(self) -> dict[str, Any]:
        """What copies have: all but the hooks."""
        return {name: value for name, value in self.__dict__.items() if not name.endswith("_hooks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._give_tables()

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs before each step; it may give other arguments."""
        return _enter(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """`hook(optimizer, args, kwargs)` runs after each step."""
        return _enter(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` runs before the state is saved."""
        return _enter(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` runs after the state was saved; it may give another dictionary."""
        return _enter(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer, state_dict)` runs before a state is loaded; it may give another dictionary."""
        return _enter(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """`hook(optimizer)` runs after a state was loaded."""
        return _enter(self._optimizer_load_state_dict_post_hooks, hook, prepend)
