"""A driver that stands in for CUDA: device memory is memory of the host, kernels are Python functions by name.

Work is done late, as on a device: when somebody waits for it, or in order when `eager`. Every call is recorded, and
errors can be injected, at a call or in a kernel.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from graphc_runtime.devices.cuda_driver import (
    DeviceFacts,
    DriverDevice,
    DriverError,
    DriverMissing,
    Handle,
    NativeCalls,
)

FACTS = DeviceFacts(
    name="Recorder",
    architecture="sm_90",
    multiprocessors=132,
    memory=1 << 30,
    shared_per_block=227 << 10,
    shared_per_multiprocessor=228 << 10,
    registers_per_multiprocessor=1 << 16,
    threads_per_multiprocessor=2048,
    l2_bytes=50 << 20,
    clock_khz=1_980_000,
    driver_version=13000,
)
CONTEXT = 77
ILLEGAL = "an illegal memory access was encountered"

# A kernel gets the addresses of its parameters, blocks, threads, shared bytes.
Kernel = Callable[..., None]


class RecordedStream:
    """Work in order that has not been done."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.work: deque[Callable[[], None]] = deque()
        self.capture: list[Callable[[], None]] | None = None
        self.captured_launches: list[list[Any]] = []


class RecordedEvent:
    """`pending`: the stream and the mark that it waits for."""

    def __init__(self, timing: bool) -> None:
        self.timing = timing
        self.pending: tuple[RecordedStream, object] | None = None
        self.at = 0


class RecordedGraph:
    """What was captured; the parameters of each launch can be changed."""

    def __init__(self, work: list[Callable[[], None]], launches: list[list[Any]]) -> None:
        self.work, self.launches = work, launches


