"""The devices of this runtime."""

from __future__ import annotations

from graphc_runtime.device import Device
from graphc_runtime.devices.cpu import CPU
from graphc_runtime.devices.null import NullDevice
from graphc_runtime.errors import GraphcRuntimeError

_DEVICES: dict[str, Device] = {device.name: device for device in (CPU, NullDevice())}


def get_device(name: str) -> Device:
    """The device called `name`; GraphcRuntimeError that lists the devices when there is none."""
    device = _DEVICES.get(name)
    if device is None:
        raise GraphcRuntimeError(f"there is no device {name!r}; devices are: {', '.join(_DEVICES)}")
    return device
