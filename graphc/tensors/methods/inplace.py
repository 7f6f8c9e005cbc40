"""The in-place form of an operation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.naming import named
from graphc.tensors.casting import OPEN, plainly
from graphc.tensors.core import TensorBase
from graphc.tensors.kinds import kinds_checked
from graphc.tensors.learning import repeatable
from graphc.tensors.storing import goes_at_once
from graphc.tensors.writing import check_apart, check_tracked, in_place

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def inplace(function: Callable[..., Any], wholly: bool = False) -> Callable[..., Any]:
    """The in-place form of an operation: its result is stored in the tensor, converted to its dtype.

    Operands must not be other views of the memory written, or (`wholly`) not even the tensor itself.
    """

    def writing(operation: Callable[..., Any]) -> Callable[..., Any]:
        def write(self: Any, *args: Any, **kwargs: Any) -> Tensor:
            operands = [a for a in (*args, *kwargs.values()) if isinstance(a, TensorBase)]
            check_tracked(self, operands)
            result = plainly(operation, self, *args, **kwargs) if OPEN else operation(self, *args, **kwargs)
            if result is NotImplemented:
                return result
            check_apart(self, operands, wholly)
            return in_place(self, result)

        return named(write, f"{function.__name__}_", f"In place: {function.__doc__}")

    record, store = repeatable(writing(function)), kinds_checked(writing(repeatable(function)))

    @functools.wraps(record)
    def method(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        if getattr(self, "_chain", ()) and goes_at_once(self, args):
            return store(self, *args, **kwargs)
        return record(self, *args, **kwargs)

    return method
