"""The runtime of graphc: runs compiled programs. It knows nothing of the compiler; the `Artifact` is all that passes
between them.
"""

from __future__ import annotations

from graphc_runtime.artifact import Artifact, DeviceStep, Launch, TensorSpec
from graphc_runtime.buffer import Buffer, memory_stats, release_memory, reset_peak
from graphc_runtime.cache import KernelCache, default_cache, feature_names
from graphc_runtime.counters import COUNTERS, counters
from graphc_runtime.devices import get_device
from graphc_runtime.devices.cuda_memory import DeviceBuffer
from graphc_runtime.errors import (
    ArtifactError,
    CacheWarning,
    CallError,
    DeviceError,
    DeviceLost,
    DeviceUnavailable,
    GraphcRuntimeError,
    LoadError,
    OptionError,
    OutOfMemory,
    OutOfMemoryError,
)
from graphc_runtime.executor import Executable
from graphc_runtime.pool import get_num_threads, set_num_threads

__all__ = [
    "COUNTERS",
    "Artifact",
    "ArtifactError",
    "Buffer",
    "CacheWarning",
    "CallError",
    "DeviceBuffer",
    "DeviceError",
    "DeviceLost",
    "DeviceStep",
    "DeviceUnavailable",
    "Executable",
    "GraphcRuntimeError",
    "KernelCache",
    "Launch",
    "LoadError",
    "OptionError",
    "OutOfMemory",
    "OutOfMemoryError",
    "TensorSpec",
    "counters",
    "default_cache",
    "feature_names",
    "get_device",
    "get_num_threads",
    "memory_stats",
    "release_memory",
    "reset_peak",
    "set_num_threads",
]
