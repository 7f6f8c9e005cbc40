"""The driver over PyCUDA. The only file of the runtime that uses it.

PyCUDA keeps a stack of contexts for each thread: it makes objects in the one on top, and ends the process when a thread
ends whose stack is not empty. So the context is on that stack only while an object is made or ended (`_Active`); for
everything else it is enough that the driver itself has it as this thread's current one (`activate`). PyCUDA's objects
also end themselves, with messages and worse where the context is gone by then; here they are kept for good, and end
only when they are told to (`_Kept`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc_runtime.devices import cuda_bindings
from graphc_runtime.devices.cuda_driver import (
    DeviceFacts,
    DriverDevice,
    DriverError,
    DriverMissing,
    Handle,
    NativeCalls,
)

_INSTALL = (
    "Install it with `pip install -e '.[cuda]'` in a clone of graphc. There are no ready-made wheels: its build needs "
    "the CUDA toolkit (nvcc on PATH, or CUDA_ROOT set to its folder) and a C++ compiler"
)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE
_STATIC_SHARED = 48 << 10  # what a kernel gets without asking
_SUCCESS, _OUT_OF_MEMORY, _NOT_READY = 0, 2, 600
# Codes after which a context is broken: uncorrectable errors of memory and links, and what kernels do wrong.
_STICKY = (4, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999)


_ON_DEVICE = 2  # CU_MEMORYTYPE_DEVICE


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D of cuda.h."""

    _fields_ = (
        ("source_x", ctypes.c_size_t),
        ("source_y", ctypes.c_size_t),
        ("source_memory", ctypes.c_uint),
        ("source_host", ctypes.c_void_p),
        ("source", ctypes.c_uint64),
        ("source_array", ctypes.c_void_p),
        ("source_pitch", ctypes.c_size_t),
        ("target_x", ctypes.c_size_t),
        ("target_y", ctypes.c_size_t),
        ("target_memory", ctypes.c_uint),
        ("target_host", ctypes.c_void_p),
        ("target", ctypes.c_uint64),
        ("target_array", ctypes.c_void_p),
        ("target_pitch", ctypes.c_size_t),
        ("nbytes", ctypes.c_size_t),
        ("rows", ctypes.c_size_t),
    )


class PyCudaDriver:
    """CUDA by PyCUDA, loaded when it is first asked for."""

    name = "PyCUDA"

    def __init__(self) -> None:
        self._cuda: Any = None
        self._process = 0

    def device_count(self) -> int:
        return int(self._ready().Device.count())

    def open(self, index: int) -> DriverDevice:
        cuda = self._ready()
        try:
            return PyCudaDevice(cuda, index)
        except cuda.Error as error:
            raise DriverError(str(error)) from None

    def _ready(self) -> Any:
        if self._cuda is None:
            self._cuda, self._process = _initialised(), os.getpid()
        elif self._process != os.getpid():
            raise DriverMissing(
                "CUDA was initialised before this process was forked, and does not work in the child. Start worker "
                "processes with multiprocessing's 'spawn' or 'forkserver' method"
            )
        return self._cuda


def _initialised() -> Any:
    try:
        from pycuda import driver as cuda  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise DriverMissing(f"CUDA devices need PyCUDA, which is not installed ({error}). {_INSTALL}") from None
    except ImportError as error:
        if "libcuda" in str(error) or "nvcuda" in str(error):
            raise DriverMissing(
                f"there is no NVIDIA driver on this machine, or it is not found ({error}): install one, and check "
                "that `nvidia-smi` lists the device"
            ) from None
        raise DriverMissing(
            f"PyCUDA cannot be loaded ({error}). It was built for another driver or CUDA than there is: build it "
            "again with `pip install --force-reinstall --no-cache-dir --no-binary pycuda pycuda`, or update the driver"
        ) from None
    try:
        cuda.init()
        served = cuda.get_driver_version()
    except cuda.Error as error:
        raise DriverMissing(
            f"CUDA cannot be used: {error}. Check that `nvidia-smi` lists a device, and that CUDA_VISIBLE_DEVICES "
            "does not hide it"
        ) from None
    built = cuda.get_version()
    if served // 1000 < built[0]:
        raise DriverMissing(
            f"the NVIDIA driver is too old: it serves CUDA {served // 1000}.{served % 1000 // 10}, and PyCUDA was "
            f"built with CUDA {built[0]}.{built[1]}. Update the driver, or build PyCUDA with an older toolkit"
        )
    return cuda


