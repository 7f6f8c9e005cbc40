"""The thread pool: one per process, started when a long program is loaded or another first has parallel work, safe to
fork, gone at exit.

`pool.ll` does the work. Here are its life and its settings: workers are daemon threads of Python that sit in one native
call, with the GIL free. Programs get the address of a table, or from `choice.ll` that of another one, which is for one
thread:

- [0] `void parallel_for(ptr pool, ptr task, ptr context, i64 count)`. A task is `void (ptr context, i64 lo, i64 hi)`
  and runs for disjoint ranges that cover [0, count). Calls with a count of one, calls inside a task and calls while
  another thread uses the pool run inline.
- [1] the pool, the first argument of both functions.
- [2] `void move(ptr pool, ptr to, ptr from, i64 nbytes, i8 value)` copies bytes, or fills them where `from` is null.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from graphc_runtime.machine import cpu_count
from graphc_runtime.options import THREADS

SYMBOLS = (
    "graphc_parallel_for",
    "graphc_pool_alone",
    "graphc_pool_init",
    "graphc_pool_move",
    "graphc_pool_move_alone",
    "graphc_pool_pause",
    "graphc_pool_run",
    "graphc_pool_stop",
    "graphc_pool_worker",
)
_BYTES = 704 + 64 * 64
# Offsets in the pool's memory.
_WORKERS, _LIMIT, _WANTED, _STOP, _SPIN = 0, 4, 8, 12, 16
_SPIN_SECONDS = 60e-6
_MAX_THREADS = 1024
# Of %record in `choice.ll`: its words, and the runs of its first period.
_RECORD_WORDS, _FIRST_PERIOD = 13, 32

_ON_POOL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PAUSE = ctypes.CFUNCTYPE(None, ctypes.c_int64)
_MOVE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_uint8)

Link = Callable[[str, tuple[str, ...]], Mapping[str, int]]


def pool_source() -> str:
    """The LLVM IR of the pool, without the functions `relax` (a hint to the processor) and `ticks` (its clock), which
    depend on the machine.
    """
    here = Path(__file__)
    return "\n".join(here.with_name(name).read_text(encoding="ascii") for name in ("pool.ll", "choice.ll"))


class ThreadPool:
    """The pool of this process. `THREADS` says how many threads work on a job, the caller's included."""

    def __init__(self) -> None:
        self._memory = ctypes.create_string_buffer(_BYTES + 64)
        address = ctypes.addressof(self._memory)
        self._address = address + (-address) % 64
        self._table = (ctypes.c_void_p * 3)(None, self._address, None)
        self.wanted = self._field(_WANTED)
        self._code: Mapping[str, int] | None = None
        self._move: Callable[..., object] | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._closed = False
        self._changing = False

    def table(self, link: Link) -> tuple[int, ctypes.c_int32]:
        """The address of the table, and the flag that is not 0 when `start` should be called.

        `link` makes native code of the text of `pool_source`: it gives addresses of symbols and keeps the code while it
        is kept.
        """
        code = self._code
        if code is None:
            # Done twice when two threads come first at once; then the second code is dropped.
            code = link(pool_source(), SYMBOLS)
            with self._lock:
                if self._code is None:
                    self._prepare(code)
        return ctypes.addressof(self._table), self.wanted

    def choosing(self, entry: int, trial: int, link: Link) -> tuple[int, ctypes.Array[ctypes.c_void_p]]:
        """What runs the program at the address `entry` with several threads or one, whichever is faster: the address of
        a function, and the record to give it in place of a table. The record lives as long as the program. `trial` is
        how many runs try the other way, 3 or more.
        """
        self.table(link)
        code = self._code
        assert code is not None
        alone = (code["graphc_pool_alone"], self._address, code["graphc_pool_move_alone"])
        return code["graphc_pool_run"], (ctypes.c_void_p * _RECORD_WORDS)(
            *self._table, *alone, entry, _FIRST_PERIOD, trial
        )

    def start(self) -> None:
        """Start workers if there are none and there should be some; otherwise nothing."""
        with self._lock:
            self.wanted.value = 0
            if self._code is None or self._threads or self._closed or self._changing:
                return
            count = get_num_threads() - 1
            worker = _ON_POOL(self._code["graphc_pool_worker"])
            self._field(_STOP).value = 0
            self._threads = [
                threading.Thread(target=worker, args=(self._address,), name=f"graphc-{i}", daemon=True)
                for i in range(count)
            ]
            for thread in self._threads:
                thread.start()

    def stop(self) -> None:
        """End all workers, each after the chunk it is at, and wait for them. The next parallel work starts new ones."""
        with self._lock:
            threads, self._threads = self._threads, []
            if not threads or self._code is None or self._changing:
                self._threads = threads
                return
            self._changing = True  # from here on `start` does nothing, and the lock is free during native calls
            stop = _ON_POOL(self._code["graphc_pool_stop"])
        try:
            stop(self._address)
            for thread in threads:
                thread.join()
        finally:
            self._changing = False

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy bytes between two addresses; the memory does not overlap."""
        if not self._moved(target, source, nbytes, 0):
            ctypes.memmove(target, source, nbytes)

    def fill(self, target: int, value: int, nbytes: int) -> None:
        """Set bytes to `value`, 0 to 255."""
        if not self._moved(target, None, nbytes, value):
            ctypes.memset(target, value, nbytes)

    def _moved(self, *arguments: int | None) -> bool:
        """Copy or fill by native code, which lets all threads share what is large; False before there is any."""
        if self._move is None:
            return False
        self._move(self._address, *arguments)
        if self.wanted.value:
            self.start()
        return True

    @property
    def workers(self) -> int:
        """Workers that are ready or at work, at this moment."""
        return self._field(_WORKERS).value

    def resize(self) -> None:
        """Take up a changed number of threads."""
        self.stop()
        self._field(_LIMIT).value = 0 if self._closed else get_num_threads() - 1

    def close(self) -> None:
        """At exit: end the workers for good. Work that comes later runs inline."""
        self._closed = True
        self._field(_LIMIT).value = 0
        self.stop()

    def after_fork(self) -> None:
        """In a forked child, which has none of the parent's threads: begin anew, in the same memory."""
        self._lock = threading.RLock()
        self._threads = []
        self._changing = False
        ctypes.memset(self._address, 0, _BYTES)
        if self._code is not None:
            self._prepare(self._code)

    def _prepare(self, code: Mapping[str, int]) -> None:
        _ON_POOL(code["graphc_pool_init"])(self._address)
        ctypes.c_int64.from_address(self._address + _SPIN).value = _pauses(_PAUSE(code["graphc_pool_pause"]))
        self._field(_LIMIT).value = 0 if self._closed else get_num_threads() - 1
        self._table[0], self._table[2] = code["graphc_parallel_for"], code["graphc_pool_move"]
        self._move = _MOVE(code["graphc_pool_move"])
        self._code = code

    def _field(self, offset: int) -> ctypes.c_int32:
        return ctypes.c_int32.from_address(self._address + offset)


