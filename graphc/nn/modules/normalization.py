"""Layer, group and RMS normalisation, where PyTorch has them."""

from graphc.nn.norm import GroupNorm, LayerNorm, LocalResponseNorm, RMSNorm

__all__ = ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]
