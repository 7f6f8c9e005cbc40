"""Parameter and Buffer: tensors that a module trains, and tensors that it only keeps."""

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


class Buffer(Tensor):
    """A tensor that becomes one of a module's buffers when it is assigned to an attribute; `persistent` ones are saved.

    Shares the memory of `data`.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Self:
        data = empty(0) if data is None else data
        made = cls._make_subclass(data.detach(), data.requires_grad)
        made.persistent = persistent
        return made