def _pauses(pause: Callable[[int], object]) -> int:
    """How many pauses of the processor make the time that a thread spins before it sleeps."""
    best = 1.0
    for _ in range(3):  # the shortest: others were interrupted
        begin = time.perf_counter()
        pause(1000)
        best = min(best, time.perf_counter() - begin)
    return max(100, min(100_000, int(1000 * _SPIN_SECONDS / best)))


POOL = ThreadPool()
# Workers end before a fork, so that the child is a copy of a process without threads; the parent starts new ones when
# it has work.
os.register_at_fork(before=POOL.stop, after_in_child=POOL.after_fork)
atexit.register(POOL.close)


def get_num_threads() -> int:
    """Threads that work on a parallel job: what was set, or else the cores that this process may use."""
    count = THREADS.get()
    return min(count, _MAX_THREADS) if count > 0 else cpu_count()


def set_num_threads(count: int) -> None:
    """Let `count` threads, the caller's included, work on parallel jobs. ValueError unless 1 <= count <= 1024.

    Results do not depend on it. Do not call it from inside a program.
    """
    if not 1 <= count <= _MAX_THREADS:
        raise ValueError(f"the number of threads must be between 1 and {_MAX_THREADS}, got {count}")
    THREADS.set(count)
    POOL.resize()
