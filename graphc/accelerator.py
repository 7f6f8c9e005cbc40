"""CUDA devices as the front end sees them: how many there are, and which one is current in this thread."""

from __future__ import annotations


def device_count() -> int:
    """Number of CUDA devices that can be used; 0 when CUDA cannot be used at all."""
    return 0


def is_available() -> bool:
    """Whether tensors can live on a CUDA device."""
    return device_count() > 0
