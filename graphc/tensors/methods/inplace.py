"""The in-place form of an operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.tensors.writing import in_place

if TYPE_CHECKING:
    from graphc.tensors.tensor import Tensor


def inplace(function: Callable[..., Any]) -> Callable[..., Any]:
    """The in-place form of an operation: its result is stored in the tensor, converted to its dtype."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        result = function(self, *args, **kwargs)
        return result if result is NotImplemented else in_place(self, result)

    method.__doc__ = f"In place: {function.__doc__}"
    method.__name__ = f"{getattr(function, '__name__', 'operation')}_"
    return method
