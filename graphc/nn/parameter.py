"""Parameter: a tensor that a module trains."""

from __future__ import annotations

from typing import Self

from graphc import Tensor, empty


class Parameter(Tensor):
    """A tensor that becomes one of a module's parameters when it is assigned to an attribute.

    Shares the memory of `data`; a leaf that requires gradients unless told otherwise.
    """

    _prints_as_tensor = True

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Self:
        return cls._make_subclass(empty(0) if data is None else data.detach(), requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
