"""The devices of this runtime."""

from __future__ import annotations

from graphc_runtime.device import Device
from graphc_runtime.devices.cpu import CPU
from graphc_runtime.devices.cuda import cuda_device, current_device
from graphc_runtime.devices.null import NullDevice
from graphc_runtime.errors import GraphcRuntimeError

_DEVICES: dict[str, Device] = {device.name: device for device in (CPU, NullDevice())}


def get_device(name: str) -> Device:
    """The device called `name`: "cpu", "null", "cuda:N", or "cuda" for this thread's current one.

    GraphcRuntimeError that lists the devices when there is none; its subclass DeviceUnavailable when CUDA, or a CUDA
    device of that number, cannot be used.
    """
    device = _DEVICES.get(name)
    if device is not None:
        return device
    kind, colon, number = name.partition(":")
    if kind == "cuda" and (not colon or number.isdecimal()):
        return cuda_device(int(number) if colon else current_device())
    raise GraphcRuntimeError(f"there is no device {name!r}; devices are: {', '.join(_DEVICES)}, cuda:0, cuda:1, ...")
