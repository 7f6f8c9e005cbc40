"""Calls that keep no intermediate values for backward, which computes them again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphc import Tensor
from graphc.errors import InputError
from graphc.gradients import CheckpointFunction, is_grad_enabled, run_again
from graphc.nn import Sequential

_EXPLICIT = (
    "torch.utils.checkpoint: the use_reentrant parameter should be passed explicitly. use_reentrant=False is "
    "recommended, but if you need to preserve the current default behavior, you can pass use_reentrant=True."
)


def noop_context_fn() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts that do nothing, for the call and for the call in backward."""
    return nullcontext(), nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], tuple[Any, Any]] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`; backward calls it again, with the same random numbers, instead of keeping values.

    With `use_reentrant` backward calls `backward` inside, so `autograd.grad` and second gradients do not work through
    it. `determinism_check` and `early_stop` are accepted and have no effect. ValueError: keyword arguments,
    `context_fn` or `debug` with `use_reentrant`.
    """
    if use_reentrant is None:
        warnings.warn(_EXPLICIT, stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if not use_reentrant:
        return run_again(function, args, kwargs, preserve, context_fn)
    if kwargs:
        raise InputError("Unexpected keyword arguments: " + ",".join(kwargs))
    if context_fn is not noop_context_fn or debug is not False:
        raise InputError("Passing `context_fn` or `debug` is only supported when use_reentrant=False.")
    if is_grad_enabled() and not any(isinstance(a, Tensor) and a.requires_grad for a in args):
        warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=2)
    return CheckpointFunction.apply(function, preserve, *args)


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """A `Sequential` or list of functions in `segments` parts, all but the last of which are checkpointed."""
    if use_reentrant is None:
        warnings.warn(_EXPLICIT, stacklevel=2)
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if kwargs:
        raise InputError("Unexpected keyword arguments: " + ",".join(kwargs))
    listed = list(functions.children()) if isinstance(functions, Sequential) else list(functions)
    size = len(listed) // segments
    start = 0
    for _ in range(segments - 1):
        part = _chain(listed[start : start + size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve)
        start += size
    return _chain(listed[start:])(input)


def _chain(functions: Iterable[Any]) -> Callable[[Any], Any]:
    def forward(value: Any) -> Any:
        for function in functions:
            value = function(value)
        return value

    return forward
