"""CUDA devices. Nothing of CUDA is loaded before a device is asked for.

Work is put on the current stream of a device and done later. What fails there is raised by the next call that observes
the device: a copy to the host, a wait, a query.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from graphc_runtime.artifact import Artifact
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices import cuda_host
from graphc_runtime.devices.cuda_blocks import Block
from graphc_runtime.devices.cuda_driver import DeviceFacts, Driver, DriverDevice, DriverError, DriverMissing, Handle
from graphc_runtime.devices.cuda_memory import DeviceBuffer, DeviceMemoryStats, DevicePool
from graphc_runtime.devices.cuda_program import CudaProgram
from graphc_runtime.devices.cuda_pycuda import PyCudaDriver
from graphc_runtime.devices.cuda_streams import Stream
from graphc_runtime.errors import DeviceError, DeviceLost, DeviceUnavailable, OutOfMemoryError
from graphc_runtime.options import POISON

T = TypeVar("T")
Rows = tuple[DeviceBuffer, int, int]  # memory, where rows of it begin, and how many bytes after each other
_STREAMS = 32  # of a device; more share these in turn
_REMEMBERED = 64  # launches among which the culprit of a failure is looked for
_RETIRED = 256  # modules and graphs that wait for their end
_NAMED = 8  # kernels that a message lists


class _Current(threading.local):
    """What is current in the thread that asks."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class CudaDevice:
    """One device, by `cuda_device`. Its methods may be called from any thread; each has a current stream of its own."""

    driven = True

    def __init__(self, index: int, driver: DriverDevice) -> None:
        self.index = index
        self.name = f"cuda:{index}"
        self.driver = driver
        self.facts: DeviceFacts = driver.facts
        self.pool = DevicePool(driver, self.name)
        self.pinned = cuda_host.PinnedPool(driver)
        self.default_stream = Stream(self, None)
        self.idle_events: tuple[list[Handle], list[Handle]] = ([], [])  # without and with timing
        self.launched: deque[list[str]] = deque(maxlen=_REMEMBERED)  # kernels of programs, as messages name them
        # What nobody needs any more, and how it goes when nothing runs.
        self.retired: list[tuple[Callable[[Handle], None], Handle]] = []
        self._streams: list[Stream] = []
        self._next_stream = 0
        self._current = _Current(self.default_stream)
        self._lock = threading.Lock()
        self._capture_lock = threading.Lock()
        self._capture_stream: Handle = None
        self._unusable: Callable[[], Exception] | None = None

    # -- calls of the driver --------------------------------------------------------------------------------------

    def check(self) -> None:
        """DeviceLost when the device was lost before, DeviceUnavailable in a forked child."""
        if self._unusable is not None:
            raise self._unusable()

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """A call of the driver, its errors made into those of this runtime."""
        if self._unusable is not None:
            raise self._unusable()
        try:
            self.driver.activate()
            return function(*arguments)
        except DriverError as error:
            if not error.out_of_memory:
                raise self.failure(error) from None
            return self.again(error, function, *arguments)

    def again(self, error: DriverError, function: Callable[..., T], *arguments: Any) -> T:
        """What the driver had no memory for, once more when the pool has given back what nobody uses."""
        try:
            self.pool.release()
            return function(*arguments)
        except DriverError as second:
            if not second.out_of_memory:
                raise self.failure(second) from None
        raise OutOfMemoryError(self.pool.refusal(f"what the driver needs ({error})"))

    def failure(self, error: DriverError, kernel: str = "") -> Exception:
        """What to raise for an error of the driver, which `kernel` is to blame for if that is known. After a sticky
        one the device is lost.
        """
        if not error.sticky:
            return DeviceError(f"{self.name}: {error}")
        text = (
            f"{self.name} is lost: {error}. {self._suspects([kernel] if kernel else None)}What was on {self.name} is "
            "gone for this process, and it cannot be used again before a restart; the CPU and other devices go on."
        )
        self._unusable = lambda: DeviceLost(text)
        return DeviceLost(text)

    def _suspects(self, known: list[str] | None) -> str:
        begun = [name for kernels in self.launched for name in kernels]
        names = known or list(dict.fromkeys(reversed(begun)))
        if not names:
            return ""
        if len(names) == 1:
            return f"It happened in kernel {names[0]}. "
        shown = "".join(f"\n  {name}" for name in names[:_NAMED])
        more = f"\n  and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"It happened in one of the kernels begun since the device was last waited for, the last one first:"
            f"{shown}{more}\nWith GRAPHC_CUDA_SYNC=1 the message names the one.\n"
        )

    def forked(self) -> None:
        """In a forked child: CUDA does not work there once the parent has used it."""
        self.pool.after_fork()
        self.pinned.after_fork()
        self._unusable = lambda: DeviceUnavailable(
            f"{self.name} cannot be used in a forked process, as its parent has used it. Start worker processes with "
            "multiprocessing's 'spawn' or 'forkserver' method, or use the device only in the children"
        )

    # -- memory ---------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int, what: object = "") -> DeviceBuffer:
        """Memory with arbitrary contents, for the current stream. OutOfMemoryError, which names `what`, when there is
        none.
        """
        return self.allocate_all((nbytes,), (what,))[0]

    def allocate_all(self, sizes: Sequence[int], what: Sequence[object]) -> list[DeviceBuffer]:
        """A buffer for each of `sizes`. Either all or none."""
        stream = self.current_stream
        made: list[DeviceBuffer] = []
        if self._unusable is None:
            again = self.pool.again
            for nbytes, purpose in zip(sizes, what, strict=True):
                block = again(nbytes, stream)
                if block is None:
                    break
                block.what = purpose
                made.append(DeviceBuffer(block, nbytes, self))
        count = len(made)
        if count < len(sizes):
            blocks = self._take(self.pool.take, sizes[count:], what[count:], stream)
            made += [DeviceBuffer(block, n, self) for block, n in zip(blocks, sizes[count:], strict=True)]
        if POISON.get():
            for buffer in made:
                self.call(self.driver.fill, buffer.ptr, 0xFF, buffer.nbytes, stream.handle)
        return made

    def take_arena(self, nbytes: int, what: object, stream: Stream) -> Block:
        """Memory that a program has to itself until `pool.give_arena`, while its steps are put on `stream`."""
        block = self._take(self.pool.take_arena, nbytes, what, stream)
        if POISON.get():
            self.call(self.driver.fill, block.address, 0xFF, nbytes, stream.handle)
        return block

    def _take(self, take: Callable[..., T], *arguments: Any) -> T:
        """`call` for the pool, which activates the device when it asks it for something."""
        if self._unusable is not None:
            raise self._unusable()
        try:
            return take(*arguments)
        except DriverError as error:
            raise self.failure(error) from None

    def memory_stats(self) -> DeviceMemoryStats:
        """What the pool holds now. It can be asked of a lost device too."""
        return self.call(self.pool.stats) if self._unusable is None else self.pool.stats(alive=False)

    def reset_peak(self) -> None:
        """Let the peaks start again from what is in use now."""
        self.call(self.pool.reset_peak)

    def empty_cache(self) -> None:
        """Give memory that no buffer uses back to the device and the system, after all that was begun has ended."""
        self.call(self.pool.release)
        self.call(self.pinned.release)

    def memory_summary(self) -> str:
        """What the pool holds, and the largest buffers, as text."""
        stats = self.memory_stats()
        free, total = self.memory_info()
        rows = (
            ("in use by buffers", stats.live_bytes),
            ("in use at the most", stats.peak_bytes),
            ("held by the pool", stats.held_bytes),
            ("held at the most", stats.peak_held_bytes),
            ("free on the device", free),
            ("of the device", total),
        )
        lines = [f"memory of {self.name} ({self.facts.name}), in bytes"]
        lines += [f"  {name:20}{count:>20,}" for name, count in rows]
        lines += [f"  {stats.live_blocks:,} buffers in {stats.segments:,} segments"]
        lines += [f"  {size:>20,}  {purpose}" for size, purpose in self.pool.largest()]
        return "\n".join(lines)

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the device now, all processes counted."""
        return self.call(self.driver.memory)

    def pin(self, nbytes: int) -> Buffer:
        """A buffer of the host in page-locked memory: copies to and from it need not be waited for."""
        return self.call(self.pinned.buffer, nbytes)

    def is_pinned(self, buffer: Buffer) -> bool:
        return self.pinned.block_of(buffer) is not None

    # -- copies ---------------------------------------------------------------------------------------------------

    def upload(self, source: Buffer, what: object = "", non_blocking: bool = False) -> DeviceBuffer:
        """A copy of `source` on this device. See `write`."""
        made = self.allocate(source.nbytes, what)
        self.write(made, source, non_blocking)
        return made

    def write(self, target: DeviceBuffer, source: Buffer, non_blocking: bool = False) -> None:
        """Host to device, in order on the current stream, which nobody waits for. `source` can be changed when this
        returns, except that page-locked memory with `non_blocking` is read when the device gets there.
        """
        stream = self.current_stream
        target.used_by(stream)
        block = self.pinned.block_of(source)
        if not source.nbytes:
            return
        if block is None or not non_blocking:
            self.call(cuda_host.send, self.pinned, self.driver, target.ptr, source, stream.handle)
            return
        self.call(self.driver.copy_in, target.ptr, source.ptr, source.nbytes, stream.handle)
        self.call(self.pinned.mark, block, stream.handle)

    def download(self, source: DeviceBuffer, non_blocking: bool = False) -> Buffer:
        """A copy of `source` on the host. It waits for what was begun on the current stream, unless `non_blocking`:
        then the copy is in page-locked memory, and its contents are there once the stream was waited for.
        """
        made = self.pin(source.nbytes) if non_blocking else Buffer.allocate(source.nbytes)
        self.read(made, source, non_blocking)
        return made

    def read(self, target: Buffer, source: DeviceBuffer, non_blocking: bool = False) -> None:
        """Device to host. See `download`; `non_blocking` needs a page-locked target, else this waits."""
        stream = self.current_stream
        source.used_by(stream)
        block = self.pinned.block_of(target)
        if not source.nbytes:
            return
        if block is None:
            self.call(cuda_host.receive, self.pinned, self.driver, target, source.ptr, stream.handle)
            self.settled()
            return
        self.call(self.driver.copy_out, target.ptr, source.ptr, source.nbytes, stream.handle)
        self.call(self.pinned.mark, block, stream.handle)
        if not non_blocking:
            stream.synchronize()

    def duplicate(self, source: DeviceBuffer, what: object = "") -> DeviceBuffer:
        """A copy of `source`, which may be on another device, on this one."""
        made = self.allocate(source.nbytes, what)
        self.assign(made, source)
        return made

    def assign(self, target: DeviceBuffer, source: DeviceBuffer) -> None:
        """Device to device, in order on the current streams of both."""
        stream = self.current_stream
        target.used_by(stream)
        if source.device is self:
            source.used_by(stream)
            if source.nbytes:
                self.call(self.driver.copy, target.ptr, source.ptr, source.nbytes, stream.handle)
            return
        other = source.device
        theirs = other.current_stream
        source.used_by(theirs)
        stream.wait_stream(theirs)
        if source.nbytes:
            self.call(self.driver.copy_peer, target.ptr, other.driver, source.ptr, source.nbytes, stream.handle)
        theirs.wait_stream(stream)

    def assign_rows(self, target: Rows, source: Rows, nbytes: int, rows: int) -> None:
        """`rows` times `nbytes` between memory of this device, in order on the current stream."""
        stream = self.current_stream
        for buffer, _, _ in (target, source):
            buffer.used_by(stream)
        (to, *there), (of, *here) = target, source
        if not nbytes * rows:
            return
        if rows == 1:
            self.call(self.driver.copy, to.ptr + there[0], of.ptr + here[0], nbytes, stream.handle)
            return
        places = to.ptr + there[0], there[1], of.ptr + here[0], here[1]
        self.call(self.driver.copy_rows, *places, nbytes, rows, stream.handle)

    # -- streams --------------------------------------------------------------------------------------------------

    @property
    def current_stream(self) -> Stream:
        """The stream on which this thread puts work of the device."""
        return self._current.stream

    def set_stream(self, stream: Stream) -> None:
        """Let this thread put work of the device on `stream`."""
        self._current.stream = stream

    @contextmanager
    def on_stream(self, stream: Stream) -> Iterator[Stream]:
        """Inside, and in this thread only, `stream` is the current one."""
        before = self.current_stream
        self.set_stream(stream)
        try:
            yield stream
        finally:
            self.set_stream(before)

    def wait_for(self, number: int) -> None:
        """Let what comes later on the current stream start after what is on a stream of another library now. `number`
        is a CUstream; 0 and 1 mean the default stream.
        """
        self.current_stream.wait_stream(self._numbered(number))

    def let_wait(self, number: int) -> None:
        """The other way: let what comes later on that stream start after what is on the current one now."""
        self._numbered(number).wait_stream(self.current_stream)

    def _numbered(self, number: int) -> Stream:
        if number <= 1:
            return self.default_stream
        current = self.current_stream
        return current if number == current.number else Stream(self, self.call(self.driver.foreign_stream, number))

    def new_stream(self) -> Stream:
        """A stream of its own; from the 33rd on, those made before are given in turn."""
        with self._lock:
            if len(self._streams) < _STREAMS:
                self._streams.append(Stream(self, self.call(self.driver.make_stream)))
                return self._streams[-1]
            self._next_stream += 1
            return self._streams[self._next_stream % _STREAMS]

    def synchronize(self) -> None:
        """Wait for all that was begun on the device; errors of that work are raised here."""
        retired, self.retired = self.retired, []
        self.call(self.driver.synchronize)
        self.launched.clear()
        for end, handle in retired:
            self.call(end, handle)

    def settled(self) -> None:
        """The current stream was waited for. If the device has no other, no kernel is under suspicion any more."""
        if not self._streams:
            self.launched.clear()

    @contextmanager
    def capturing(self) -> Iterator[Handle]:
        """The driver's stream on which graphs are captured, for this thread alone."""
        with self._capture_lock:
            if self._capture_stream is None:
                self._capture_stream = self.call(self.driver.make_stream)
            yield self._capture_stream

    def take_event(self, timing: bool) -> Handle:
        """An event of the driver, used before or new."""
        try:
            return self.idle_events[timing].pop()
        except IndexError:
            return self.call(self.driver.make_event, timing)

    # -- programs -------------------------------------------------------------------------------------------------

    def load(self, artifact: Artifact) -> CudaProgram:
        """The artifact's kernels loaded on the device; LoadError when they do not fit it."""
        self.check()
        if len(self.retired) > _RETIRED:
            self.synchronize()
        return CudaProgram(artifact, self)

    def __repr__(self) -> str:
        return f"CudaDevice({self.name}, {self.facts.name})"


