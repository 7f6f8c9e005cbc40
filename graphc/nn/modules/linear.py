"""Linear layers, where PyTorch has them."""

from graphc.nn.lazy import LazyLinear
from graphc.nn.linear import Bilinear, Identity, Linear

__all__ = ["Bilinear", "Identity", "LazyLinear", "Linear"]
