"""AdaptiveLogSoftmaxWithLoss, where PyTorch has them."""

from graphc.nn.adaptive import AdaptiveLogSoftmaxWithLoss

__all__ = ["AdaptiveLogSoftmaxWithLoss"]
