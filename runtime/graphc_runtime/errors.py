"""Errors of the runtime. They are about programs, memory and machines; the compiler has its own."""

from __future__ import annotations


class GraphcRuntimeError(RuntimeError):
    """Base of the errors that the runtime raises on purpose (except `OutOfMemory`, which is a MemoryError)."""


class ArtifactError(GraphcRuntimeError, ValueError):
    """Bytes are not a usable artifact. Cure: compile and save it again."""


class LoadError(GraphcRuntimeError):
    """Object code could not be linked into this process. Cure: recompile for this machine (`graphc cache clear`)."""


class CallError(GraphcRuntimeError, ValueError):
    """A program was called with the wrong number of buffers, or with buffers of the wrong size."""


class OptionError(GraphcRuntimeError, ValueError):
    """An option does not exist or does not take that value; the message lists what it takes."""


class OutOfMemory(MemoryError):
    """Memory for a tensor or an arena cannot be had. The message names what was asked for, its bytes and the limit."""


class OutOfMemoryError(OutOfMemory, GraphcRuntimeError):
    """Memory of a device cannot be had. The message lists the largest buffers that are in use there."""


class DeviceUnavailable(GraphcRuntimeError):
    """A device cannot be used on this machine or in this process. The message says why and what to do."""


class DeviceError(GraphcRuntimeError):
    """The device refused or failed at something; it can still be used."""


class DeviceLost(DeviceError):
    """A kernel broke the device's context. What was on the device is gone for this process; other devices, the CPU
    among them, go on. The message names the kernels that may have done it.
    """


class CacheWarning(UserWarning):
    """The kernel cache on disk cannot be used; compiled code is kept in memory only. Said once per process."""
