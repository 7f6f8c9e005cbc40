"""The shape of a tensor: a tuple that prints as PyTorch's."""

from __future__ import annotations

import math


class Size(tuple[int, ...]):
    """A tuple of extents; prints as `torch.Size([2, 3])`."""

    __slots__ = ()

    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __getitem__(self, index):  # type: ignore[override]
        part = tuple.__getitem__(self, index)
        return Size(part) if isinstance(index, slice) else part

    def __add__(self, other):  # type: ignore[override]
        return Size(tuple.__add__(self, other))
