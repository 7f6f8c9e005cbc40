"""Steps of a program put on a stream by native code: one call of Python for all of them. `cuda.ll` does the work."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from graphc_runtime.artifact import DeviceStep
from graphc_runtime.devices.cpu import Library, link_text
from graphc_runtime.devices.cuda_driver import DriverError, NativeCalls

_ENTRY = "graphc_cuda_enqueue"
_KINDS = {"fill": 1, "copy": 2}


@cache
def _library() -> Library:
    text = Path(__file__).parents[1].joinpath("cuda.ll").read_text(encoding="ascii")
    return link_text("cuda", text, (_ENTRY,))


@cache
def _entry() -> Callable[[int, int, int], int]:
    # The interpreter's lock is held: a process that ends while a daemon thread launches would end in a crash.
    return ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(_library()[_ENTRY])


class NativeSteps:
    """The steps of one program. `run` may be called from several threads."""

    def __init__(self, calls: NativeCalls, steps: Sequence[DeviceStep], functions: Sequence[int], buffers: int) -> None:
        """`functions` has the driver's number of each kernel among the steps; LoadError when nothing can be linked."""
        self._calls = calls
        self._run = _entry()
        most = max((len(step.places) for step in steps), default=0)
        words = [calls.set_current, calls.context, calls.launch, calls.fill, calls.copy, len(steps), max(most, 2)]
        kernels = iter(functions)
        for step in steps:
            kind = _KINDS.get(step.kernel, 0)
            words += [kind, 0 if kind else next(kernels), step.blocks, step.threads, step.shared, step.value]
            words += [step.nbytes, len(step.places), *(word for place in step.places for word in place)]
        self._words = (ctypes.c_uint64 * len(words))(*words)
        self._at = ctypes.addressof(self._words)
        self._place = struct.Struct(f"={buffers}Q").pack_into
        self._buffers = buffers
        self._tables: list[tuple[ctypes.Array[ctypes.c_uint64], int]] = []  # free ones; append and pop are atomic

    def run(self, pointers: Sequence[int], stream: int) -> None:
        """Put the steps on a stream, which activates the device; DriverError says which step failed."""
        try:
            table = self._tables.pop()
        except IndexError:
            words = (ctypes.c_uint64 * self._buffers)()
            table = words, ctypes.addressof(words)
        self._place(table[0], 0, *pointers)
        failed = self._run(self._at, table[1], stream)
        self._tables.append(table)
        if failed:
            raise self._error(failed)

    def _error(self, failed: int) -> DriverError:
        error = self._calls.error("the launch", failed & 0xFFFFFFFF)
        error.step = failed >> 32
        return error
