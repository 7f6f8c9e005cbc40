"""`torch.cuda` on a machine where graphc has no GPU: what programs ask before they choose a device."""

from __future__ import annotations


def is_available() -> bool:
    """Whether tensors can live on a CUDA device: graphc runs on the CPU so far."""
    return False


def device_count() -> int:
    """Number of CUDA devices that can be used."""
    return 0


def manual_seed(seed: int) -> None:
    """Seed the generator of the current device; without a device, nothing to do, as in PyTorch."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all devices; without a device, nothing to do, as in PyTorch."""
