"""The kind of device that computes faster than the host, under PyTorch's names: CUDA's, so these are `graphc.cuda`'s.
Programs ask `is_available` and, if so, take `current_accelerator` for their device, else the CPU.
"""

from __future__ import annotations

from typing import Any

from graphc import cuda
from graphc.absence import no_attribute
from graphc.cuda import current_device as current_device_index
from graphc.cuda import (
    current_stream,
    device_count,
    empty_cache,
    is_available,
    max_memory_allocated,
    max_memory_reserved,
    memory_allocated,
    memory_reserved,
    memory_stats,
    reset_peak_memory_stats,
    set_stream,
    synchronize,
)
from graphc.cuda import device as device_index
from graphc.cuda import mem_get_info as get_memory_info
from graphc.cuda import set_device as set_device_index
from graphc.devices import Device
from graphc.dtypes import dtype, public
from graphc.ir.types import DTYPES

__all__ = [
    "current_accelerator",
    "current_device_idx",
    "current_device_index",
    "current_stream",
    "device_count",
    "device_index",
    "empty_cache",
    "get_device_capability",
    "get_memory_info",
    "is_available",
    "max_memory_allocated",
    "max_memory_reserved",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "set_device_idx",
    "set_device_index",
    "set_stream",
    "synchronize",
]

current_device_idx, set_device_idx = current_device_index, set_device_index


def current_accelerator(check_available: bool = False) -> Device | None:
    """`device("cuda")`, whether or not there is one; with `check_available` None where there is none."""
    return Device("cuda") if not check_available or is_available() else None


def get_device_capability(device: Any = None) -> dict[str, set[dtype]]:
    """`supported_dtypes` of tensors on a device; DeviceError where it cannot be used."""
    cuda.get_device_properties(device)
    return {"supported_dtypes": {public(type) for type in DTYPES}}


def __getattr__(name: str) -> object:
    raise no_attribute("module 'graphc.accelerator'", name, "accelerator")
