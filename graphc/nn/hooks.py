"""Hooks of modules: functions that run before and after `forward`, around saving and loading, and in `backward`."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple, Self

from graphc import Tensor, is_grad_enabled, zeros_like
from graphc.autograd import Function

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


class _Passing(Function):
    """The identity of several tensors, whose gradients go through a function given as first argument."""

    @staticmethod
    def forward(ctx: Any, change: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.change = change
        ctx.set_materialize_grads(False)
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None, *ctx.change(gradients))


class _BackwardHooks:
    """The hooks of one call of a module that run in `backward`: outputs and inputs pass through identities, where their
    gradients are seen and changed."""

    def __init__(self, module: Any, hooks: Any) -> None:
        self._module = module
        self._hooks = tuple(h.function for h in hooks.get("backward", {}).values())
        self._pre_hooks = tuple(h.function for h in hooks.get("backward_pre", {}).values())
        self._gradients: tuple[Any, ...] | None = None
        self._inputs = 0
        self._wanting: list[bool] = []
        self._input_places: list[int] | None = None

    def _pass(self, values: tuple[Any, ...], change: Any) -> tuple[tuple[Any, ...], list[int] | None]:
        places = [place for place, value in enumerate(values) if isinstance(value, Tensor)]
        if not (is_grad_enabled() and any(values[place].requires_grad for place in places)):
            return values, None
        made = list(values)
        for place, value in zip(places, _Passing.apply(change, *(values[p] for p in places)), strict=True):
            made[place] = value
        return tuple(made), places

    def on_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments to call `forward` with."""
        self._inputs = len(args)
        self._wanting = [value.requires_grad for value in args if isinstance(value, Tensor)]
        made, self._input_places = self._pass(args, self._leave)
        return made

    def on_outputs(self, result: Any) -> Any:
        """The result to give back."""
        values = result if isinstance(result, tuple) else (result,)
        count = len(values)
        places = [place for place, value in enumerate(values) if isinstance(value, Tensor)]
        made, _ = self._pass(values, lambda gradients: self._enter(gradients, places, count))
        if isinstance(result, tuple):
            return type(result)(*made) if hasattr(result, "_fields") else made
        return made[0]

    def _enter(self, gradients: tuple[Any, ...], places: list[int], count: int) -> tuple[Any, ...]:
        """The gradients of the outputs arrive."""
        whole: list[Any] = [None] * count
        for place, gradient in zip(places, gradients, strict=True):
            whole[place] = gradient
        seen = tuple(whole)
        for hook in self._pre_hooks:
            made = hook(self._module, seen)
            if made is None:
                continue
            made = made if isinstance(made, tuple) else (made,)
            if len(made) != count:
                raise RuntimeError(
                    f"Backward pre hook returned an invalid number of grad_output, got {len(made)}, but expected "
                    f"{count}"
                )
            seen = made
        if self._input_places is None:
            self._without_inputs(seen)
        else:
            self._gradients = seen
        return tuple(seen[place] for place in places)

    def _without_inputs(self, outputs: tuple[Any, ...]) -> None:
        if self._hooks:
            warnings.warn(
                "Full backward hook is firing when gradients are computed with respect to module outputs since no "
                "inputs require gradients. See https://docs.pytorch.org/docs/main/generated/torch.nn.Module.html"
                "#torch.nn.Module.register_full_backward_hook for more details.",
                stacklevel=5,
            )
        for hook in self._hooks:
            made = hook(self._module, (None,) * self._inputs, outputs)
            if made is not None and not (isinstance(made, tuple) and all(part is None for part in made)):
                raise RuntimeError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for "
                    "all gradients."
                )

    def _leave(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of the inputs arrive."""
        if self._gradients is None or self._input_places is None:
            return gradients  # it came past the outputs, as in a second derivative
        whole: list[Any] = [None] * self._inputs
        for place, gradient, wanting in zip(self._input_places, gradients, self._wanting, strict=True):
            whole[place] = (
                gradient if wanting or gradient is None else zeros_like(gradient)
            )  # zeros, as PyTorch fills in
        seen = tuple(whole)
        for hook in self._hooks:
            made = hook(self._module, seen, self._gradients)
            if made is None:
                continue
            made = made if isinstance(made, tuple) else (made,)
            if len(made) != self._inputs:
                raise RuntimeError(
                    f"Backward hook returned an invalid number of grad_input, got {len(made)}, but expected "
                    f"{self._inputs}"
                )
            seen = made
        self._gradients = None
        return tuple(seen[place] for place in self._input_places)


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
        after: _BackwardHooks | None = None
        if hooks.get("backward") or hooks.get("backward_pre"):
            after = _BackwardHooks(module, hooks)
            args = after.on_inputs(args)
        result = module.forward(*args, **kwargs)
        for number, hook in tuple(hooks.get("forward", {}).items()):
            if hook.always_call:
                called.add(number)
            made = _after(module, hook, args, kwargs, result)
            if made is not None:
                result = made
        if after is not None:
            if not isinstance(result, Tensor | tuple):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors but "
                    f"received {type(result)}",
                    stacklevel=3,
                )
            result = after.on_outputs(result)
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
