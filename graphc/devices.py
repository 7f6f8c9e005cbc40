"""Devices under PyTorch's names. Tensors live on the CPU; other devices can be named, but nothing can be put there."""

from __future__ import annotations

import re
from typing import Any

from graphc.errors import DeviceError, KindError, UsageError, describe

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
            raise DeviceError("Cannot access accelerator device when none is available.")
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
        self._saved.append(_default[0])
        _default[0] = self
        return self

    def __exit__(self, *exception: object) -> None:
        _default[0] = self._saved.pop()


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
_default = [CPU]


def use_device(given: object) -> None:
    """DeviceError unless `given` (None: the default device) is one that tensors can live on: a CPU."""
    if given is None:
        device = _default[0]
    else:
        device = given if isinstance(given, Device) else Device(given)  # type: ignore[arg-type]
    if device.type == "cuda":
        raise DeviceError("Torch not compiled with CUDA enabled: graphc runs on 'cpu'")
    if device.type != "cpu":
        raise DeviceError(f"device '{device}' is not available; graphc runs on 'cpu'")


def set_default_device(device: Device | str | int | None) -> None:
    """Where tensors are made when nothing else is said; a device that graphc does not have fails at their making."""
    _default[0] = CPU if device is None else Device(device)


def get_default_device() -> Device:
    """The device of new tensors."""
    return _default[0]
