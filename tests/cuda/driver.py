"""A driver for the runtime's CUDA devices whose device is the host: memory is host memory, a cubin is the text of a
unit, kernels run in the shim. Everything is done when the call returns, but inside a capture.

It refuses what a real driver would answer with a crash or with wrong numbers: addresses outside of its allocations,
memory that was freed, streams of another device. Fresh memory is full of 0xFF bytes (NaN).
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc_runtime.devices.cuda_driver import DeviceFacts, DriverDevice, DriverError
from tests.cuda.shim import Unit

ALIGNMENT = 256
MEMORY = 2 << 30  # bytes that each device is said to have
FACTS = DeviceFacts(
    name="host shim",
    architecture="sm_90",
    multiprocessors=4,
    memory=MEMORY,
    shared_per_block=227 << 10,
    shared_per_multiprocessor=228 << 10,
    registers_per_multiprocessor=65536,
    threads_per_multiprocessor=2048,
    l2_bytes=50 << 20,
    clock_khz=1_000_000,
    driver_version=13000,
)


class Memory:
    """Allocations by address."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._arrays: dict[int, np.ndarray] = {}
        self._sizes: dict[int, int] = {}
        self._starts: list[int] = []
        self.bytes = 0

    def allocate(self, nbytes: int) -> int:
        """The address of fresh memory."""
        holder = np.full(nbytes + ALIGNMENT, 0xFF, np.uint8)
        address = holder.ctypes.data + -holder.ctypes.data % ALIGNMENT
        self._arrays[address] = holder
        self._sizes[address] = nbytes
        bisect.insort(self._starts, address)
        self.bytes += nbytes
        return address

    def free(self, address: int) -> None:
        """Forget an allocation; its contents become garbage first."""
        if address not in self._sizes:
            raise DriverError(f"{address:#x} is no address of {self._what}, or it was freed before", sticky=True)
        self._arrays.pop(address).fill(0xFF)
        self._starts.remove(address)
        self.bytes -= self._sizes.pop(address)

    def range(self, address: int) -> tuple[int, int]:
        """Start and size of the allocation that holds `address`."""
        at = bisect.bisect_right(self._starts, address) - 1
        start = self._starts[at] if at >= 0 else 0
        if at < 0 or address > start + self._sizes[start]:
            raise DriverError(f"{address:#x} is no address of {self._what}", sticky=True)
        return start, self._sizes[start]

    def check(self, address: int, nbytes: int) -> None:
        """DriverError when the bytes are not all of one allocation."""
        start, size = self.range(address)
        if address + nbytes > start + size:
            raise DriverError(
                f"{nbytes} bytes at {address:#x} go beyond an allocation of {size} bytes at {start:#x}", sticky=True
            )


@dataclass(eq=False)
class Stream:
    """A queue; `captured` are the nodes of the graph that is being made."""

    number: int
    captured: list[Node] | None = None


@dataclass
class Node:
    """A step of a graph: what to do, and the parameters of a kernel."""

    run: Callable[[Sequence[int]], None]
    arguments: list[int] | None = None


@dataclass
class Event:
    """The time of its last record."""

    timing: bool
    at: float | None = None


@dataclass(frozen=True)
class Function:
    """A kernel of a unit."""

    unit: Unit
    name: str
    shared: int


