"""PixelShuffle and PixelUnshuffle, where PyTorch has them."""

from graphc.nn.resampling import PixelShuffle, PixelUnshuffle

__all__ = ["PixelShuffle", "PixelUnshuffle"]
