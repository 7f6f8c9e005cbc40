"""Page-locked memory of the host, through which copies to and from a device pass without stopping the host."""

from __future__ import annotations

import ctypes
import threading
import weakref
from bisect import bisect_right
from collections import deque

import numpy as np

from graphc_runtime.buffer import Buffer
from graphc_runtime.devices.cuda_driver import DriverDevice, Handle

_LEAST = 1 << 12
CHUNK = 4 << 20  # bytes that one step of a copy through page-locked memory moves
_FEW = 64 << 10  # bytes of pageable memory that a copy to the device takes without waiting
_ON_THE_WAY = 4  # chunks of a copy that the device has not fetched yet, at most


class PinnedBlock:
    """Page-locked memory, and for each stream that used it the event after which it is through with it."""

    __slots__ = ("address", "capacity", "events")

    def __init__(self, address: int, capacity: int) -> None:
        self.address = address
        self.capacity = capacity
        self.events: dict[Handle, Handle] = {}


class PinnedPool:
    """Blocks by capacity, a power of two. Memory is kept for re-use until `release`. Safe from several threads."""

    def __init__(self, driver: DriverDevice) -> None:
        self._driver = driver
        self._free: dict[int, list[PinnedBlock]] = {}
        self._returned: list[PinnedBlock] = []
        self._live: dict[int, PinnedBlock] = {}  # those that buffers hold, by address
        self._addresses: list[int] = []  # theirs, in order, and of some that ended
        self._events: list[Handle] = []
        self._lock = threading.RLock()

    def take(self, nbytes: int) -> PinnedBlock:
        """A block of at least `nbytes` bytes that nobody uses."""
        capacity = max(_LEAST, 1 << max(nbytes - 1, 0).bit_length())
        with self._lock:
            while self._returned:
                block = self._returned.pop()
                self._free.setdefault(block.capacity, []).append(block)
            free = self._free.get(capacity, [])
            for i, block in enumerate(free):
                if all(self._driver.event_done(event) for event in block.events.values()):
                    self._events += block.events.values()
                    block.events = {}
                    del free[i]
                    return block
            return PinnedBlock(self._driver.allocate_host(capacity), capacity)

    def give_back(self, block: PinnedBlock) -> None:
        """Let others have the block once its events have happened. Safe in a finalizer."""
        self._returned.append(block)

    def mark(self, block: PinnedBlock, stream: Handle) -> Handle:
        """The device uses the block until what is on `stream` now is done: the event of that."""
        with self._lock:
            event = block.events.get(stream)
            if event is None:
                event = self._events.pop() if self._events else self._driver.make_event(False)
                block.events[stream] = event
            self._driver.record(event, stream)
            return event

    def buffer(self, nbytes: int) -> Buffer:
        """A buffer in page-locked memory."""
        block = self.take(nbytes)
        array = memory(block.address, nbytes)
        with self._lock:
            self._live[block.address] = block
            self._addresses = sorted(self._live)
        weakref.finalize(array.base, self._ended, block).atexit = False  # pyright: ignore[reportArgumentType]
        return Buffer.from_array(array)

    def block_of(self, buffer: Buffer) -> PinnedBlock | None:
        """The block that a buffer lies in; None for memory of any other kind."""
        addresses = self._addresses
        at = bisect_right(addresses, buffer.ptr)
        while at:
            at -= 1
            block = self._live.get(addresses[at])
            if block is not None:
                return block if buffer.ptr + buffer.nbytes <= block.address + block.capacity else None
        return None

    def release(self) -> None:
        """Give blocks back to the system that nobody uses, after all that was begun has ended."""
        with self._lock:
            self._driver.synchronize()
            blocks = [*self._returned, *(block for free in self._free.values() for block in free)]
            self._returned.clear()
            self._free.clear()
            for block in blocks:
                self._events += block.events.values()
                self._driver.free_host(block.address)

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def _ended(self, block: PinnedBlock) -> None:
        self._live.pop(block.address, None)
        self.give_back(block)


def memory(address: int, nbytes: int) -> np.ndarray:
    """The bytes at an address, as an array that keeps nothing alive."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))


def send(pool: PinnedPool, driver: DriverDevice, target: int, source: Buffer, stream: Handle) -> None:
    """Host to device through page-locked memory: the source can be changed once this returns.

    CUDA's driver takes a few bytes into memory of its own; more of them it would fetch after waiting for the stream,
    and those of page-locked memory when the device gets there.
    """
    if source.nbytes <= _FEW and pool.block_of(source) is None:
        driver.copy_in(target, source.ptr, source.nbytes, stream)
        return
    sent: deque[Handle] = deque()
    for at in range(0, source.nbytes, CHUNK):
        count = min(CHUNK, source.nbytes - at)
        if len(sent) == _ON_THE_WAY:
            driver.synchronize_event(sent.popleft())
        block = pool.take(count)
        ctypes.memmove(block.address, source.ptr + at, count)
        driver.copy_in(target + at, block.address, count, stream)
        sent.append(pool.mark(block, stream))
        pool.give_back(block)


def receive(pool: PinnedPool, driver: DriverDevice, target: Buffer, source: int, stream: Handle) -> None:
    """Device to host through page-locked memory, a chunk copied on while the next one comes; done when this returns."""
    coming: deque[tuple[PinnedBlock, int, int]] = deque()
    for at in range(0, target.nbytes, CHUNK):
        count = min(CHUNK, target.nbytes - at)
        block = pool.take(count)
        driver.copy_out(block.address, source + at, count, stream)
        pool.mark(block, stream)
        coming.append((block, target.ptr + at, count))
        if len(coming) > 1:
            _arrive(pool, driver, *coming.popleft())
    while coming:
        _arrive(pool, driver, *coming.popleft())


def _arrive(pool: PinnedPool, driver: DriverDevice, block: PinnedBlock, target: int, count: int) -> None:
    for event in block.events.values():
        driver.synchronize_event(event)
    ctypes.memmove(target, block.address, count)
    pool.give_back(block)
