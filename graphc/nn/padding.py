"""Padding layers over the last dimensions."""

from __future__ import annotations

from graphc import Tensor
from graphc.errors import InputError
from graphc.nn import functional as F
from graphc.nn.module import Module

Amounts = int | tuple[int, ...]


def _amounts(padding: Amounts, rank: int) -> tuple[int, ...]:
    return (padding,) * (2 * rank) if isinstance(padding, int) else tuple(padding)


class _Pad(Module):
    """(left, right, top, bottom, ...) elements, or one number for all ends."""

    rank: int
    mode: str

    def __init__(self, padding: Amounts) -> None:
        super().__init__()
        self.padding = _amounts(padding, self.rank)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(Module):
    """`value` at the ends of the last dimensions."""

    rank: int

    def __init__(self, padding: Amounts, value: float) -> None:
        super().__init__()
        self.padding = _amounts(padding, self.rank)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` at both ends of the last dimension."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """`value` at the ends of the last two dimensions."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """`value` at the ends of the last three dimensions."""

    rank = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Amounts) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """Zeros at both ends of the last dimension."""


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """Zeros at the ends of the last two dimensions."""


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """Zeros at the ends of the last three dimensions."""


class ReflectionPad1d(_Pad):
    """The last dimension mirrored at its ends, without the edges."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dimensions mirrored at their ends, without the edges."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three dimensions mirrored at their ends, without the edges."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """The edges of the last dimension repeated."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """The edges of the last two dimensions repeated."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """The edges of the last three dimensions repeated."""

    rank, mode = 3, "replicate"


class _CircularPad(_Pad):
    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (self.rank + 1, self.rank + 2):
            raise InputError(f"expected {self.rank + 1}D or {self.rank + 2}D input (got {input.dim()}D input)")
        return super().forward(input)


class CircularPad1d(_CircularPad):
    """The last dimension goes on at its other end."""

    rank = 1


class CircularPad2d(_CircularPad):
    """The last two dimensions go on at their other ends."""

    rank = 2


class CircularPad3d(_CircularPad):
    """The last three dimensions go on at their other ends."""

    rank = 3