class _Kept:
    """An object of PyCUDA that does not end before `end`."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held: Any = held
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))

    def end(self) -> None:
        """Let it end, in the active context, if nobody else has it."""
        held, self.held = self.held, None
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(held))


class _Foreign:
    """Stands for a stream of another library."""

    __slots__ = ("handle",)

    def __init__(self, number: int) -> None:
        self.handle = number

    @property
    def held(self) -> _Foreign:
        """What has its number, as of streams that PyCUDA made."""
        return self


class _Active:
    """Inside, PyCUDA has the context as this thread's."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._context.push()

    def __exit__(self, *error: object) -> None:
        self._context.pop()


class PyCudaDevice:
    """A device by PyCUDA."""

    def __init__(self, cuda: Any, index: int) -> None:
        self._cuda = cuda
        self.index = index
        self._device = cuda.Device(index)
        self.facts = _facts(cuda, self._device)
        self._context = _Kept(self._device.retain_primary_context()).held
        self._active = _Active(self._context)
        self._number = ctypes.c_void_p(self._context.handle)
        self._memory: dict[int, _Kept] = {}
        self._host_memory: dict[int, _Kept] = {}
        self._peers: set[int] = set()
        self.graphs = cuda_bindings.bindings() is not None
        self.native_calls: NativeCalls | None = None
        self._libcuda()

    def _libcuda(self) -> None:
        """The driver's own functions, for what PyCUDA has no way to or only with an object of its own."""
        name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        waiting, short = ctypes.CDLL(name), ctypes.PyDLL(name)  # the first lets other threads run meanwhile
        pointer = ctypes.c_void_p

        def declare(library: ctypes.CDLL, name: str, *types: Any) -> Any:
            function = getattr(library, name)
            function.argtypes = types
            return function

        self._set_current = declare(short, "cuCtxSetCurrent", pointer)
        self._stream_query = declare(short, "cuStreamQuery", pointer)
        self._stream_synchronize = declare(waiting, "cuStreamSynchronize", pointer)
        self._stream_wait = declare(short, "cuStreamWaitEvent", pointer, pointer, ctypes.c_uint)
        self._event_create = declare(short, "cuEventCreate", ctypes.POINTER(pointer), ctypes.c_uint)
        self._event_record = declare(short, "cuEventRecord", pointer, pointer)
        self._event_query = declare(short, "cuEventQuery", pointer)
        self._event_synchronize = declare(waiting, "cuEventSynchronize", pointer)
        self._event_elapsed = declare(short, "cuEventElapsedTime", ctypes.POINTER(ctypes.c_float), pointer, pointer)
        self._copy_peer = declare(
            short, "cuMemcpyPeerAsync", pointer, pointer, pointer, pointer, ctypes.c_size_t, pointer
        )
        self._copy_2d = declare(short, "cuMemcpy2DAsync_v2", ctypes.POINTER(_Copy2D), pointer)
        # A process that ends while a daemon thread is in one of the short ones would end in a crash.
        self._graph_launch = declare(short, "cuGraphLaunch", pointer, pointer)
        self._error_text = declare(short, "cuGetErrorString", ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))
        if self.graphs:
            names = "cuCtxSetCurrent", "cuLaunchKernel", "cuMemsetD8Async", "cuMemcpyDtoDAsync_v2"
            set_current, launch, fill, copy = [ctypes.cast(getattr(waiting, n), pointer).value or 0 for n in names]
            # PyCUDA does not tell the numbers of its functions; graphs of them do.
            self.native_calls = NativeCalls(
                self._context.handle, set_current, launch, fill, copy, lambda graph: graph.functions(), self._error
            )
        self._sticky = tuple([text for code in _STICKY if (text := self._text(code))])

    # -- errors ---------------------------------------------------------------------------------------------------

    def _text(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._error_text(code, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def _error(self, name: str, code: int) -> DriverError:
        text = f"{name} failed: {self._text(code) or code}"
        return DriverError(text, sticky=code in _STICKY, out_of_memory=code == _OUT_OF_MEMORY)

    def _check(self, name: str, code: int) -> None:
        if code != _SUCCESS:
            raise self._error(name, code)

    def _done(self, name: str, code: int) -> bool:
        if code != _NOT_READY:
            self._check(name, code)
        return code == _SUCCESS

    def _results(self, name: str, results: tuple[Any, ...]) -> Any:
        """What a function of cuda-bindings gave, which begins with its code."""
        self._check(name, int(results[0]))
        return results[1] if len(results) == 2 else results[1:]

    def _translated(self, error: Exception) -> DriverError:
        """PyCUDA's errors have no code; their text is the driver's."""
        text = str(error)
        refused = isinstance(error, self._cuda.MemoryError)
        return DriverError(text, sticky=any(s in text for s in self._sticky), out_of_memory=refused)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A call for which the driver's current context is enough."""
        try:
            return function(*arguments)
        except self._cuda.Error as error:
            raise self._translated(error) from None

    def _made(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A call that makes or ends an object of PyCUDA."""
        try:
            with self._active:
                return function(*arguments)
        except self._cuda.Error as error:
            raise self._translated(error) from None
        finally:
            self.activate()  # PyCUDA has put back what the thread had when it last looked

    def activate(self) -> None:
        # Always, as other libraries may have made another device the thread's.
        self._check("cuCtxSetCurrent", self._set_current(self._number))

    # -- memory ---------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        memory = _Kept(self._made(self._cuda.mem_alloc, nbytes))
        address = int(memory.held)
        self._memory[address] = memory
        return address

    def free(self, address: int) -> None:
        memory = self._memory.pop(address)
        self._made(memory.held.free)
        memory.end()

    def memory(self) -> tuple[int, int]:
        free, total = self._call(self._cuda.mem_get_info)
        return int(free), int(total)

    def allocate_host(self, nbytes: int) -> int:
        memory = _Kept(self._made(self._cuda.pagelocked_empty, nbytes, np.uint8, "C", _PORTABLE))
        address = memory.held.__array_interface__["data"][0]
        self._host_memory[address] = memory
        return address

    def free_host(self, address: int) -> None:
        memory = self._host_memory.pop(address)
        self._made(memory.held.base.free)
        memory.end()

    def copy_in(self, target: int, host: int, nbytes: int, stream: Handle) -> None:
        source = (ctypes.c_char * nbytes).from_address(host)
        self._call(self._cuda.memcpy_htod_async, target, source, _held(stream))

    def copy_out(self, host: int, source: int, nbytes: int, stream: Handle) -> None:
        target = (ctypes.c_char * nbytes).from_address(host)
        self._call(self._cuda.memcpy_dtoh_async, target, source, _held(stream))

    def copy(self, target: int, source: int, nbytes: int, stream: Handle) -> None:
        self._call(self._cuda.memcpy_dtod_async, target, source, nbytes, _held(stream))

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, nbytes: int, rows: int, stream: Handle
    ) -> None:
        given = _Copy2D(
            source_memory=_ON_DEVICE,
            source=source,
            source_pitch=source_pitch,
            target_memory=_ON_DEVICE,
            target=target,
            target_pitch=target_pitch,
            nbytes=nbytes,
            rows=rows,
        )
        self._check("cuMemcpy2DAsync", self._copy_2d(ctypes.byref(given), self.stream_number(stream)))

    def copy_peer(self, target: int, other: DriverDevice, source: int, nbytes: int, stream: Handle) -> None:
        assert isinstance(other, PyCudaDevice)
        if other.index not in self._peers:
            self._peers.add(other.index)
            self._reach(other)
        # Not PyCUDA's `memcpy_peer_async`, which takes the current context for both when it is given two.
        code = self._copy_peer(target, self._number, source, other._number, nbytes, self.stream_number(stream))
        self._check("cuMemcpyPeerAsync", code)

    def _reach(self, other: PyCudaDevice) -> None:
        """Let this device read the other's memory directly, where the machine can do that."""
        if self._device.can_access_peer(other._device):
            with contextlib.suppress(self._cuda.Error):  # another library has done it
                self._context.enable_peer_access(other._context)

    def fill(self, target: int, value: int, nbytes: int, stream: Handle) -> None:
        self._call(self._cuda.memset_d8_async, target, value, nbytes, _held(stream))

    # -- streams and events ---------------------------------------------------------------------------------------

    def make_stream(self) -> Handle:
        return _Kept(self._made(self._cuda.Stream, _NON_BLOCKING))

    def stream_number(self, stream: Handle) -> int:
        return 0 if stream is None else int(stream.held.handle)

    def foreign_stream(self, number: int) -> Handle:
        return _Foreign(number)

    def stream_done(self, stream: Handle) -> bool:
        return self._done("cuStreamQuery", self._stream_query(self.stream_number(stream)))

    def synchronize_stream(self, stream: Handle) -> None:
        self._check("cuStreamSynchronize", self._stream_synchronize(self.stream_number(stream)))

    def synchronize(self) -> None:
        self._call(self._context.synchronize)

    # Events are the driver's own: PyCUDA's cannot be waited for by the default stream.

    def make_event(self, timing: bool) -> Handle:
        event = ctypes.c_void_p()
        self._check("cuEventCreate", self._event_create(ctypes.byref(event), 0 if timing else _NO_TIMING))
        return event.value

    def record(self, event: Handle, stream: Handle) -> None:
        self._check("cuEventRecord", self._event_record(event, self.stream_number(stream)))

    def wait(self, stream: Handle, event: Handle) -> None:
        self._check("cuStreamWaitEvent", self._stream_wait(self.stream_number(stream), event, 0))

    def event_done(self, event: Handle) -> bool:
        return self._done("cuEventQuery", self._event_query(event))

    def synchronize_event(self, event: Handle) -> None:
        self._check("cuEventSynchronize", self._event_synchronize(event))

    def elapsed(self, start: Handle, end: Handle) -> float:
        milliseconds = ctypes.c_float()
        self._check("cuEventElapsedTime", self._event_elapsed(ctypes.byref(milliseconds), start, end))
        return milliseconds.value

    # -- kernels --------------------------------------------------------------------------------------------------

    def load(self, image: bytes) -> Handle:
        return _Kept(self._made(self._cuda.module_from_buffer, image))

    def function(self, module: Handle, name: str, shared: int) -> Handle:
        attribute = self._cuda.function_attribute
        function = self._call(module.held.get_function, name)
        fixed = self._call(function.get_attribute, attribute.SHARED_SIZE_BYTES)
        if fixed + shared > self.facts.shared_per_block:
            raise DriverError(
                f"kernel {name} takes {fixed + shared:,} bytes of shared memory for a block, the device has "
                f"{self.facts.shared_per_block:,}"
            )
        if fixed + shared > _STATIC_SHARED:
            self._call(function.set_attribute, attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        return function._launch_kernel

    def unload(self, module: Handle) -> None:
        self._made(module.end)

    def launch(
        self,
        function: Handle,
        blocks: int,
        threads: int,
        shared: int,
        arguments: ctypes.Array[ctypes.c_uint64],
        stream: Handle,
    ) -> None:
        try:
            function((blocks,), (threads,), arguments, shared, None if stream is None else stream.held)
        except self._cuda.Error as error:
            raise self._translated(error) from None

    # -- graphs ---------------------------------------------------------------------------------------------------

    def begin_capture(self, stream: Handle) -> None:
        cuda_bindings.begin_capture(self._results, self.stream_number(stream))

    def end_capture(self, stream: Handle) -> Handle:
        return cuda_bindings.end_capture(self._results, self.stream_number(stream))

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        self._check("cuGraphLaunch", self._graph_launch(graph.number, self.stream_number(stream)))

    def update_graph(self, graph: Handle, kernel: int, arguments: ctypes.Array[ctypes.c_uint64]) -> None:
        graph.update(kernel, arguments)

    def free_graph(self, graph: Handle) -> None:
        graph.free()


def _held(stream: Handle) -> Any:
    return None if stream is None else stream.held


def _facts(cuda: Any, device: Any) -> DeviceFacts:
    names = cuda.device_attribute
    major, minor = device.compute_capability()

    def fact(name: str) -> int:
        return int(device.get_attribute(getattr(names, name)))

    return DeviceFacts(
        name=device.name(),
        architecture=f"sm_{major}{minor}",
        multiprocessors=fact("MULTIPROCESSOR_COUNT"),
        memory=int(device.total_memory()),
        shared_per_block=fact("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        shared_per_multiprocessor=fact("MAX_SHARED_MEMORY_PER_MULTIPROCESSOR"),
        registers_per_multiprocessor=fact("MAX_REGISTERS_PER_MULTIPROCESSOR"),
        threads_per_multiprocessor=fact("MAX_THREADS_PER_MULTIPROCESSOR"),
        l2_bytes=fact("L2_CACHE_SIZE"),
        clock_khz=fact("CLOCK_RATE"),
        driver_version=int(cuda.get_driver_version()),
    )
