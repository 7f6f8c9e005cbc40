"""`Variable`: what tensors with gradients were called long ago. Calling it gives a tensor."""

from __future__ import annotations

import warnings
from typing import Any

from graphc import Tensor, empty
from graphc.errors import KindError, UsageError


class VariableMeta(type):
    """Every tensor is an instance."""

    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, Tensor)


class Variable(metaclass=VariableMeta):
    """`Variable(data, requires_grad=False)` is a tensor over the memory of `data`."""

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: Any = None) -> Any:
        if volatile:
            warnings.warn(
                "volatile was removed and now has no effect. Use `with torch.no_grad():` instead.", stacklevel=2
            )
        if data is None:
            data = empty(0)
        if not isinstance(data, Tensor):
            raise KindError(f"Variable data has to be a tensor, but got {type(data).__name__}")
        if requires_grad and not data.is_floating_point():
            raise UsageError("Only Tensors of floating point and complex dtype can require gradients")
        return data.detach().requires_grad_(requires_grad)
