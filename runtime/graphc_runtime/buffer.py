"""Memory of tensors: contiguous blocks, re-used through a pool of size classes.

A block goes back to the pool when nothing refers to its buffer any more; arrays made from a buffer refer to it. The
buffer then only appends to a list, which is safe at any point where Python may run a finalizer; the next allocation
takes from the list.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc_runtime.counters import COUNTERS
from graphc_runtime.errors import OutOfMemory
from graphc_runtime.machine import memory_limit
from graphc_runtime.options import IDLE_BYTES, POISON
from graphc_runtime.pool import POOL

ALIGNMENT = 64
_SMALL = 1 << 20  # idle bytes that are not worth a look at the cap
_BYTE = np.dtype(np.uint8)
_LARGE = 1 << 24  # bytes of a block from which on idle ones of other sizes count: of the memory that programs work in

Memory = tuple[int, int, np.ndarray]  # capacity, address, the array that holds the memory


@dataclass(frozen=True)
class MemoryStats:
    """Bytes in use, the most that were in use, bytes kept for re-use, and the limit of this process."""

    live_bytes: int
    peak_bytes: int
    idle_bytes: int
    limit_bytes: int


class _Pool:
    """Free blocks by capacity, least recently used capacity first. Native code takes them too, between `enter` and
    `leave`, as long as nothing else changes: while no peak is passed.
    """

    __slots__ = (
        *("returned", "give_back", "enter", "leave"),
        *("_capacities", "_free", "_idle", "_limit", "_live", "_lock", "_peak"),
    )

    def __init__(self) -> None:
        self.returned: list[Memory] = []  # blocks that came back, until they are taken or sorted in
        self.give_back = self.returned.append
        self._free: OrderedDict[int, list[Memory]] = OrderedDict()
        self.after_fork()
        self._capacities: dict[int, int] = {}  # of sizes seen; it spares the arithmetic
        self._limit = 0
        self._live = 0
        self._peak = 0
        self._idle = 0

    def take(self, sizes: Sequence[int], what: Sequence[object]) -> list[Memory]:
        """Blocks of `sizes` bytes for `what`; all of them or, with OutOfMemory, none."""
        taken: list[Memory] = []
        capacities, free = self._capacities, self._free
        with self._lock:
            if self.returned:
                self._collect()
            live = self._live
            try:
                for i, nbytes in enumerate(sizes):
                    capacity = capacities.get(nbytes) or self._capacity(nbytes)
                    blocks = free.get(capacity)
                    if not blocks and capacity >= _LARGE:
                        capacity = self._make_room(capacity, live)
                        blocks = free.get(capacity)
                    if blocks:
                        memory = blocks.pop()
                        self._idle -= capacity
                    else:
                        memory = self._fresh(capacity, nbytes, what[i])
                    live += capacity
                    taken.append(memory)
            except BaseException:
                self._live = live
                for memory in taken:
                    self.give_back(memory)
                raise
            self._live = live
            if live > self._peak:
                self._peak = live
        if live > COUNTERS.peak_bytes:
            COUNTERS.add_peak(live)
        return taken

    def again(self, nbytes: int) -> Memory | None:
        """The block that came back last, if it serves `nbytes`: what a repeated call frees, its next run takes.

        It never stopped to count as live, so there is nothing else to do.
        """
        try:
            memory = self.returned.pop()
        except IndexError:
            return None
        if memory[0] == self._capacities.get(nbytes) and self._live <= COUNTERS.peak_bytes:
            return memory
        self.give_back(memory)
        return None

    def _capacity(self, nbytes: int) -> int:
        if nbytes < 0:
            raise ValueError(f"a buffer cannot have {nbytes} bytes")
        if len(self._capacities) > 10_000:
            self._capacities = {}
        capacity = self._capacities[nbytes] = size_class(nbytes)
        return capacity

    def stats(self) -> MemoryStats:
        with self._lock:
            self._collect()
            return MemoryStats(self._live, self._peak, self._idle, self._memory_limit())

    def reset_peak(self) -> None:
        with self._lock:
            self._collect()
            self._peak = self._live

    def release(self) -> None:
        """Give all free blocks back to the system."""
        with self._lock:
            self._collect()
            self._drop()

    def after_fork(self) -> None:
        self._lock = threading.RLock()  # re-entrant: the collector may run a finalizer that allocates
        self.enter, self.leave = self._lock.acquire, self._lock.release

    def _memory_limit(self) -> int:
        if not self._limit:
            self._limit = memory_limit()
        return self._limit

    def _fresh(self, capacity: int, nbytes: int, what: object) -> Memory:
        limit = self._memory_limit()
        if capacity > limit:
            raise OutOfMemory(_refusal(nbytes, what, f"this process may have {limit:,} bytes in all"))
        COUNTERS.add("allocations")
        try:
            holder = np.empty(capacity + ALIGNMENT, np.uint8)
        except MemoryError:
            self._drop()
            try:
                holder = np.empty(capacity + ALIGNMENT, np.uint8)
            except MemoryError:
                reason = f"the system refused them; {self._live:,} bytes are in use"
                raise OutOfMemory(_refusal(nbytes, what, reason)) from None
        address = holder.__array_interface__["data"][0]
        return capacity, address + (-address) % ALIGNMENT, holder

    def _make_room(self, capacity: int, live: int) -> int:
        """The capacity of an idle block to take instead: the smallest that is at most a quarter larger.

        If there is none, other large blocks that are idle go back to the system until what is in use and what is idle
        are at most one and a half times the peak: programs that run in turns would otherwise each keep their own.
        """
        free = self._free
        large = [size for size, blocks in free.items() if size >= _LARGE and blocks]
        fitting = [size for size in large if capacity < size <= capacity * 5 // 4]
        if fitting:
            return min(fitting)
        allowed = max(self._peak, live + capacity) * 3 // 2 - live - capacity
        for size in large:
            while free[size] and self._idle > allowed:
                free[size].pop()
                self._idle -= size
        return capacity

    def _collect(self) -> None:
        free, batch = self._free, list[Memory]()
        while self.returned:
            try:
                batch.append(self.returned.pop())
            except IndexError:  # another thread took the last one again
                break
        for memory in reversed(batch):
            capacity = memory[0]
            self._live -= capacity
            self._idle += capacity
            blocks = free.get(capacity)
            if blocks is None:
                free[capacity] = [memory]
            else:
                blocks.append(memory)
                free.move_to_end(capacity)
        if self._idle > _SMALL:
            self._trim(IDLE_BYTES.get())

    def _trim(self, cap: int) -> None:
        free = self._free
        while self._idle > cap and free:
            capacity, blocks = next(iter(free.items()))
            if blocks:
                blocks.pop()
                self._idle -= capacity
            else:
                del free[capacity]

    def _drop(self) -> None:
        self._free.clear()
        self._idle = 0


def size_class(nbytes: int) -> int:
    """Capacity of the block that serves `nbytes`: eight classes for each power of two, so at most 1/8 is wasted, and
    whole cache lines.
    """
    step = max(ALIGNMENT, 1 << max(0, (nbytes - 1).bit_length() - 4))
    return max(step, -(-nbytes // step) * step)


def _refusal(nbytes: int, what: object, reason: str) -> str:
    return f"cannot allocate {nbytes:,} bytes{f' for {what}' if what else ''}: {reason}"


_POOL = _Pool()
IDLE = _POOL  # for native code
RETURNED = _POOL.returned  # the very list, for native code
os.register_at_fork(after_in_child=_POOL.after_fork)


class Window(ctypes.Array):  # type: ignore[type-arg]
    """Memory from `buffer.ptr` on as NumPy takes it, which keeps `buffer`. It has no end: whoever lays an array over it
    must know what the buffer holds.
    """

    _type_ = ctypes.c_char  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    _length_ = sys.maxsize  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    __slots__ = ("__weakref__", "buffer")

    buffer: Any


_window_at = Window.from_address


def window(buffer: Any) -> Window:
    """A `Window` over the memory of a buffer."""
    made = _window_at(buffer.ptr)
    made.buffer = buffer
    return made


class BufferBase:
    """What buffers of all devices are: `nbytes` bytes at address `ptr`. Native code reads these slots of them."""

    __slots__ = ("_memory", "nbytes", "ptr")

    ptr: int
    nbytes: int
    _memory: Any  # a block of the device's pool, which goes back there; None for memory from elsewhere

    @property
    def of_pool(self) -> bool:
        """Whether the memory came from the pool: then nobody knows of it who does not hold the buffer."""
        return self._memory is not None


class Buffer(BufferBase):
    """Contiguous memory of `nbytes` bytes at address `ptr`.

    The memory lives as long as the buffer or an array made from it. `np.asarray(buffer)` is `buffer.array`.
    """

    __slots__ = ("__weakref__", "_array")

    _memory: Memory | None
    _array: np.ndarray | Buffer | None  # or what holds the memory: an array, or the buffer that this is a part of

    @staticmethod
    def allocate(nbytes: int, what: object = "") -> Buffer:
        """Memory with arbitrary contents, aligned to 64 bytes.

        OutOfMemory, which names `what`, when it cannot be had.
        """
        self = Buffer.__new__(Buffer)
        self._memory = self._array = None
        self._memory = memory = _POOL.again(nbytes) or _POOL.take((nbytes,), (what,))[0]
        self.ptr = memory[1]
        self.nbytes = nbytes
        if POISON.get():
            self.poison()
        return self

    @staticmethod
    def allocate_all(sizes: Sequence[int], what: Sequence[object]) -> list[Buffer]:
        """A buffer for each of `sizes`, as `allocate` makes them, in one visit to the pool. Either all or none."""
        taken: list[Memory] = []
        for nbytes in sizes:
            memory = _POOL.again(nbytes)
            if memory is None:
                break
            taken.append(memory)
        count = len(taken)
        if count < len(sizes):
            try:
                taken += _POOL.take(sizes[count:], what[count:])
            except BaseException:
                for memory in reversed(taken):
                    _POOL.give_back(memory)
                raise
        made: list[Buffer] = []
        poison = POISON.get()
        for memory, nbytes in zip(taken, sizes, strict=True):
            self = Buffer.__new__(Buffer)
            self._array = None
            self._memory = memory
            self.ptr = memory[1]
            self.nbytes = nbytes
            if poison:
                self.poison()
            made.append(self)
        return made

    @staticmethod
    def from_array(array: np.ndarray) -> Buffer:
        """A buffer that shares the memory of a C-contiguous array in native byte order, whatever its alignment.

        ValueError for other arrays: copy them first. The buffer keeps the array alive.
        """
        if not array.flags.c_contiguous:
            raise ValueError(f"array of shape {array.shape} with strides {array.strides} is not C-contiguous")
        if array.dtype.hasobject or not array.dtype.isnative:
            raise ValueError(f"array of dtype {array.dtype} has no plain memory in native byte order")
        self = Buffer.__new__(Buffer)
        self._memory = None
        self._array = flat = array.view(np.ndarray).reshape(-1).view(np.uint8)
        self.ptr = flat.__array_interface__["data"][0]
        self.nbytes = flat.nbytes
        return self

    def part(self, start: int, nbytes: int) -> Buffer:
        """A buffer over `nbytes` bytes of this memory from `start` on, which keeps it alive."""
        made = Buffer.__new__(Buffer)
        made._memory = None
        made._array = self
        made.ptr = self.ptr + start
        made.nbytes = nbytes
        return made

    def __del__(self, give_back: Callable[[Memory], None] = _POOL.give_back) -> None:
        # The default argument outlives this module's names, which are gone when the interpreter ends.
        if self._memory is not None:
            give_back(self._memory)

    def copy(self) -> Buffer:
        """A buffer of its own with the same contents."""
        made = Buffer.allocate(self.nbytes)
        POOL.copy(made.ptr, self.ptr, self.nbytes)
        return made

    def poison(self) -> None:
        """Fill memory of the pool with bytes 0xFF, as the option `poison` does with what is allocated."""
        assert self._memory is not None
        ctypes.memset(self.ptr, 0xFF, self._memory[0])

    @property
    def array(self) -> np.ndarray:
        """The memory as a flat uint8 array, which keeps it alive."""
        held = self._array
        if isinstance(held, Buffer):
            start = self.ptr - held.ptr
            return held.array[start : start + self.nbytes]
        if held is not None:
            return held
        memory: Any = window(self)
        return np.ndarray((self.nbytes,), _BYTE, memory)

    @property
    def writeable(self) -> bool:
        """False for a buffer made from a read-only array: a program must not write to it."""
        held = self._array
        return held is None or (held.writeable if isinstance(held, Buffer) else bool(held.flags.writeable))

    def view(self, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
        """The memory as an array of `dtype` and `shape`, which must take exactly `nbytes` bytes (else ValueError)."""
        return self.array.view(dtype).reshape(shape)

    @property
    def __array_interface__(self) -> dict[str, object]:
        data = self.ptr, not self.writeable
        return {"version": 3, "typestr": "|u1", "shape": (self.nbytes,), "data": data}

    def __repr__(self) -> str:
        return f"Buffer({self.nbytes} bytes at {self.ptr:#x})"


def memory_stats() -> MemoryStats:
    """What the pool of this process holds now."""
    return _POOL.stats()


def reset_peak() -> None:
    """Let the peak start again from what is in use now."""
    _POOL.reset_peak()


def release_memory() -> None:
    """Give memory that is kept for re-use back to the system."""
    _POOL.release()
