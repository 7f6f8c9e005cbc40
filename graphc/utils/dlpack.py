"""DLPack under PyTorch's names."""

from __future__ import annotations

from graphc import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
