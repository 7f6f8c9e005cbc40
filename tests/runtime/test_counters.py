"""Counters: exact under threads, reset, snapshots."""

from __future__ import annotations

import threading

import pytest

from graphc_runtime.counters import Counters


def count_run(own: Counters, launches: int) -> None:
    """As an executor does: one call of a program with so many kernels."""
    tally = own.own.tally
    tally.runs += 1
    tally.launches += launches


def test_counting() -> None:
    own = Counters()
    own.add("compiles")
    own.add("launches", 5)
    count_run(own, 3)
    own.add_peak(100)
    own.add_peak(50)
    snapshot = own.snapshot()
    assert (snapshot["compiles"], snapshot["launches"], snapshot["runs"], snapshot["peak_bytes"]) == (1, 8, 1, 100)
    own.add("compiles")
    assert snapshot["compiles"] == 1
    own.reset()
    assert not any(own.snapshot().values())
    with pytest.raises(KeyError):
        own.add("compile")


def test_threads_lose_no_count() -> None:
    own = Counters()

    def work() -> None:
        for _ in range(10_000):
            count_run(own, 2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own.snapshot()["runs"] == 40_000
    assert own.snapshot()["launches"] == 80_000
