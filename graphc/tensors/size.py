"""The shape of a tensor: a tuple that prints as PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, SupportsIndex, overload

from graphc.errors import KindError


class Size(tuple[int, ...]):
    """A tuple of extents; prints as `torch.Size([2, 3])`. TypeError for what is no whole number."""

    __slots__ = ()

    def __new__(cls, extents: Iterable[Any] = ()) -> Size:
        if type(extents) is tuple and all(type(n) is int for n in extents):
            return tuple.__new__(cls, extents)
        whole = []
        for place, n in enumerate(extents):
            if isinstance(n, float) or not hasattr(n, "__index__"):
                raise KindError(f"torch.Size() takes an iterable of 'int' (item {place} is '{type(n).__name__}')")
            whole.append(n.__index__())
        return tuple.__new__(cls, whole)

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Size: ...

    def __getitem__(self, index: SupportsIndex | slice) -> int | Size:
        if isinstance(index, slice):
            return Size(super().__getitem__(index))
        return super().__getitem__(index)

    def __add__(self, other):  # type: ignore[override]
        if not isinstance(other, tuple):
            raise KindError(f"can only concatenate tuple (not {type(other).__name__}) to torch.Size")
        return Size(tuple.__add__(self, other))

    def __radd__(self, other: tuple[int, ...]) -> Size:
        return Size(tuple.__add__(tuple(other), self))

    def __mul__(self, count):  # type: ignore[override]
        return Size(tuple.__mul__(self, count))

    __rmul__ = __mul__

    def __reduce__(self) -> tuple[object, ...]:
        return Size, (tuple(self),)