@dataclass
class ShimDevice:
    """A device of the shim (the protocol `DriverDevice`)."""

    driver: ShimDriver
    facts: DeviceFacts = FACTS
    graphs: bool = True
    allocated: Memory = field(default_factory=lambda: Memory("the device"))
    pinned: Memory = field(default_factory=lambda: Memory("page-locked memory"))
    default: Stream = field(default_factory=lambda: Stream(0))
    streams: list[Stream] = field(default_factory=list)

    def activate(self) -> None:
        self.driver.active.device = self

    def _check_active(self) -> None:
        if getattr(self.driver.active, "device", None) is not self:
            raise DriverError("a call for a device that this thread did not activate", sticky=True)

    # memory

    def allocate(self, nbytes: int) -> int:
        self._check_active()
        if self.allocated.bytes + nbytes > self.facts.memory:
            raise DriverError(f"{nbytes} bytes are not free", out_of_memory=True)
        return self.allocated.allocate(nbytes)

    def free(self, address: int) -> None:
        self._check_active()
        self.allocated.free(address)

    def memory(self) -> tuple[int, int]:
        return self.facts.memory - self.allocated.bytes, self.facts.memory

    def allocate_host(self, nbytes: int) -> int:
        return self.pinned.allocate(nbytes)

    def free_host(self, address: int) -> None:
        self.pinned.free(address)

    def copy_in(self, target: int, host: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(target, nbytes)
        self._put(stream, lambda _: ctypes.memmove(target, host, nbytes))

    def copy_out(self, host: int, source: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(source, nbytes)
        self._put(stream, lambda _: ctypes.memmove(host, source, nbytes))

    def copy(self, target: int, source: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(target, nbytes)
        self.allocated.check(source, nbytes)
        if abs(target - source) < nbytes:
            raise DriverError(
                f"a copy of {nbytes} bytes to {target:#x} overlaps its source at {source:#x}", sticky=True
            )
        self._put(stream, lambda _: ctypes.memmove(target, source, nbytes))

    def copy_peer(self, target: int, other: DriverDevice, source: int, nbytes: int, stream: Stream | None) -> None:
        assert isinstance(other, ShimDevice)
        self.allocated.check(target, nbytes)
        other.allocated.check(source, nbytes)
        self._put(stream, lambda _: ctypes.memmove(target, source, nbytes))

    def fill(self, target: int, value: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(target, nbytes)
        self._put(stream, lambda _: ctypes.memset(target, value, nbytes))

    # streams and events

    def _put(self, stream: Stream | None, run: Callable[[Sequence[int]], object]) -> None:
        """Do it now, or note it where `stream` is captured."""
        queue = self._queue(stream)
        if queue.captured is None:
            run(())
        else:
            queue.captured.append(Node(lambda arguments: run(arguments) and None))

    def _queue(self, stream: Stream | None) -> Stream:
        self._check_active()
        queue = self.default if stream is None else stream
        if queue is not self.default and queue not in self.streams:
            raise DriverError(f"stream {queue.number} is not one of this device", sticky=True)
        return queue

    def make_stream(self) -> Stream:
        self.streams.append(Stream(next(self.driver.numbers)))
        return self.streams[-1]

    def stream_number(self, stream: Stream | None) -> int:
        return self._queue(stream).number

    def stream_done(self, stream: Stream | None) -> bool:
        return self._queue(stream).captured is None

    def synchronize_stream(self, stream: Stream | None) -> None:
        if self._queue(stream).captured is not None:
            raise DriverError("a stream that is captured cannot be waited for")

    def synchronize(self) -> None:
        for stream in (self.default, *self.streams):
            self.synchronize_stream(stream)

    def make_event(self, timing: bool) -> Event:
        return Event(timing)

    def record(self, event: Event, stream: Stream | None) -> None:
        self._queue(stream)
        event.at = time.perf_counter()

    def wait(self, stream: Stream | None, event: Event) -> None:
        self._queue(stream)

    def event_done(self, event: Event) -> bool:
        return True

    def synchronize_event(self, event: Event) -> None: ...

    def elapsed(self, start: Event, end: Event) -> float:
        if not start.timing or not end.timing or start.at is None or end.at is None:
            raise DriverError("an event has no time: it was made without timing or not recorded")
        return (end.at - start.at) * 1e3

    # kernels

    def load(self, image: bytes) -> Unit:
        return self.driver.unit(image.decode())

    def function(self, module: Unit, name: str, shared: int) -> Function:
        if name not in module.kernels:
            raise DriverError(f"the module has no kernel {name}")
        if shared > self.facts.shared_per_block:
            raise DriverError(f"{name} wants {shared} bytes of shared memory; there are {self.facts.shared_per_block}")
        return Function(module, name, shared)

    def unload(self, module: Unit) -> None: ...

    def launch(
        self,
        function: Function,
        blocks: int,
        threads: int,
        shared: int,
        arguments: ctypes.Array[ctypes.c_uint64],
        stream: Stream | None,
    ) -> None:
        if shared > function.shared:
            raise DriverError(f"{function.name} may have {function.shared} bytes of shared memory, not {shared}")

        def run(values: Sequence[int]) -> None:
            self.driver.run(self, function, blocks, threads, shared, values)

        queue = self._queue(stream)
        if queue.captured is None:
            run(list(arguments))
        else:
            queue.captured.append(Node(run, list(arguments)))

    # graphs

    def begin_capture(self, stream: Stream | None) -> None:
        queue = self._queue(stream)
        if stream is None or queue.captured is not None:
            raise DriverError("the default stream and one that is captured already cannot be captured")
        queue.captured = []

    def end_capture(self, stream: Stream | None) -> list[Node]:
        queue = self._queue(stream)
        nodes, queue.captured = queue.captured, None
        if nodes is None:
            raise DriverError("the stream is not being captured")
        return nodes

    def launch_graph(self, graph: list[Node], stream: Stream | None) -> None:
        if self._queue(stream).captured is not None:
            raise DriverError("a graph cannot be launched while its stream is captured")
        for node in graph:
            node.run(node.arguments or ())

    def update_graph(self, graph: list[Node], kernel: int, arguments: ctypes.Array[ctypes.c_uint64]) -> None:
        kernels = [n for n in graph if n.arguments is not None]
        kernels[kernel].arguments = list(arguments)

    def free_graph(self, graph: list[Node]) -> None:
        graph.clear()


class ShimDriver:
    """The driver; `devices` of its kind, whose units are compiled in `variant`.

    `extents` has, for kernels by name, names of their parameters and the most bytes that they have. Checked units then
    find accesses past the end of a parameter; without it, past the end of the allocation that it lies in. `order` is
    that of `Unit.launch`.
    """

    name = "shim"

    def __init__(self, devices: int = 2, variant: str = "plain") -> None:
        self.variant = variant
        self.extents: dict[str, Sequence[tuple[str, int]]] = {}
        self.order = 0
        self.launches = 0
        self.numbers = itertools.count(1)
        self.active = threading.local()
        self._devices = [ShimDevice(self) for _ in range(devices)]
        self._units: dict[str, Unit] = {}

    def device_count(self) -> int:
        return len(self._devices)

    def open(self, index: int) -> ShimDevice:
        return self._devices[index]

    def unit(self, text: str) -> Unit:
        """The unit with this text, compiled once."""
        if text not in self._units:
            self._units[text] = Unit(text, self.variant)
        return self._units[text]

    def run(
        self, device: ShimDevice, function: Function, blocks: int, threads: int, shared: int, addresses: Sequence[int]
    ) -> None:
        """Run a kernel now."""
        self.launches += 1
        known = self.extents.get(function.name)
        ranges: dict[tuple[int, int], str] = {}
        for i, address in enumerate(addresses):
            if known is None:
                name, place = f"the memory of p{i}", device.allocated.range(address)
            else:
                start, size = device.allocated.range(address)
                name, place = known[i][0], (address, min(known[i][1], start + size - address))
            ranges.setdefault(place, name)
        if blocks:
            spans = [(name, *place) for place, name in ranges.items()]
            function.unit.launch(function.name, blocks, threads, addresses, shared, self.order, spans)