class RecordingDevice:
    """One device. `calls` has a tuple for each call: its name and what matters of its arguments."""

    def __init__(self, kernels: dict[str, Kernel], capacity: int = 1 << 30, graphs: bool = True) -> None:
        self.facts = FACTS
        self.graphs = graphs
        self.native_calls: NativeCalls | None = None
        self.calls: list[tuple[Any, ...]] = []
        self.kernels = kernels
        self.holders: dict[str, Handle] = {}  # the code that each kernel was looked up in
        self.capacity = capacity
        self.eager = False
        self.broken: DriverError | None = None
        self.failing: dict[str, list[DriverError]] = {}  # errors of the next calls, by name
        self.blocks: dict[int, Any] = {}
        self.host_blocks: dict[int, Any] = {}
        self.default = RecordedStream(0)
        self.streams: list[RecordedStream] = [self.default]
        self.clock = 0
        self._lock = threading.RLock()

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    def record_call(self, name: str, *facts: Any) -> None:
        self.calls.append((name, *facts))
        if self.broken is not None:
            raise self.broken
        queued = self.failing.get(name)
        if queued:
            error = queued.pop(0)
            if error.sticky:
                self.broken = error
            raise error

    def put(self, stream: Handle, work: Callable[[], None]) -> None:
        stream = stream or self.default
        if stream.capture is not None:
            stream.capture.append(work)
        else:
            stream.work.append(work)
            if self.eager:
                self.drain(stream)

    def drain(self, stream: RecordedStream, until: object = None) -> None:
        """Do the work of a stream, up to `until` if that is given."""
        with self._lock:
            while stream.work and (until is None or until in stream.work):
                try:
                    stream.work.popleft()()
                except DriverError as error:
                    self.broken = error
                    raise

    def activate(self) -> None:
        if self.broken is not None:
            raise self.broken

    def allocate(self, nbytes: int) -> int:
        self.record_call("allocate", nbytes)
        if nbytes + sum(len(b) for b in self.blocks.values()) > self.capacity:
            raise DriverError("cuMemAlloc failed: out of memory", out_of_memory=True)
        memory = (ctypes.c_char * (nbytes + 256))()
        address = ctypes.addressof(memory) + -ctypes.addressof(memory) % 256
        self.blocks[address] = memory
        return address

    def free(self, address: int) -> None:
        self.record_call("free", address)
        del self.blocks[address]

    def memory(self) -> tuple[int, int]:
        return self.capacity - sum(len(b) for b in self.blocks.values()), self.capacity

    def allocate_host(self, nbytes: int) -> int:
        self.record_call("allocate_host", nbytes)
        memory = (ctypes.c_char * nbytes)()
        self.host_blocks[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def free_host(self, address: int) -> None:
        self.record_call("free_host", address)
        del self.host_blocks[address]

    def _move(self, name: str, target: int, source: int, nbytes: int, stream: Handle) -> None:
        self.record_call(name, target, source, nbytes, stream)
        self.put(stream, lambda: ctypes.memmove(target, source, nbytes) and None)

    def copy_in(self, target: int, host: int, nbytes: int, stream: Handle) -> None:
        if any(start <= host < start + len(memory) for start, memory in self.host_blocks.items()):
            self._move("copy_in", target, host, nbytes, stream)
            return
        # Memory that is not page-locked is read at once.
        self.record_call("copy_in", target, host, nbytes, stream)
        data = ctypes.string_at(host, nbytes)
        self.put(stream, lambda: ctypes.memmove(target, data, nbytes) and None)

    def copy_out(self, host: int, source: int, nbytes: int, stream: Handle) -> None:
        self._move("copy_out", host, source, nbytes, stream)

    def copy(self, target: int, source: int, nbytes: int, stream: Handle) -> None:
        self._move("copy", target, source, nbytes, stream)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, nbytes: int, rows: int, stream: Handle
    ) -> None:
        self.record_call("copy_rows", target, target_pitch, source, source_pitch, nbytes, rows, stream)
        for i in range(rows):
            self.put(stream, partial(ctypes.memmove, target + i * target_pitch, source + i * source_pitch, nbytes))

    def copy_peer(self, target: int, other: DriverDevice, source: int, nbytes: int, stream: Handle) -> None:
        self._move("copy_peer", target, source, nbytes, stream)

    def fill(self, target: int, value: int, nbytes: int, stream: Handle) -> None:
        self.record_call("fill", target, value, nbytes, stream)
        self.put(stream, lambda: ctypes.memset(target, value, nbytes) and None)

    def make_stream(self) -> Handle:
        self.record_call("make_stream")
        self.streams.append(RecordedStream(len(self.streams)))
        return self.streams[-1]

    def stream_number(self, stream: Handle) -> int:
        return (stream or self.default).number

    def foreign_stream(self, number: int) -> Handle:
        return next(stream for stream in self.streams if stream.number == number)

    def stream_done(self, stream: Handle) -> bool:
        self.record_call("stream_done", stream)
        return not (stream or self.default).work

    def synchronize_stream(self, stream: Handle) -> None:
        self.record_call("synchronize_stream", stream)
        self.drain(stream or self.default)

    def synchronize(self) -> None:
        self.record_call("synchronize")
        for stream in self.streams:
            self.drain(stream)

    def make_event(self, timing: bool) -> Handle:
        self.record_call("make_event", timing)
        return RecordedEvent(timing)

    def record(self, event: Handle, stream: Handle) -> None:
        self.record_call("record", event, stream)

        def mark() -> None:
            self.clock += 1
            if event.pending is not None and event.pending[1] is mark:
                event.pending, event.at = None, self.clock

        event.pending = stream or self.default, mark
        self.put(stream, mark)

    def _reach(self, pending: tuple[RecordedStream, object] | None) -> None:
        if pending is not None:
            self.drain(*pending)

    def wait(self, stream: Handle, event: Handle) -> None:
        self.record_call("wait", stream, event)
        pending = event.pending
        self.put(stream, lambda: self._reach(pending))

    def event_done(self, event: Handle) -> bool:
        self.record_call("event_done", event)
        return event.pending is None

    def synchronize_event(self, event: Handle) -> None:
        self.record_call("synchronize_event", event)
        self._reach(event.pending)

    def elapsed(self, start: Handle, end: Handle) -> float:
        return float(end.at - start.at)

    def load(self, image: bytes) -> Handle:
        self.record_call("load", image)
        return image

    def function(self, module: Handle, name: str, shared: int) -> Handle:
        self.record_call("function", name, shared)
        if name not in self.kernels:
            raise DriverError("cuModuleGetFunction failed: named symbol not found")
        self.holders[name] = module
        return name

    def unload(self, module: Handle) -> None:
        self.record_call("unload", module)

    def launch(
        self, function: Handle, blocks: int, threads: int, shared: int, arguments: Sequence[int], stream: Handle
    ) -> None:
        self.record_call("launch", function, blocks, threads, shared, tuple(arguments), stream)
        cell: list[Any] = [tuple(arguments), function]
        if (stream or self.default).capture is not None:
            stream.captured_launches.append(cell)
        kernel = self.kernels[function]
        self.put(stream, lambda: kernel(*cell[0], blocks=blocks, threads=threads, shared=shared))

    def begin_capture(self, stream: Handle) -> None:
        self.record_call("begin_capture", stream)
        assert stream is not None and stream.capture is None
        stream.capture, stream.captured_launches = [], []

    def end_capture(self, stream: Handle) -> Handle:
        self.record_call("end_capture", stream)
        graph = RecordedGraph(stream.capture, stream.captured_launches)
        stream.capture = None
        return graph

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        self.record_call("launch_graph", graph, stream)
        now = [cell[0] for cell in graph.launches]  # an update concerns later launches only

        def work() -> None:
            later = [cell[0] for cell in graph.launches]
            for cell, arguments in zip(graph.launches, now, strict=True):
                cell[0] = arguments
            for step in graph.work:
                step()
            for cell, arguments in zip(graph.launches, later, strict=True):
                cell[0] = arguments

        self.put(stream, work)

    def update_graph(self, graph: Handle, kernel: int, arguments: Sequence[int]) -> None:
        self.record_call("update_graph", kernel, tuple(arguments))
        graph.launches[kernel][0] = tuple(arguments)

    def free_graph(self, graph: Handle) -> None:
        self.record_call("free_graph", graph)


