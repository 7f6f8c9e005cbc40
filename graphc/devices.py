"""Devices under PyTorch's names, and which of them tensors can live on: the CPU, and CUDA devices that are there.

To the rest of graphc a device is its name: "cpu", "cuda:0".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from graphc.errors import DeviceError, KindError, UsageError, describe
from graphc.ir.types import TensorType
from graphc_runtime.devices import get_device
from graphc_runtime.devices.cuda import current_device, device_count
from graphc_runtime.errors import GraphcRuntimeError

_TYPES = (
    *("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla"),
    *("lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone"),
)


class Device:
    """The name of a device: `device("cpu")`, `device("cuda:1")`, `device("cuda", 1)`.

    RuntimeError for types that PyTorch does not know and for strings that are no device. As a context manager it is
    the default device of what is made inside.
    """

    __slots__ = ("_saved", "index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | Device | int, index: int | None = None) -> None:
        self._saved: list[Device] = []
        if isinstance(type, Device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int) and not isinstance(type, bool):
            if not device_count():
                raise DeviceError("Cannot access accelerator device when none is available.")
            self.type, self.index = "cuda", type
            return
        if not isinstance(type, str):
            raise KindError(
                f"device() received an invalid combination of arguments - got ({_name(type)}), but expected a string "
                "and, optionally, an index"
            )
        self.type, self.index = _parse(type)
        if index is not None:
            if self.index is not None:
                raise UsageError(f"type (string) must not include an index because index was passed explicitly: {type}")
            if index < 0:
                raise UsageError("Device index must not be negative")
            self.index = index

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + ("" if self.index is None else f", index={self.index}") + ")"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (str(self),)

    def __enter__(self) -> Device:
        self._saved.append(DEFAULT[0])
        DEFAULT[0] = device_object(str(self))
        return self

    def __exit__(self, *exception: object) -> None:
        DEFAULT[0] = self._saved.pop()


describe.register(Device, str)


def _name(value: object) -> str:
    return type(value).__name__


def _parse(text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"([a-z_]+)(?::(0|[1-9][0-9]*))?", text)
    if found is None:
        raise UsageError(f"Invalid device string: '{text}'")
    name, index = found.groups()
    if name not in _TYPES:
        raise UsageError(f"Expected one of {', '.join(_TYPES)} device type at start of device string: {name}")
    return name, None if index is None else int(index)


CPU = Device("cpu")
DEFAULT = [CPU]  # the default device, which captures are guarded by


_objects: dict[str, Device] = {"cpu": CPU}


def device_object(name: str) -> Device:
    """The object of a device's name, always the same."""
    found = _objects.get(name)
    if found is None:
        found = _objects[name] = Device(name)
    return found


def use_device(given: object) -> str:
    """The name of a device (None: the default device; a number: that CUDA device) that tensors can live on.

    DeviceError, which says why, for any other.
    """
    if given is None:
        device = DEFAULT[0]
        if device is CPU:  # as nearly always
            return "cpu"
    elif given == "cpu":
        return "cpu"
    else:
        device = given if isinstance(given, Device) else Device(given)  # type: ignore[arg-type]
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise DeviceError(f"device '{device}' is not available; graphc runs on 'cpu' and 'cuda'")
    name = f"cuda:{current_device() if device.index is None else device.index}"
    _check_cuda(name)
    return name


def _check_cuda(name: str) -> None:
    try:
        get_device(name)
    except GraphcRuntimeError as error:
        count = device_count()
        if not count:
            raise DeviceError(f"Torch not compiled with CUDA enabled: graphc runs on 'cpu' ({error})") from None
        is_there = int(name.partition(":")[2]) < count
        raise DeviceError(
            f"CUDA error: {error}" if is_there else f"CUDA error: invalid device ordinal: {error}"
        ) from None


def common_device(types: Sequence[TensorType]) -> str:
    """Where an operation on tensors of `types` runs: 0-d ones of the CPU go along with others. RuntimeError when they
    lie on several devices.
    """
    found = dict.fromkeys(t.device for t in types if t.shape or t.device != "cpu") or {"cpu": None}
    if len(found) > 1:
        raise mixed_devices(*found)
    return next(iter(found))


def mixed_devices(*names: str) -> UsageError:
    """PyTorch's error for tensors on several devices."""
    first, second = sorted(names, key=lambda name: name == "cpu")[:2]  # the CPU last
    return UsageError(
        f"Expected all tensors to be on the same device, but found at least two devices, {first} and {second}!"
    )


def set_default_device(device: Device | str | int | None) -> None:
    """Where tensors are made when nothing else is said; a device that graphc does not have fails at their making."""
    DEFAULT[0] = CPU if device is None else device_object(str(Device(device)))


def get_default_device() -> Device:
    """The device of new tensors."""
    return DEFAULT[0]
