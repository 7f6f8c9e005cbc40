"""Flatten and Unflatten, where PyTorch has them."""

from graphc.nn.linear import Flatten, Unflatten

__all__ = ["Flatten", "Unflatten"]