class NativeRecorder:
    """The driver's own functions of a recording device, as native code calls them; they are recorded as the device's.

    `codes` has what the next launches give; those that do not give 0 are not done.
    """

    def __init__(self, device: RecordingDevice) -> None:
        self.codes: list[int] = []
        self.entered = 0  # calls of native code
        self._device = device
        self._functions: list[tuple[str, int]] = []  # name and number of parameters
        word, number = ctypes.c_void_p, ctypes.c_uint
        self._kept = (
            ctypes.CFUNCTYPE(ctypes.c_int, word)(self._set_current),
            ctypes.CFUNCTYPE(ctypes.c_int, word, *[number] * 7, word, ctypes.POINTER(word), word)(self._launch),
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_ubyte, ctypes.c_size_t, word)(self._fill),
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, word)(self._copy),
        )
        addresses = [ctypes.cast(function, word).value or 0 for function in self._kept]
        device.native_calls = NativeCalls(CONTEXT, *addresses, functions=self._numbers, error=self._error)

    def _numbers(self, graph: Handle) -> list[int]:
        start = len(self._functions) + 1
        self._functions += [(name, len(arguments)) for arguments, name in graph.launches]
        return list(range(start, len(self._functions) + 1))

    def _error(self, name: str, code: int) -> DriverError:
        return DriverError(f"{name} failed: code {code}", sticky=code == 700)

    def _stream(self, number: int | None) -> RecordedStream:
        return self._device.streams[number or 0]

    def _set_current(self, context: int) -> int:
        self.entered += 1
        return 0 if context == CONTEXT else 201

    def _launch(self, function: int, *facts: Any) -> int:
        code = self.codes.pop(0) if self.codes else 0
        if code:
            return code
        blocks, _, _, threads, _, _, shared, stream, parameters, _ = facts
        name, count = self._functions[function - 1]
        arguments = [ctypes.c_uint64.from_address(parameters[i]).value for i in range(count)]
        self._device.launch(name, blocks, threads, shared, arguments, self._stream(stream))
        return 0

    def _fill(self, target: int, value: int, nbytes: int, stream: int | None) -> int:
        self._device.fill(target, value, nbytes, self._stream(stream))
        return 0

    def _copy(self, target: int, source: int, nbytes: int, stream: int | None) -> int:
        self._device.copy(target, source, nbytes, self._stream(stream))
        return 0


class RecordingDriver:
    """Devices of the recording kind; none, and an error, with `missing`."""

    name = "recorder"

    def __init__(self, *devices: RecordingDevice, missing: str = "") -> None:
        self.devices = devices
        self.missing = missing

    def device_count(self) -> int:
        if self.missing:
            raise DriverMissing(self.missing)
        return len(self.devices)

    def open(self, index: int) -> DriverDevice:
        return self.devices[index]
