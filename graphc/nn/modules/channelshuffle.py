"""ChannelShuffle, where PyTorch has them."""

from graphc.nn.resampling import ChannelShuffle

__all__ = ["ChannelShuffle"]
