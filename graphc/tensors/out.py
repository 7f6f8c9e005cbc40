"""`out=`: results stored in tensors that the caller gives, as PyTorch does it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import DTypeError, KindError, UsageError
from graphc.grad_mode import MODE
from graphc.memory import filled
from graphc.naming import named
from graphc.promotion import can_cast
from graphc.recording import current
from graphc.storage import Lineage, Storage
from graphc.tensors.casting import OPEN, cast_call, plainly
from graphc.tensors.core import TensorBase, wants_grad
from graphc.tensors.learning import AGAIN, MISSED, learned
from graphc.tensors.views import contiguous_strides
from graphc.tensors.writing import check_apart, type_name, write
from graphc.warned import warn

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def into(out: Tensor, made: Tensor, name: str) -> Tensor:
    """Store `made`, the result of the function `name`, in `out`, which is given its shape first; gives `out`.

    DTypeError when the result's dtype cannot be cast to that of `out`. A resize of a tensor that has elements warns.
    """
    if not isinstance(out, TensorBase):
        raise KindError(f"{name}(): argument 'out' must be Tensor, not {type(out).__name__}")
    wanted, held = made._type, out._type
    if not can_cast(wanted.dtype, held.dtype):
        raise DTypeError(
            f"{name}(): result type {type_name(wanted.dtype)} can't be cast to the desired output type "
            f"{type_name(held.dtype)}"
        )
    if wanted.device != held.device:
        raise UsageError(f"Expected out tensor to have device {wanted.device}, but got {held.device} instead")
    if wanted.shape != held.shape:
        if held.size:
            warn(
                f"An output with one or more elements was resized since it had shape {list(held.shape)}, which does "
                f"not match the required output shape {list(wanted.shape)}. Give {name}() an output of that shape, or "
                "an empty one.",
            )
        _resize(out, wanted.shape)
    saved, MODE.enabled = MODE.enabled, False
    try:
        write(out, made)
    finally:
        MODE.enabled = saved
    return out


def _resize(out: Tensor, shape: tuple[int, ...]) -> None:
    """Let `out` show new memory of `shape`."""
    type = out._type.with_shape(shape)
    out._storage = Storage(current(), type, None, filled(0, type))
    out._chain, out._type = (), type
    out._strides, out._offset, out._lineage = contiguous_strides(shape), 0, Lineage()
    out._counter = out._storage.counter


def refuse_gradients(name: str, tensors: Sequence[Any]) -> None:
    """PyTorch's error for `out=` while an argument, or the output itself, requires gradients."""
    if wants_grad([t for t in tensors if isinstance(t, TensorBase)]):
        raise UsageError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, but one of the "
            "arguments requires grad."
        )


def out_form(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with the keyword `out`: a tensor, or as many tensors as it gives."""
    name = function.__name__.rstrip("_")

    @functools.wraps(function)
    def with_out(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            if OPEN:
                return cast_call(function, name, args, kwargs)
            made = AGAIN[0](function, args, kwargs)
            return learned(function, args, kwargs) if made is MISSED else made
        single = isinstance(out, TensorBase)
        refuse_gradients(name, (*args, *kwargs.values(), *((out,) if single else out)))
        for each in (out,) if single else out:
            check_apart(each, (*args, *kwargs.values()))
        made = plainly(function, *args, **kwargs)
        if single:
            return into(out, made, name)  # type: ignore[arg-type]
        stored = [into(o, m, name) for o, m in zip(out, made, strict=True)]
        return type(made)(*stored) if hasattr(made, "_fields") else type(made)(stored)

    return named(with_out, function.__name__)
