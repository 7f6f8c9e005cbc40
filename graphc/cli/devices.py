"""Devices on the command line."""

from __future__ import annotations

from graphc.cli.common import unknown
from graphc.errors import UnsupportedError
from graphc_runtime.devices import cuda

DEVICES = ("cpu", "cuda")


def check_device(device: str) -> None:
    """A usage error for names that are no device, UnsupportedError for CUDA devices where CUDA cannot be used."""
    kind, _, number = device.partition(":")
    if device == "cpu":
        return
    if kind != "cuda" or (number and not number.isdecimal()):
        raise unknown("device", device, DEVICES)
    if not cuda.is_available():
        raise UnsupportedError(
            f"device {device!r} cannot be used: {cuda.why_unavailable()}; there is: cpu. `graphc doctor` says more"
        )
    if number and int(number) >= cuda.device_count():
        raise unknown("device", device, [f"cuda:{i}" for i in range(cuda.device_count())])