_lock = threading.RLock()
_driver: Driver = PyCudaDriver()
_devices: dict[int, CudaDevice] = {}
_local = threading.local()


def register_cuda_driver(driver: Driver | None) -> Driver:
    """Use another driver from now on, PyCUDA's for None: for tests. Devices are opened anew. Gives the one before."""
    global _driver
    with _lock:
        before, _driver = _driver, PyCudaDriver() if driver is None else driver
        _devices.clear()
    return before


def device_count() -> int:
    """How many CUDA devices can be used; 0 when CUDA cannot. Never an error."""
    try:
        return _driver.device_count()
    except Exception:
        return 0


def is_available() -> bool:
    """Whether there is a CUDA device that can be used. Never an error."""
    return device_count() > 0


def why_unavailable() -> str:
    """Why CUDA cannot be used and what to do; empty when it can be."""
    try:
        return "" if _driver.device_count() else "this machine has no CUDA device, or CUDA_VISIBLE_DEVICES hides it"
    except Exception as error:
        return str(error)


def cuda_device(index: int) -> CudaDevice:
    """Device `index`, opened on first use. DeviceUnavailable when CUDA cannot be used or there is no such device."""
    device = _devices.get(index)
    if device is not None:
        return device
    with _lock:
        if index not in _devices:
            _devices[index] = CudaDevice(index, _open(index))
        return _devices[index]


def _open(index: int) -> DriverDevice:
    try:
        count = _driver.device_count()
        if not 0 <= index < count:
            there = ", ".join(f"cuda:{i}" for i in range(count)) or "none"
            raise DeviceUnavailable(f"there is no device cuda:{index}; CUDA devices of this machine: {there}")
        return _driver.open(index)
    except DriverMissing as error:
        raise DeviceUnavailable(str(error)) from None
    except DriverError as error:
        raise DeviceUnavailable(f"cuda:{index} cannot be used: {error}") from None


def current_device() -> int:
    """The index that "cuda" means in this thread."""
    return getattr(_local, "index", 0)


def set_device(index: int) -> None:
    """Let "cuda" mean device `index` in this thread; DeviceUnavailable when there is no such device."""
    _local.index = cuda_device(index).index


def opened() -> tuple[CudaDevice, ...]:
    """The devices that were used so far."""
    return tuple(_devices.values())


def _after_fork() -> None:
    for device in opened():
        device.forked()


os.register_at_fork(after_in_child=_after_fork)
