"""`torch.cond`: one of two functions, by a value that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import UsageError
from graphc.ir.types import boolean
from graphc.tensors.core import TensorBase


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    """`true_fn(*operands)` if `pred`, a bool or a bool tensor of one element, holds, else `false_fn(*operands)`.

    The value is looked at, so only the function that is chosen runs, and nothing is asked of what the other would give.
    """
    if not isinstance(pred, bool | TensorBase):
        raise UsageError(f"Expected pred to be bool or tensor, but got {pred}.")
    if isinstance(pred, TensorBase) and (pred._type.size != 1 or pred._type.dtype is not boolean):
        raise UsageError(f"Expected pred to be bool or single-element bool tensor, but got {pred}.")
    if not callable(true_fn) or not callable(false_fn):
        raise UsageError("Expect both branches to be callable.")
    if not isinstance(operands, list | tuple):
        raise UsageError(
            "Expect operands to be a tuple of possibly nested dict/list/tuple that only consists of tensor leaves, "
            f"but got {operands}."
        )
    return (true_fn if bool(pred) else false_fn)(*operands)
