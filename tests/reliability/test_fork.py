"""Row 24: 100 forks after the pool ran: no hang, right results in children and parent."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from graphc_runtime import Buffer, Executable, KernelCache, TensorSpec, counters, set_num_threads
from graphc_runtime.options import THREADS
from graphc_runtime.pool import POOL
from tests.runtime.native import COUNT_TASK, MEET_TASK, count_run, number, parallel, start_pool, zeros

SECONDS = 60  # for a child that hangs


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    set_num_threads(3)
    yield
    THREADS.reset()
    POOL.resize()


@pytest.fixture
def counting() -> Executable:
    """A program whose pool runs."""
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    for _ in range(3):
        assert (count_run(executable, 64) == 1).all()
    return executable


def in_child(work: Callable[[], bool]) -> int:
    """The exit status of a forked child that does `work`: 0 when it gave True."""
    with warnings.catch_warnings():
        # The test runner may have threads of its own; ours are gone by then.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(SECONDS)
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def our_threads() -> int:
    return sum(thread.name.startswith("graphc-") for thread in threading.enumerate())


@pytest.mark.parametrize("forks", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_many_forks(counting: Executable, forks: int) -> None:
    def child() -> bool:
        return all((count_run(counting, 64) == 1).all() for _ in range(5)) and our_threads() == 2

    for i in range(forks):
        assert in_child(child) == 0, i
        assert (count_run(counting, 64) == 1).all()
        if i % 2:  # workers are alive at every second fork, and just started at the others
            assert (count_run(counting, 64) == 1).all()


def test_children_work_on_several_threads(counting: Executable) -> None:
    meeting = parallel(MEET_TASK, (TensorSpec("i32", (2,)),))

    def child() -> bool:
        start_pool()
        out = zeros(2)
        meeting.run([number(2)], [out])
        return out.array.view("i4").tolist() == [2, 2]

    for _ in range(5):
        assert in_child(child) == 0


def test_grandchildren(counting: Executable) -> None:
    def grandchild() -> bool:
        return all((count_run(counting, 64) == 1).all() for _ in range(3))

    def child() -> bool:
        return grandchild() and in_child(grandchild) == 0 and grandchild()

    for _ in range(5):
        assert in_child(child) == 0
        assert grandchild()


def test_forks_while_another_thread_works(counting: Executable) -> None:
    stop = threading.Event()
    wrong: list[object] = []

    def work() -> None:
        while not stop.is_set():
            if not (count_run(counting, 64) == 1).all():
                wrong.append("a count")

    def child() -> bool:
        return all((count_run(counting, 64) == 1).all() for _ in range(5))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(30):
            assert in_child(child) == 0, i
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_locks_are_free_in_the_child(counting: Executable) -> None:
    """Other threads of the parent hold the runtime's locks again and again; the child must not wait for them."""
    stop = threading.Event()
    cache = KernelCache(None)

    def work() -> None:
        while not stop.is_set():
            Buffer.allocate(1000)
            counters()
            cache.put({"a": "b"}, b"code", frozenset())

    def child() -> bool:
        Buffer.allocate(1000)
        cache.put({"a": "c"}, b"code", frozenset())
        return counters()["runs"] > 0 and cache.get({"a": "c"}, frozenset()) == b"code"

    others = [threading.Thread(target=work) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        for i in range(30):
            assert in_child(child) == 0, i
    finally:
        stop.set()
        for thread in others:
            thread.join()


def test_the_parent_has_no_worker_at_the_fork(counting: Executable) -> None:
    """Python 3.12 warns of forks from processes with several threads; ours must not be among them."""
    assert our_threads() == 2
    assert in_child(lambda: our_threads() == 0) == 0
    assert our_threads() == 0
    count_run(counting, 64)
    assert our_threads() == 2
