"""Lazy modules, where PyTorch has them."""

from graphc.nn.lazy import LazyModuleMixin

__all__ = ["LazyModuleMixin"]
