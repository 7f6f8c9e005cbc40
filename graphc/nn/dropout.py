"""Dropout layers: they drop in training and are the identity in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from graphc import Tensor
from graphc.errors import InputError
from graphc.nn import functional as F
from graphc.nn.module import Module


class _DropoutNd(Module):
    """Holds the probability `p` and `inplace`."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise InputError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self).function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """In training, sets each value to zero with probability `p` and scales the others by 1 / (1 - p)."""

    function = F.dropout


class Dropout1d(_DropoutNd):
    """`Dropout` of whole channels of `[batch, channels, length]`."""

    function = F.dropout1d


class Dropout2d(_DropoutNd):
    """`Dropout` of whole channels of `[batch, channels, height, width]`."""

    function = F.dropout2d


class Dropout3d(_DropoutNd):
    """`Dropout` of whole channels of `[batch, channels, depth, height, width]`."""

    function = F.dropout3d


class AlphaDropout(_DropoutNd):
    """Dropout that keeps mean 0 and variance 1, for networks of SELU. G. Klambauer et al., 2017."""

    function = F.alpha_dropout


class FeatureAlphaDropout(_DropoutNd):
    """`AlphaDropout` of whole channels."""

    function = F.feature_alpha_dropout
