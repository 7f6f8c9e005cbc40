"""Memory of a CUDA device: buffers, and the pool that they come from.

The pool asks the device for segments and hands out blocks of them. A block belongs to the stream that was current when
it was taken. When its buffer dies it serves that stream again at once: what the stream still has to do with it comes
before what the stream will do. Other streams that used it (`DeviceBuffer.used_by`) are waited for with events, which
the pool looks at when it hands out memory, never by stopping the host.

A finalizer only appends the block to a list, which is safe wherever Python may run one.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc_runtime.buffer import BufferBase
from graphc_runtime.counters import COUNTERS
from graphc_runtime.devices.cuda_blocks import GRANULE, LARGE, SCALAR, SCALARS, SHORT, SMALL, Block, Shelf
from graphc_runtime.devices.cuda_driver import DriverDevice, DriverError, Handle
from graphc_runtime.errors import OutOfMemoryError

if TYPE_CHECKING:
    from graphc_runtime.devices.cuda import CudaDevice
    from graphc_runtime.devices.cuda_streams import Stream

_SMALL_SEGMENT = 2 << 20
_SEGMENT = 20 << 20  # for blocks of less than half of it
_ROUND = 2 << 20  # larger segments are multiples of this
_SHOWN = 10  # buffers that an error lists


@dataclass(frozen=True)
class DeviceMemoryStats:
    """Bytes in use by buffers, the most that were, bytes that the pool holds of the device, and the most it held."""

    live_bytes: int
    peak_bytes: int
    held_bytes: int
    peak_held_bytes: int
    live_blocks: int
    segments: int


class DevicePool:
    """See the module. Safe from several threads."""

    def __init__(self, driver: DriverDevice, name: str) -> None:
        self._driver = driver
        self._name = name
        self.returned: list[Block] = []
        self._shelves: dict[tuple[Stream, int], Shelf] = {}
        self._lock = threading.RLock()  # re-entrant: the collector may run a finalizer that allocates
        self._arenas: dict[Stream, list[Block]] = {}  # those that no program uses
        self._waiting: deque[tuple[Block, dict[Stream, Handle]]] = deque()
        self._events: list[Handle] = []
        self._live = self._peak = self._held = self._peak_held = self._count = 0
        self.fraction = 1.0  # of the device's memory that the pool may hold

    def take(self, sizes: Sequence[int], what: Sequence[object], stream: Stream) -> list[Block]:
        """Blocks of `sizes` bytes for `what`, to be used on `stream` first; all of them or, with OutOfMemoryError,
        none.
        """
        taken: list[Block] = []
        with self._lock:
            try:
                for nbytes, purpose in zip(sizes, what, strict=True):
                    taken.append(self._take(nbytes, purpose, stream))
            except BaseException:
                for block in taken:
                    self._put(block)
                raise
            self._peak = max(self._peak, self._live)
        return taken

    def again(self, nbytes: int, stream: Stream) -> Block | None:
        """The block that came back last, if it serves: what a repeated call drops, its next run takes.

        It never stopped to count as live, so there is nothing else to do, and no lock to take. When more came back,
        the lowest address is to be taken.
        """
        if len(self.returned) != 1:
            return None
        try:
            block = self.returned.pop()
        except IndexError:
            return None
        if (
            block.size == ((nbytes + GRANULE - 1) & -GRANULE or GRANULE)
            and block.stream is stream
            and not block.others
            and block.shelf is not None
            and (block.shelf.tier == SCALARS) == (nbytes <= SCALAR)
        ):
            return block
        self.returned.append(block)
        return None

    def take_arena(self, nbytes: int, what: object, stream: Stream) -> Block:
        """Memory that a program has to itself while its steps are put on `stream`, until `give_arena`.

        All programs of a stream share one arena, as one runs after the other: it lies where it lay, which graphs want.
        While no program runs it does not count, and it goes when memory is short.
        """
        with self._lock:
            idle = self._arenas.setdefault(stream, [])
            if idle:
                block = idle.pop()
                if block.size >= nbytes:
                    self._count_in(block, -(-nbytes // GRANULE) * GRANULE, what)
                    self._peak = max(self._peak, self._live)
                    return block
                self._put(block)
            return self.take((nbytes,), (what,), stream)[0]

    def give_arena(self, block: Block) -> None:
        """The steps are on the stream: what comes later there may use the arena."""
        with self._lock:
            self._count_out(block)
            self._arenas[block.stream].append(block)

    def _take(self, nbytes: int, what: object, stream: Stream) -> Block:
        size = -(-nbytes // GRANULE) * GRANULE or GRANULE
        again = self.again(nbytes, stream)
        if again is not None:
            again.what = what
            return again
        if self.returned or self._waiting:
            self._collect()
        tier = SCALARS if nbytes <= SCALAR else SHORT if size <= SMALL else LARGE
        shelf = self._shelves.get((stream, tier))
        if shelf is None:
            shelf = self._shelves[stream, tier] = Shelf(stream, tier)
        block = shelf.take(size)
        if block is None:
            block = self._fresh(shelf, size, nbytes, what)
        self._count_in(block, block.size, what)
        return block

    def _count_in(self, block: Block, nbytes: int, what: object) -> None:
        block.counted = nbytes
        block.what = what
        self._live += nbytes
        self._count += 1

    def _count_out(self, block: Block) -> None:
        if block.counted:
            self._live -= block.counted
            self._count -= 1
            block.counted = 0
            block.what = ""

    def stats(self, alive: bool = True) -> DeviceMemoryStats:
        """What the pool holds. Of a device that is not `alive` as it was known last."""
        with self._lock:
            if alive:
                self._collect()
            segments = sum(len(shelf.segments) for shelf in self._shelves.values())
            return DeviceMemoryStats(self._live, self._peak, self._held, self._peak_held, self._count, segments)

    def reset_peak(self, alive: bool = True) -> None:
        with self._lock:
            if alive:
                self._collect()
            self._peak, self._peak_held = self._live, self._held

    def release(self) -> None:
        """Give segments without live blocks back to the device, after all that was begun has ended."""
        with self._lock:
            self._driver.activate()
            self._collect()
            self._driver.synchronize()
            self._collect()
            for arenas in self._arenas.values():
                while arenas:
                    self._put(arenas.pop())
            for shelf in self._shelves.values():
                for address, size in shelf.free_segments():
                    self._held -= size
                    self._driver.free(address)

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def largest(self, count: int = _SHOWN) -> list[tuple[int, str]]:
        """Bytes and purpose of the largest live blocks."""
        with self._lock:
            live = [b for shelf in self._shelves.values() for b in shelf.blocks() if b.counted]
            most = heapq.nlargest(count, live, key=lambda b: b.counted)
            return [(block.counted, str(block.what) or "(not said what for)") for block in most]

    def foreign(self, address: int, nbytes: int, stream: Stream, owner: object) -> Block:
        """A block over memory of another library, which uses it on `stream`."""
        block = Block(address, nbytes, stream, self.returned.append, None)
        block.owner = owner
        return block

    def _put(self, block: Block) -> None:
        if block.shelf is None:
            block.owner = None
            return
        self._count_out(block)
        block.others = None
        block.shelf.put(block)

    def _collect(self) -> None:
        """Sort in what came back."""
        returned = self.returned
        if self._waiting:
            self._driver.activate()
        while returned:
            try:
                block = returned.pop()
            except IndexError:  # another thread took the last one
                break
            if not block.others:
                self._put(block)
                continue
            # The events are recorded now, later than the buffer died: what was begun before is before them.
            self._driver.activate()
            self._waiting.append((block, {stream: self._event(stream) for stream in block.others}))
        busy: set[Stream] = set()  # later events of these are not done either
        for _ in range(len(self._waiting)):
            block, events = self._waiting.popleft()
            if busy.isdisjoint(events):
                busy.update(s for s, event in events.items() if not self._driver.event_done(event))
            if busy.isdisjoint(events):
                self._events += events.values()
                self._put(block)
            else:
                self._waiting.append((block, events))

    def _event(self, stream: Stream) -> Handle:
        event = self._events.pop() if self._events else self._driver.make_event(False)
        self._driver.record(event, stream.handle)
        return event

    def _fresh(self, shelf: Shelf, size: int, nbytes: int, what: object) -> Block:
        if shelf.tier != LARGE:
            segment = _SMALL_SEGMENT
        else:
            segment = _SEGMENT if 2 * size < _SEGMENT else -(-size // _ROUND) * _ROUND
        self._driver.activate()
        address = self._ask(segment)
        if address is None:
            self.release()
            block = shelf.take(size)
            if block is not None:
                return block
            address = self._ask(segment)
        if address is None and segment > size:
            segment = size
            address = self._ask(segment)
        if address is None:
            raise OutOfMemoryError(self.refusal(f"{nbytes:,} bytes{f' for {what}' if what else ''}"))
        COUNTERS.add("allocations")
        self._held += segment
        self._peak_held = max(self._peak_held, self._held)
        return shelf.add_segment(Block(address, segment, shelf.stream, self.returned.append, shelf), size)

    @property
    def _limit(self) -> int:
        return int(self.fraction * self._driver.facts.memory)

    def _ask(self, nbytes: int) -> int | None:
        if self.fraction < 1 and self._held + nbytes > self._limit:
            return None
        try:
            return self._driver.allocate(nbytes)
        except DriverError as error:
            if not error.out_of_memory:
                raise
            return None

    def refusal(self, request: str) -> str:
        """What to tell the user when the device has no memory for `request`."""
        free, total = self._driver.memory()
        lines = [
            f"{self._name} is out of memory: it cannot give {request}. Of its {total:,} bytes {free:,} are free; "
            f"buffers of this process take {self._live:,} bytes of {self._held:,} that its pool holds"
            + (f" and {self._limit:,} that it may hold." if self.fraction < 1 else ".")
        ]
        largest = self.largest()
        if largest:
            lines.append("The largest are:")
            lines += [f"  {size:,} bytes: {purpose}" for size, purpose in largest]
        lines.append("Let go of tensors that are not needed (del), use a smaller batch, or graphc.cuda.empty_cache().")
        return "\n".join(lines)


class DeviceBuffer(BufferBase):
    """Contiguous memory of `nbytes` bytes at address `ptr` of `device`. The host cannot read it there.

    `stream` is the one that it was made on. `what` says what it is for when memory runs short.
    """

    __slots__ = ("__weakref__", "_block", "device", "stream")

    device: CudaDevice
    stream: Stream
    _block: Block
    _memory: Block | None

    def __init__(self, block: Block, nbytes: int, device: CudaDevice) -> None:
        """The buffer of a block that the pool handed out; `CudaDevice.allocate` makes buffers."""
        self._block = block
        self._memory = block if block.owner is None else None
        self.device = device
        self.stream = block.stream
        self.ptr = block.address
        self.nbytes = nbytes

    @staticmethod
    def from_address(address: int, nbytes: int, device: CudaDevice, owner: object) -> DeviceBuffer:
        """A buffer over memory of another library, which uses it on the default stream. `owner` keeps it alive, and is
        kept until the buffer is gone and what other streams do with it is done.
        """
        return DeviceBuffer(device.pool.foreign(address, nbytes, device.default_stream, owner), nbytes, device)

    def __del__(self) -> None:
        block = self._block
        if block.owner is None or block.others:
            block.give_back(block)

    @property
    def is_shared(self) -> bool:
        """Whether streams besides the one that it was made on had to do with it."""
        return bool(self._block.others)

    @property
    def writeable(self) -> bool:
        """True: a program may write to it."""
        return True

    @property
    def what(self) -> str:
        return str(self._block.what)

    @what.setter
    def what(self, purpose: object) -> None:
        self._block.what = purpose

    def used_by(self, stream: Stream) -> None:
        """Note that `stream`, besides the one it was made on, has to do with it: the memory is used again only after
        what that stream has begun by the time the buffer dies.
        """
        if self.stream is stream:
            return
        block = self._block
        if block.others is None:
            block.others = {stream}
        else:
            block.others.add(stream)

    def shrink(self, nbytes: int) -> None:
        """From now on have the first `nbytes` bytes alone; the others are not used until the buffer is gone."""
        self.nbytes = nbytes

    def copy(self) -> DeviceBuffer:
        """A buffer of its own with the same contents, on the same device."""
        return self.device.duplicate(self, self._block.what)

    def to_host(self) -> Any:
        """The contents as a `Buffer`, after waiting for what was begun on the current stream."""
        return self.device.download(self)

    def __repr__(self) -> str:
        return f"DeviceBuffer({self.nbytes} bytes at {self.ptr:#x} of {self.device.name})"
