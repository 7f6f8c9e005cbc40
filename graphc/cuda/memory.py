"""What the pool of device memory holds. What is asked of a device that was not used yet is 0."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from graphc.cuda.devices import index_of, is_available, opened, run_pending
from graphc.errors import InputError, KindError
from graphc.warned import warn
from graphc_runtime.devices import cuda as runtime
from graphc_runtime.devices.cuda_memory import DeviceMemoryStats
from graphc_runtime.errors import OutOfMemoryError

_NOTHING = DeviceMemoryStats(0, 0, 0, 0, 0, 0)


def _used(device: Any) -> runtime.CudaDevice | None:
    """The device, if it was used."""
    if not is_available():
        return None
    index = index_of(device)
    return next((found for found in runtime.opened() if found.index == index), None)


def _stats(device: Any) -> DeviceMemoryStats:
    found = _used(device)
    return _NOTHING if found is None else found.memory_stats()


def memory_allocated(device: Any = None) -> int:
    """Bytes of tensors on the device, and of what programs hold there. What is recorded and not run takes none."""
    return _stats(device).live_bytes


def max_memory_allocated(device: Any = None) -> int:
    """The most that `memory_allocated` was since the start, or since `reset_peak_memory_stats`."""
    return _stats(device).peak_bytes


def memory_reserved(device: Any = None) -> int:
    """Bytes of the device that the pool holds, used or not."""
    return _stats(device).held_bytes


def max_memory_reserved(device: Any = None) -> int:
    """The most that `memory_reserved` was."""
    return _stats(device).peak_held_bytes


def memory_stats(device: Any = None) -> OrderedDict[str, int]:
    """The numbers of the pool under PyTorch's names, those that there are; empty where CUDA cannot be used."""
    if not is_available():
        return OrderedDict()
    stats = _stats(device)
    return OrderedDict(
        {
            "active.all.current": stats.live_blocks,
            "allocated_bytes.all.current": stats.live_bytes,
            "allocated_bytes.all.peak": stats.peak_bytes,
            "allocation.all.current": stats.live_blocks,
            "reserved_bytes.all.current": stats.held_bytes,
            "reserved_bytes.all.peak": stats.peak_held_bytes,
            "segment.all.current": stats.segments,
        }
    )


def reset_peak_memory_stats(device: Any = None) -> None:
    """Let the peaks start again from what is in use now."""
    opened(device).reset_peak()


def empty_cache() -> None:
    """Give memory that nothing uses back to the devices; nothing to do where none was used."""
    for found in runtime.opened():
        found.empty_cache()


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """What the pool holds and, unless `abbreviated`, the largest buffers with the lines of the user that made them."""
    found = opened(device)
    stats, (free, total) = found.memory_stats(), found.memory_info()
    rows = (
        ("in use by tensors", stats.live_bytes),
        ("in use at the most", stats.peak_bytes),
        ("held by the pool", stats.held_bytes),
        ("held at the most", stats.peak_held_bytes),
        ("free on the device", free),
        ("of the device", total),
    )
    lines = [f"memory of {found.name} ({found.facts.name}), in bytes"]
    lines += [f"  {name:20}{count:>20,}" for name, count in rows]
    largest = [] if abbreviated else found.pool.largest()
    return "\n".join([*lines, *(f"  {size:>20,}  {purpose}" for size, purpose in largest)])


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of the device now, all processes counted."""
    run_pending("torch.cuda.mem_get_info()")
    return opened(device).memory_info()


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Let this process hold at most that part of a device's memory. What it holds already stays. TypeError for what is
    no float, ValueError beyond 0 to 1.
    """
    if not isinstance(fraction, float):
        raise KindError("Invalid type for fraction argument, must be `float`")
    if not 0 <= fraction <= 1:
        raise InputError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    opened(device).pool.fraction = fraction


def get_per_process_memory_fraction(device: Any = None) -> float:
    """The part of a device's memory that this process may hold; 1 unless it was set."""
    return opened(device).pool.fraction


def get_allocator_backend() -> str:
    """What PyTorch calls a pool of its own over the driver's memory."""
    return "native"


# PyTorch's older names.


def _old(name: str, instead: str) -> None:
    warn(f"`torch.cuda.{name}` has been renamed to `torch.cuda.{instead}`", FutureWarning)


def memory_cached(device: Any = None) -> int:
    """`memory_reserved`."""
    _old("memory_cached", "memory_reserved")
    return memory_reserved(device)


def max_memory_cached(device: Any = None) -> int:
    """`max_memory_reserved`."""
    _old("max_memory_cached", "max_memory_reserved")
    return max_memory_reserved(device)


def reset_max_memory_allocated(device: Any = None) -> None:
    """`reset_peak_memory_stats`."""
    _old("reset_max_memory_allocated", "reset_peak_memory_stats")
    reset_peak_memory_stats(device)


def reset_max_memory_cached(device: Any = None) -> None:
    """`reset_peak_memory_stats`."""
    _old("reset_max_memory_cached", "reset_peak_memory_stats")
    reset_peak_memory_stats(device)


__all__ = [
    "OutOfMemoryError",
    "empty_cache",
    "max_memory_allocated",
    "max_memory_cached",
    "max_memory_reserved",
    "mem_get_info",
    "memory_allocated",
    "memory_cached",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "reset_max_memory_allocated",
    "reset_max_memory_cached",
    "reset_peak_memory_stats",
]
