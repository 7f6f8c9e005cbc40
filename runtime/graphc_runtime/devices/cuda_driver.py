"""What this runtime needs of CUDA: the `Driver` protocol. `cuda_pycuda.py` has it from PyCUDA; tests register others.

A driver is thin: it knows no buffers, pools or programs, only addresses and handles. Everything that takes a `stream`
is put in order there and may return before it is done; None is the device's default stream, which other libraries use
too. Any method may be called from any thread that called `activate`, and may raise `DriverError`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Handle = Any  # a stream, event, module, function or graph: only the driver that made it looks inside


class DriverError(RuntimeError):
    """A call of the driver failed. The runtime tells the user what that means.

    `sticky`: the context is broken, and each later call fails too. `out_of_memory`: an allocation was refused, nothing
    else happened.
    """

    def __init__(self, text: str, *, sticky: bool = False, out_of_memory: bool = False) -> None:
        super().__init__(text)
        self.sticky = sticky
        self.out_of_memory = out_of_memory
        self.step = -1  # of the program whose steps were being put on a stream


class DriverMissing(DriverError):
    """CUDA cannot be used on this machine at all; the text says why and what to do."""


@dataclass(frozen=True)
class DeviceFacts:
    """What is to be known of a device, as plain numbers. Sizes are bytes.

    `driver_version` is 13000 for CUDA 13.0: the newest CUDA that the driver serves.
    """

    name: str
    architecture: str  # "sm_90"
    multiprocessors: int
    memory: int
    shared_per_block: int  # the most that a kernel may ask for, static and dynamic together
    shared_per_multiprocessor: int
    registers_per_multiprocessor: int
    threads_per_multiprocessor: int
    l2_bytes: int
    clock_khz: int
    driver_version: int


@dataclass(frozen=True)
class NativeCalls:
    """What native code needs to put steps on a stream without this protocol: the context, and the addresses of the
    driver's cuCtxSetCurrent, cuLaunchKernel, cuMemsetD8Async and cuMemcpyDtoDAsync.

    `functions` gives the driver's numbers of the kernels of a captured graph, `error` the DriverError for a code.
    """

    context: int
    set_current: int
    launch: int
    fill: int
    copy: int
    functions: Callable[[Handle], list[int]]
    error: Callable[[str, int], DriverError]


class DriverDevice(Protocol):
    """One device, opened: its primary context is retained until the process ends.

    It may have an attribute `native_calls`, a `NativeCalls`: then programs that run again are launched by native code.
    """

    facts: DeviceFacts
    # Whether streams can be captured: the methods on graphs work.
    graphs: bool

    def activate(self) -> None:
        """Let this thread call the other methods, until it activates another device."""
        ...

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory, aligned to 256 bytes; DriverError, out_of_memory, when there is none."""
        ...

    def free(self, address: int) -> None:
        """Give memory back; the caller knows that nothing uses it any more."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of the device now, all processes counted."""
        ...

    def allocate_host(self, nbytes: int) -> int:
        """The address of page-locked memory of the host."""
        ...

    def free_host(self, address: int) -> None: ...

    def copy_in(self, target: int, host: int, nbytes: int, stream: Handle) -> None:
        """Host to device. Asynchronous when `host` is page-locked; other memory was read when this returns, up to
        64 KiB of it without waiting for the stream.
        """
        ...

    def copy_out(self, host: int, source: int, nbytes: int, stream: Handle) -> None:
        """Device to host. Asynchronous when `host` is page-locked."""
        ...

    def copy(self, target: int, source: int, nbytes: int, stream: Handle) -> None:
        """Within the device. The two do not overlap."""
        ...

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, nbytes: int, rows: int, stream: Handle
    ) -> None:
        """`rows` times `nbytes` within the device, of which each begins a pitch of bytes, `nbytes` or more and less
        than 2 GiB, behind the one before. The two do not overlap.
        """
        ...

    def copy_peer(self, target: int, other: DriverDevice, source: int, nbytes: int, stream: Handle) -> None:
        """From device `other` to this one, on a stream of this one."""
        ...

    def fill(self, target: int, value: int, nbytes: int, stream: Handle) -> None:
        """Every byte becomes `value`."""
        ...

    def make_stream(self) -> Handle:
        """A stream that does not wait for the default stream."""
        ...

    def stream_number(self, stream: Handle) -> int:
        """The stream as other libraries know it (a CUstream as a number; 0 for None)."""
        ...

    def foreign_stream(self, number: int) -> Handle:
        """The stream that another library knows by this number, for events to be recorded on."""
        ...

    def stream_done(self, stream: Handle) -> bool: ...

    def synchronize_stream(self, stream: Handle) -> None: ...

    def synchronize(self) -> None:
        """Wait for all streams of the device."""
        ...

    def make_event(self, timing: bool) -> Handle: ...

    def record(self, event: Handle, stream: Handle) -> None: ...

    def wait(self, stream: Handle, event: Handle) -> None:
        """What comes later on `stream` starts after `event`."""
        ...

    def event_done(self, event: Handle) -> bool: ...

    def synchronize_event(self, event: Handle) -> None: ...

    def elapsed(self, start: Handle, end: Handle) -> float:
        """Milliseconds between two events with timing that have happened."""
        ...

    def load(self, image: bytes) -> Handle:
        """A module from a cubin."""
        ...

    def function(self, module: Handle, name: str, shared: int) -> Handle:
        """A kernel of the module that may be launched with `shared` bytes of dynamic shared memory."""
        ...

    def unload(self, module: Handle) -> None: ...

    def launch(
        self,
        function: Handle,
        blocks: int,
        threads: int,
        shared: int,
        arguments: ctypes.Array[ctypes.c_uint64],
        stream: Handle,
    ) -> None:
        """Run a kernel, whose parameters are the addresses in `arguments`; they are read before this returns."""
        ...

    def begin_capture(self, stream: Handle) -> None:
        """Until `end_capture`, what this thread puts on `stream` goes into a graph instead of being run."""
        ...

    def end_capture(self, stream: Handle) -> Handle:
        """The graph, ready to be launched."""
        ...

    def launch_graph(self, graph: Handle, stream: Handle) -> None: ...

    def update_graph(self, graph: Handle, kernel: int, arguments: ctypes.Array[ctypes.c_uint64]) -> None:
        """Let the kernel that was launched as number `kernel` of the capture, counted from 0 without fills and copies,
        have other parameters when the graph is launched from now on. What was launched before has the old ones.
        """
        ...

    def free_graph(self, graph: Handle) -> None: ...


class Driver(Protocol):
    """A way to CUDA."""

    name: str

    def device_count(self) -> int:
        """How many devices there are; DriverMissing when CUDA cannot be used."""
        ...

    def open(self, index: int) -> DriverDevice:
        """Device `index` of `device_count()`."""
        ...
