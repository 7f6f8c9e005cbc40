"""The call of a module with hooks: what runs before and after `forward`, and in `backward`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from graphc import Tensor, is_grad_enabled, zeros_like
from graphc.autograd import Function
from graphc.errors import UsageError
from graphc.nn.global_hooks import GlobalHooks


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

    def __init__(self, module: Any, hooks: tuple[Any, ...], pre_hooks: tuple[Any, ...]) -> None:
        self._module = module
        self._hooks = hooks
        self._pre_hooks = pre_hooks
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
                raise UsageError(
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
                raise UsageError(
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
                raise UsageError(
                    f"Backward hook returned an invalid number of grad_input, got {len(made)}, but expected "
                    f"{self._inputs}"
                )
            seen = made
        self._gradients = None
        return tuple(seen[place] for place in self._input_places)


def _before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with_kwargs = module._forward_pre_hooks_with_kwargs
    for number, hook in (*GlobalHooks.forward_pre.items(), *module._forward_pre_hooks.items()):
        if number in with_kwargs:
            made = hook(module, args, kwargs)
            if made is None:
                continue
            if not (isinstance(made, tuple) and len(made) == 2):
                raise UsageError(
                    f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {made}."
                )
            args, kwargs = made
        else:
            made = hook(module, args)
            if made is not None:
                args = made if isinstance(made, tuple) else (made,)
    return args, kwargs


def _backward_hooks(module: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The full backward hooks and the others, those of all modules first."""
    kinds: dict[bool | None, list[Any]] = {True: [], False: []}
    kinds.setdefault(GlobalHooks.is_full, []).extend(GlobalHooks.backward.values())
    kinds.setdefault(module._is_full_backward_hook, []).extend(module._backward_hooks.values())
    return tuple(kinds[True]), tuple(kinds[False])


def call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` with the hooks of all kinds around it."""
    called: set[int] = set()
    result: Any = None
    try:
        full, regular = _backward_hooks(module)
        pre = (*GlobalHooks.backward_pre.values(), *module._backward_pre_hooks.values())
        args, kwargs = _before(module, args, kwargs)
        after: _BackwardHooks | None = None
        if full or pre:
            after = _BackwardHooks(module, full, pre)
            args = after.on_inputs(args)
        result = module.forward(*args, **kwargs)
        for number, hook in _forward_hooks(module):
            if number in module._forward_hooks_always_called or number in GlobalHooks.forward_always_called:
                called.add(number)
            made = _after(module, number, hook, args, kwargs, result)
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
        if regular:
            _hook_last_operation(module, regular, args, result)
        return result
    except Exception:
        _call_always(module, called, args, kwargs, result)
        raise


def _forward_hooks(module: Any) -> Iterator[tuple[int, Any]]:
    yield from (*GlobalHooks.forward.items(), *module._forward_hooks.items())


def _call_always(module: Any, called: set[int], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """`forward` or a hook raised: call the hooks that are always called and were not yet."""
    for number, hook in _forward_hooks(module):
        everywhere = number in GlobalHooks.forward_always_called
        if number in called or not (everywhere or number in module._forward_hooks_always_called):
            continue
        try:
            made = _after(module, number, hook, args, kwargs, result)
            if made is not None:
                result = made
        except Exception as error:
            warnings.warn(
                f"{'global ' if everywhere else ''}module forward hook with ``always_call=True`` raised an exception "
                f"that was silenced as another error was raised in forward: {error}",
                stacklevel=4,
            )


def _after(module: Any, number: int, hook: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    if number in module._forward_hooks_with_kwargs or number in GlobalHooks.forward_with_kwargs:
        return hook(module, args, kwargs, result)
    return hook(module, args, result)


# Backward hooks of the kind before the full ones: they see what the last operation of the module sees.


def _hook_last_operation(module: Any, hooks: tuple[Any, ...], args: tuple[Any, ...], result: Any) -> None:
    last = result
    while not isinstance(last, Tensor):
        last = next(v for v in last.values() if isinstance(v, Tensor)) if isinstance(last, dict) else last[0]
    node = last.grad_fn
    if node is None:
        return
    for hook in hooks:
        node.register_hook(_OfModule(hook, module))
    missing = _unseen(args, result, node)
    if missing:
        warnings.warn(
            f"{missing}. Please use register_full_backward_hook to get the documented behavior.",
            FutureWarning,
            stacklevel=4,
        )


class _OfModule:
    """A backward hook with the module as its first argument."""

    def __init__(self, hook: Any, module: Any) -> None:
        self._hook = hook
        self._module = module

    def __call__(self, *gradients: Any) -> Any:
        return self._hook(self._module, *gradients)


def _all_tensors(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, Tensor) for value in values)


def _unseen(args: tuple[Any, ...], result: Any, node: Any) -> str | None:
    """What PyTorch warns of: gradients of the module that a hook on its last operation does not see."""
    later = "is deprecated and will be removed in future versions. This hook will be missing some"
    outputs = result if isinstance(result, tuple) else (result,)
    if not _all_tensors(outputs):
        return (
            "Using non-full backward hooks on a Module that does not return a single Tensor or a tuple of Tensors "
            f"{later} of the grad_output"
        )
    if not _all_tensors(args):
        return (
            "Using non-full backward hooks on a Module that does not take as input a single Tensor or a tuple of "
            f"Tensors {later} of the grad_input"
        )
    made_by = {output.grad_fn for output in outputs if output.grad_fn is not None}
    if made_by != {node}:
        return (
            f"Using a non-full backward hook when outputs are generated by different autograd Nodes {later} grad_output"
        )
    given_by = {value.grad_fn for value in args if value.grad_fn is not None}
    if given_by != {parent for parent, _ in node.next_functions}:
        return f"Using a non-full backward hook when the forward contains multiple autograd Nodes {later} grad_input"
    return None
