"""Hooks of all modules: they are called before those that a module has itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import UsageError
from graphc.gradients import RemovableHandle
from graphc.nn.hook_tables import HookTable, enter


class GlobalHooks:
    """The tables of the hooks of all modules."""

    buffer_registration = HookTable()
    module_registration = HookTable()
    parameter_registration = HookTable()
    forward_pre = HookTable()
    forward = HookTable()
    forward_with_kwargs = HookTable()
    forward_always_called = HookTable()
    backward_pre = HookTable()
    backward = HookTable()
    is_full: bool | None = None  # which of the two kinds of backward hooks is in use


# Which of them a call of a module reads.
CALLED = (
    GlobalHooks.forward_pre,
    GlobalHooks.forward,
    GlobalHooks.backward_pre,
    GlobalHooks.backward,
)

_REGULAR_AND_FULL = (
    "Cannot use both regular backward hooks and full backward hooks as a global Module hook. Please use only one of "
    "them."
)


def replaced(table: HookTable, module: Any, name: str, value: Any) -> Any:
    """What the hooks of a registration put in the place of `value`."""
    for hook in tuple(table.values()):
        made = hook(module, name, value)
        if made is not None:
            value = made
    return value


def register_module_buffer_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, name, buffer)` is called by `register_buffer` and may return another buffer."""
    return enter(GlobalHooks.buffer_registration, hook)


def register_module_module_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, name, child)` is called when a child is added and may return another one."""
    return enter(GlobalHooks.module_registration, hook)


def register_module_parameter_registration_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, name, parameter)` is called by `register_parameter` and may return another parameter."""
    return enter(GlobalHooks.parameter_registration, hook)


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, args)` runs before every module's `forward` and may return other arguments."""
    return enter(GlobalHooks.forward_pre, hook)


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """`hook(module, args, output)` runs after every module's `forward` and may return another output."""
    marks = (GlobalHooks.forward_with_kwargs,) if with_kwargs else ()
    if always_call:
        marks += (GlobalHooks.forward_always_called,)
    return enter(GlobalHooks.forward, hook, marks=marks)


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`Module.register_backward_hook` for all modules. Deprecated: `register_module_full_backward_hook`."""
    if GlobalHooks.is_full is True:
        raise UsageError(_REGULAR_AND_FULL)
    GlobalHooks.is_full = False
    return enter(GlobalHooks.backward, hook)


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, grad_output)` runs when the gradients of any module's outputs are there."""
    return enter(GlobalHooks.backward_pre, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """`hook(module, grad_input, grad_output)` runs when the gradients of any module's inputs are there."""
    if GlobalHooks.is_full is False:
        raise UsageError(_REGULAR_AND_FULL)
    GlobalHooks.is_full = True
    return enter(GlobalHooks.backward, hook)
