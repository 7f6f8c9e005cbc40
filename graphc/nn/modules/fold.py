"""Fold and Unfold, where PyTorch has them."""

from graphc.nn.resampling import Fold, Unfold

__all__ = ["Fold", "Unfold"]
