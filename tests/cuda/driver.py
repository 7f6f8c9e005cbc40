"""A driver for the runtime's CUDA devices whose device is the host: memory is host memory, a cubin is the text of a
unit, kernels run in the shim.

What is put on a stream is done as late as waits and events allow, or, after `shuffle`, at random times before and in a
random order between streams: whoever forgets to wait gets garbage. Page-locked memory is read and written when a copy
is done, other memory of the host before the call returns. It refuses what a real driver would answer with a crash or
with wrong numbers: addresses outside of its allocations, memory that was freed, streams of another device. Fresh memory
is full of 0xFF bytes (NaN).
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from graphc_runtime.devices.cuda_driver import DeviceFacts, DriverDevice, DriverError
from tests.cuda.shim import Unit

ALIGNMENT = 256
AT_ONCE = 0.25  # how often a call lets something be done, after `shuffle`
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

    def holds(self, address: int) -> bool:
        """Whether `address` is in an allocation."""
        at = bisect.bisect_right(self._starts, address) - 1
        return at >= 0 and address < self._starts[at] + self._sizes[self._starts[at]]

    def check(self, address: int, nbytes: int) -> None:
        """DriverError when the bytes are not all of one allocation."""
        start, size = self.range(address)
        if address + nbytes > start + size:
            raise DriverError(
                f"{nbytes} bytes at {address:#x} go beyond an allocation of {size} bytes at {start:#x}", sticky=True
            )


@dataclass(eq=False)
class Stream:
    """Work in order that has not been done; `captured` are the nodes of the graph that is being made."""

    number: int
    captured: list[Node] | None = None
    items: deque[Callable[[], object] | Record] = field(default_factory=deque)  # a record is waited for


@dataclass(eq=False)
class Record:
    """One record of an event; who waits for it does so also when the event is recorded again."""

    stream: Stream
    at: float | None = None  # when it happened


@dataclass
class Node:
    """A step of a graph: what to do, and the parameters of a kernel."""

    run: Callable[[Sequence[int]], object]
    arguments: list[int] | None = None


@dataclass
class Event:
    """What was recorded last."""

    timing: bool
    last: Record | None = None


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
        self.driver.finish()
        self.allocated.free(address)

    def memory(self) -> tuple[int, int]:
        return self.facts.memory - self.allocated.bytes, self.facts.memory

    def allocate_host(self, nbytes: int) -> int:
        return self.pinned.allocate(nbytes)

    def free_host(self, address: int) -> None:
        self.driver.finish()
        self.pinned.free(address)

    def copy_in(self, target: int, host: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(target, nbytes)
        held = None if self.pinned.holds(host) else ctypes.string_at(host, nbytes)
        self._put(stream, lambda _: ctypes.memmove(target, host if held is None else held, nbytes))

    def copy_out(self, host: int, source: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(source, nbytes)
        self._put(stream, lambda _: ctypes.memmove(host, source, nbytes))
        if not self.pinned.holds(host):
            self.driver.finish(self._queue(stream))

    def copy(self, target: int, source: int, nbytes: int, stream: Stream | None) -> None:
        self.allocated.check(target, nbytes)
        self.allocated.check(source, nbytes)
        if abs(target - source) < nbytes:
            raise DriverError(
                f"a copy of {nbytes} bytes to {target:#x} overlaps its source at {source:#x}", sticky=True
            )
        self._put(stream, lambda _: ctypes.memmove(target, source, nbytes))

    def copy_rows(
        self,
        target: int,
        target_pitch: int,
        source: int,
        source_pitch: int,
        nbytes: int,
        rows: int,
        stream: Stream | None,
    ) -> None:
        if not nbytes <= min(target_pitch, source_pitch) or max(target_pitch, source_pitch) >= 1 << 31:
            raise DriverError(f"rows of {nbytes} bytes with pitches {target_pitch} and {source_pitch}", sticky=True)
        for i in range(rows):
            self.copy(target + i * target_pitch, source + i * source_pitch, nbytes, stream)

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
        """Do it later, or note it where `stream` is captured."""
        queue = self._queue(stream)
        if queue.captured is None:
            self.driver.put(queue, lambda: run(()))
        else:
            queue.captured.append(Node(run))

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

    def foreign_stream(self, number: int) -> Stream:
        return next(stream for stream in self.streams if stream.number == number)

    def stream_done(self, stream: Stream | None) -> bool:
        return self._queue(stream).captured is None and self.driver.is_done(self._queue(stream))

    def synchronize_stream(self, stream: Stream | None) -> None:
        if self._queue(stream).captured is not None:
            raise DriverError("a stream that is captured cannot be waited for")
        self.driver.finish(self._queue(stream))

    def synchronize(self) -> None:
        for stream in (self.default, *self.streams):
            self.synchronize_stream(stream)

    def make_event(self, timing: bool) -> Event:
        return Event(timing)

    def record(self, event: Event, stream: Stream | None) -> None:
        record = event.last = Record(self._queue(stream))
        self.driver.put(record.stream, lambda: setattr(record, "at", time.perf_counter()))

    def wait(self, stream: Stream | None, event: Event) -> None:
        if event.last is not None:
            self.driver.put(self._queue(stream), event.last)

    def event_done(self, event: Event) -> bool:
        return event.last is None or event.last.at is not None or self.driver.is_done(event.last.stream, event.last)

    def synchronize_event(self, event: Event) -> None:
        if event.last is not None:
            self.driver.finish(event.last.stream, event.last)

    def elapsed(self, start: Event, end: Event) -> float:
        times = [None if event.last is None else event.last.at for event in (start, end)]
        if not start.timing or not end.timing or None in times:
            raise DriverError("an event has no time: it was made without timing, not recorded, or has not happened")
        return float(np.diff(times)[0]) * 1e3

    # kernels

    def load(self, image: bytes) -> Unit:
        return self.driver.unit(image.decode())

    def function(self, module: Unit, name: str, shared: int) -> Function:
        if name not in module.kernels:
            raise DriverError(f"the module has no kernel {name}")
        if shared > self.facts.shared_per_block:
            raise DriverError(f"{name} wants {shared} bytes of shared memory; there are {self.facts.shared_per_block}")
        return Function(module, name, shared)

    def unload(self, module: Unit) -> None:
        self.driver.finish()

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

        queue, values = self._queue(stream), list(arguments)
        if queue.captured is None:
            self.driver.put(queue, lambda: run(values))
        else:
            queue.captured.append(Node(run, values))

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
        queue = self._queue(stream)
        if queue.captured is not None:
            raise DriverError("a graph cannot be launched while its stream is captured")
        for node in graph:
            # With the parameters of now: an update concerns later launches only.
            self.driver.put(queue, partial(node.run, node.arguments or ()))

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
        self.lock = threading.RLock()
        self._chance: random.Random | None = None
        self.extents: dict[str, Sequence[tuple[str, int]]] = {}
        self.order = 0
        self.launches = 0
        self.numbers = itertools.count(1 << 12)  # of streams: addresses, as 1 and 2 mean default streams
        self.active = threading.local()
        self._devices = [ShimDevice(self) for _ in range(devices)]
        self._units: dict[str, Unit] = {}

    def device_count(self) -> int:
        return len(self._devices)

    def open(self, index: int) -> ShimDevice:
        return self._devices[index]

    def shuffle(self, seed: int | None) -> None:
        """From now on do work at random times; None: late."""
        self._chance = None if seed is None else random.Random(seed)

    def put(self, stream: Stream, item: Callable[[], object] | Record) -> None:
        """Let a stream do or wait for something later."""
        with self.lock:
            stream.items.append(item)
            while self._chance is not None and self._chance.random() < AT_ONCE:
                if busy := [s for s in self._streams() if s.items]:
                    self._advance(self._chance.choice(busy))

    def is_done(self, stream: Stream, until: Record | None = None) -> bool:
        """Whether a stream has nothing to do, or has come to `until`. Who asks again and again gets there."""
        with self.lock:
            self._advance(stream)
            return not stream.items if until is None else until.at is not None

    def finish(self, stream: Stream | None = None, until: Record | None = None) -> None:
        """Do what is on a stream, up to `until`, and what it waits for; what is on all streams when none is named."""
        with self.lock:
            for queue in self._streams() if stream is None else [stream]:
                while queue.items and (until is None or until.at is None):
                    if not self._advance(queue):
                        awaited = queue.items[0]
                        assert isinstance(awaited, Record)
                        self.finish(awaited.stream, awaited)

    def _streams(self) -> list[Stream]:
        return [stream for device in self._devices for stream in (device.default, *device.streams)]

    @staticmethod
    def _advance(stream: Stream) -> bool:
        """Do the first thing on a stream, unless what it waits for has not happened."""
        first = stream.items[0] if stream.items else None
        if first is None or (isinstance(first, Record) and first.at is None):
            return False
        stream.items.popleft()
        if not isinstance(first, Record):
            first()
        return True

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
