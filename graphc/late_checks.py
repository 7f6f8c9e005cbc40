"""Checks of values: what one finds, and those that other devices compute.

The flag of a check on another device comes to the host behind the work that computes it, and nobody waits for it. It is
looked at when somebody looks at the device, or when there are many.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import OutOfRange
from graphc.memory import AnyBuffer, bytes_of
from graphc_runtime.buffer import Buffer

# What is wrong with the value of a node: an error, if its first byte is not 0, or a function that looks at its bytes.
Problem = Exception | Callable[[np.ndarray], Exception | None]


class Report:
    """A problem, as a function, that holds nothing but what its call site and the operation tell: whoever records the
    call again shares it.
    """

    __slots__ = ()

    def __call__(self, data: np.ndarray) -> Exception | None:
        """The error for the bytes of the node."""
        raise NotImplementedError


FLAG_BYTES = 4096  # of flags that wait, for each device; a smaller one leaves its own memory at once, on the stream
_ALIGNMENT = 8


# A check of indices gives 0, or twice one that is out of range plus one, so that the first byte tells; indices that
# are too low lie `TOO_LOW` higher, so that the largest of all tells.
TOO_LOW = 1 << 60


def index_of(data: np.ndarray) -> int:
    """The index that a check of indices found to be out of range."""
    index = int.from_bytes(data[:8].tobytes(), sys.byteorder, signed=True) >> 1
    return index if index < TOO_LOW // 2 else index - TOO_LOW


def found(problem: Problem, data: np.ndarray) -> Exception | None:
    """The error that a check finds in the bytes of its node."""
    if isinstance(problem, Exception):
        if not data[0]:
            return None
        if isinstance(problem, OutOfRange):
            problem.index = index_of(data)
        # It may be raised again, by a replay: what the last time left in it would grow.
        return problem.with_traceback(None)
    return problem(data)


class _Arrivals:
    """Page-locked memory into which a device copies flags."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._buffer = device.pin(FLAG_BYTES)
        self._array = self._buffer.array
        self._streams: set[Any] = set()
        self._used = 0

    def take(self, flag: AnyBuffer) -> np.ndarray | None:
        """Where the flag arrives, after `settle`; None when there is no more room."""
        start, device = self._used, self._device
        if start + flag.nbytes > FLAG_BYTES:
            return None
        stream = device.current_stream
        flag.used_by(stream)
        device.call(device.driver.copy_out, self._buffer.ptr + start, flag.ptr, flag.nbytes, stream.handle)
        self._streams.add(stream)
        self._used = start + -(-flag.nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._array[start : start + flag.nbytes]

    def settle(self) -> None:
        """Wait until all are there. Their places are used again from now on."""
        for stream in self._streams:
            stream.synchronize()
        self._streams.clear()
        self._used = 0


class LateChecks:
    """Checks that other devices compute and that nobody looked at yet. True while there are some."""

    __slots__ = ("_arrivals", "_waiting")  # slots, as native code reads them

    def __init__(self) -> None:
        self._waiting: list[tuple[AnyBuffer, Problem]] = []
        self._arrivals: dict[Any, _Arrivals] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, flag: AnyBuffer, problem: Problem) -> None:
        """Look at `flag` later."""
        arrivals = self._arrivals.get(flag.device)
        if arrivals is None:
            arrivals = self._arrivals[flag.device] = _Arrivals(flag.device)
        place = arrivals.take(flag)
        if place is None:
            self.raise_found()
            place = arrivals.take(flag)
        self._waiting.append((flag if place is None else place, problem))

    def judge(self, flag: AnyBuffer, problem: Problem) -> None:
        """Raise the error that a check finds. What another device computes is looked at when somebody looks at that
        device.
        """
        if type(flag) is not Buffer:
            self.add(flag, problem)
            return
        error = found(problem, flag.array)
        if error is not None:
            raise error

    def raise_found(self) -> None:
        """Raise the first error that they find."""
        waiting, self._waiting = self._waiting, []
        for arrivals in self._arrivals.values():
            arrivals.settle()
        for data, problem in waiting:
            error = found(problem, data if isinstance(data, np.ndarray) else bytes_of(data))
            if error is not None:
                raise error
