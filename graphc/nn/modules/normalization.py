"""Layer, group and RMS normalisation, where PyTorch has them."""

from graphc.nn.crossmap import CrossMapLRN2d
from graphc.nn.norm import GroupNorm, LayerNorm, LocalResponseNorm, RMSNorm

__all__ = ["CrossMapLRN2d", "GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]
