"""The thread pool: every index once, really parallel, quiet when nested or shared, gone at exit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from graphc_runtime import Buffer, Executable, TensorSpec, get_device, get_num_threads, pool, set_num_threads
from graphc_runtime.machine import cpu_count
from graphc_runtime.options import THREADS
from graphc_runtime.pool import POOL
from tests.runtime.native import (
    COUNT_TASK,
    MEET_TASK,
    PARALLEL_ENTRY,
    artifact,
    count_run,
    number,
    parallel,
    python,
    start_pool,
    zeros,
)

SHARED_BYTES = 1 << 19  # from which on threads share a fill or a copy (`pool.ll`)
NESTED_ENTRY = """
declare void @inner(ptr, i64, i64)
define void @task(ptr %context, i64 %lo, i64 %hi) {
entry:
  %runtime.at = getelementptr ptr, ptr %context, i64 1
  %buffers = load ptr, ptr %context
  %runtime = load ptr, ptr %runtime.at
  %parallel_for = load ptr, ptr %runtime
  %pool.at = getelementptr ptr, ptr %runtime, i64 1
  %pool = load ptr, ptr %pool.at
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %i1, %loop ]
  call void %parallel_for(ptr %pool, ptr @inner, ptr %buffers, i64 100)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %hi
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @main_entry(ptr %buffers, ptr %runtime) {
  %context = alloca [2 x ptr]
  store ptr %buffers, ptr %context
  %second = getelementptr ptr, ptr %context, i64 1
  store ptr %runtime, ptr %second
  %parallel_for = load ptr, ptr %runtime
  %pool.at = getelementptr ptr, ptr %runtime, i64 1
  %pool = load ptr, ptr %pool.at
  call void %parallel_for(ptr %pool, ptr @task, ptr %context, i64 10)
  ret void
}
"""


# The first chunk to run stalls, as its thread would without a core, until the second buffer, i64[3], counts all other
# indices (not for ever). Then it notes there how many chunks others ran, and how many indices it had itself.
STALL_TASK = """
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %count.at = load ptr, ptr %buffers
  %count = load i64, ptr %count.at
  %out.at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %out.at
  %chunks = getelementptr i64, ptr %out, i64 1
  %own = getelementptr i64, ptr %out, i64 2
  %mine = sub i64 %hi, %lo
  %taken = cmpxchg ptr %own, i64 0, i64 %mine seq_cst seq_cst
  %first = extractvalue { i64, i1 } %taken, 1
  br i1 %first, label %stall, label %other
other:
  %old1 = atomicrmw add ptr %chunks, i64 1 seq_cst
  %old = atomicrmw add ptr %out, i64 %mine seq_cst
  br label %end
stall:
  %rest = sub i64 %count, %mine
  br label %wait
wait:
  %i = phi i64 [ 0, %stall ], [ %i1, %again ]
  %done = load atomic i64, ptr %out seq_cst, align 8
  %all = icmp sge i64 %done, %rest
  br i1 %all, label %end, label %again
again:
  %i1 = add i64 %i, 1
  %patient = icmp slt i64 %i1, 3000000000
  br i1 %patient, label %wait, label %gave.up
gave.up:
  store atomic i64 -1, ptr %own seq_cst, align 8
  br label %end
end:
  ret void
}
"""


# The first chunks to run, as many as there are threads, note where they begin and wait for each other (not for ever) in
# the second buffer, i64[THREADS + 1], whose first entry counts chunks.
BEGIN_TASK = """
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %out.at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %out.at
  %before = atomicrmw add ptr %out, i64 1 seq_cst
  %early = icmp slt i64 %before, THREADS
  br i1 %early, label %note, label %end
note:
  %place = add i64 %before, 1
  %note.at = getelementptr i64, ptr %out, i64 %place
  store i64 %lo, ptr %note.at
  br label %wait
wait:
  %i = phi i64 [ 0, %note ], [ %i1, %again ]
  %begun = load atomic i64, ptr %out seq_cst, align 8
  %all = icmp sge i64 %begun, THREADS
  br i1 %all, label %end, label %again
again:
  %i1 = add i64 %i, 1
  %patient = icmp slt i64 %i1, 3000000000
  br i1 %patient, label %wait, label %end
end:
  ret void
}
"""


# Counts chunks in the second buffer, i64[1]. The second entry of the first, i64[3], is the number of rounds that a
# chunk takes if the job is cut, the third that of one which has the whole job.
WEARY_TASK = """
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %in = load ptr, ptr %buffers
  %out.at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %out.at
  %old = atomicrmw add ptr %out, i64 1 seq_cst
  %count = load i64, ptr %in
  %size = sub i64 %hi, %lo
  %whole = icmp eq i64 %size, %count
  %which = select i1 %whole, i64 2, i64 1
  %rounds.at = getelementptr i64, ptr %in, i64 %which
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %i1, %wait ]
  %rounds = load atomic i64, ptr %rounds.at monotonic, align 8
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %rounds
  br i1 %more, label %wait, label %end
end:
  ret void
}
"""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Each test starts with one worker, whatever the machine, and leaves the setting as it was."""
    set_num_threads(2)
    yield
    THREADS.reset()
    POOL.resize()


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_every_index_is_visited_once(workers: int) -> None:
    set_num_threads(workers)
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (5000,)),))
    for count in (*range(40), 997, 5000):
        visits = count_run(executable, count)
        assert (visits[:count] == 1).all(), count
        assert not visits[count:].any(), count


@pytest.mark.parametrize("nbytes", [0, 1, 1000, SHARED_BYTES, 2 * SHARED_BYTES + 12345])
def test_copies_and_fills_of_any_size(nbytes: int) -> None:
    """Nothing around them is touched; large ones are shared, and ask for workers where there are none."""
    start_pool()
    source = np.random.default_rng(nbytes).integers(0, 256, nbytes + 9, np.uint8)
    target = np.full(nbytes + 9, 77, np.uint8)
    POOL.copy(target.ctypes.data + 3, source.ctypes.data + 1, nbytes)
    assert (target[3 : nbytes + 3] == source[1 : nbytes + 1]).all()
    POOL.fill(source.ctypes.data + 2, 200, nbytes)
    assert (source[2 : nbytes + 2] == 200).all()
    assert target[[0, 1, 2, nbytes + 3, nbytes + 4, -1]].tolist() == [77] * 6
    POOL.stop()
    POOL.fill(target.ctypes.data, 5, nbytes)
    assert (target[:nbytes] == 5).all()
    assert any(t.name.startswith("graphc-") for t in threading.enumerate()) == (nbytes >= SHARED_BYTES)


@pytest.mark.parametrize("start", [0, 64, 16, 1])
def test_long_fills_go_past_the_caches(start: int) -> None:
    """From 16 MiB on, where they begin and end at lines; else as short ones. Nothing around them is touched."""
    start_pool()
    nbytes = (16 << 20) + 100
    memory = np.full(nbytes + 192, 77, np.uint8)
    first = -memory.ctypes.data % 64 + start
    POOL.fill(memory.ctypes.data + first, 200, nbytes)
    assert (memory[first : first + nbytes] == 200).all()
    assert (memory[:first] == 77).all() and (memory[first + nbytes :] == 77).all()


def test_two_threads_work_at_the_same_time() -> None:
    start_pool()
    out = zeros(2)
    parallel(MEET_TASK, (TensorSpec("i32", (2,)),)).run([number(2)], [out])
    assert out.array.view(np.int32).tolist() == [2, 2]


def ranges(count: int, threads: int) -> list[int]:
    """How many indices each thread's own range has."""
    return [count // threads + (i < count % threads) for i in range(threads)]


def chunks_of(length: int) -> int:
    """How many chunks a range is taken in: each a quarter of what is left of at most 16 grains, or one grain."""
    left, chunks = min(length, 16), 0
    while left:
        left -= max(left // 4, 1)
        chunks += 1
    return chunks


def first_chunk(length: int) -> int:
    """How many indices the first chunk of a range has."""
    grains = min(length, 16)
    return max(grains // 4, 1) * length // grains


@pytest.mark.parametrize("workers", [2, 3])
def test_others_take_the_chunks_of_a_thread_that_stalls(workers: int) -> None:
    """Ranges belong to threads only as long as nobody else wants them: else all would wait for the stalled one."""
    set_num_threads(workers)
    start_pool()
    executable = parallel(STALL_TASK, (TensorSpec("i64", (3,)),))
    for count in (workers * 4, 22, 1000):
        out = zeros(3, np.int64)
        executable.run([number(count)], [out])
        others, chunks, own = out.array.view(np.int64).tolist()
        lengths = ranges(count, workers)
        assert own in {first_chunk(length) for length in lengths}  # one chunk, about a quarter of a share
        assert others == count - own
        assert chunks == sum(map(chunks_of, lengths)) - 1  # all the other chunks, while one stood still


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("count", [3, 4, 25, 1000])
def test_threads_begin_at_ranges_of_their_own(workers: int, count: int) -> None:
    """So that what a thread wrote in one job is in its own caches in the next."""
    set_num_threads(workers)
    start_pool()
    executable = parallel(BEGIN_TASK.replace("THREADS", str(workers)), (TensorSpec("i64", (workers + 1,)),))
    for _ in range(20):
        out = zeros(workers + 1, np.int64)
        executable.run([number(count)], [out])
        lengths = ranges(count, workers)
        assert sorted(out.array.view(np.int64)[1:].tolist()) == [sum(lengths[:i]) for i in range(workers)]


def weary() -> Executable:
    """Runs `WEARY_TASK`; it says that it is long enough for several threads to be tried, and not too long."""
    program = artifact((PARALLEL_ENTRY, WEARY_TASK), (TensorSpec("i64", (3,)),), (TensorSpec("i64", (1,)),))
    return Executable(replace(program, launches=(replace(program.launches[0], flops=1_000_000),)), get_device("cpu"))


def chunks_in(executable: Executable, runs: int, cut: int = 0, whole: int = 0) -> set[int]:
    """How many chunks a job of 8 indices was run in, in all those runs."""
    given = Buffer.from_array(np.array([8, cut, whole]))
    counts = set()
    for _ in range(runs):
        out = zeros(1, np.int64)
        executable.run([given], [out])
        counts.add(int(out.array.view(np.int64)[0]))
    return counts


@pytest.mark.parametrize("first", ["one thread", "threads"])
def test_programs_run_the_way_that_is_faster(first: str) -> None:
    """On several threads or one: they try the other way for 64 runs after 32, and again after 64, or after 512 if that
    was slower. A trial that goes badly ends after ten runs.
    """
    start_pool()
    executable = weary()
    threads, alone = {2 * chunks_of(4)}, {1}
    slow = 3_000_000  # rounds: more than a millisecond
    against_threads, against_one = {"cut": slow}, {"whole": slow}
    assert chunks_in(executable, 32, **(against_threads if first == "one thread" else against_one)) == threads
    if first == "one thread":
        assert chunks_in(executable, 64, **against_threads) == alone
        assert chunks_in(executable, 64, **against_one) == alone
        assert chunks_in(executable, 64, **against_one) == threads
        assert chunks_in(executable, 60) == threads
    else:
        assert chunks_in(executable, 10, **against_one) == alone
        assert chunks_in(executable, 512, **against_threads) == threads
        assert chunks_in(executable, 64, **against_threads) == alone
        assert chunks_in(executable, 60) == alone


def test_many_small_jobs() -> None:
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (16,)),))
    out = zeros(16)
    count = number(16)
    for _ in range(20_000):
        executable.run([count], [out])
    assert (out.array.view(np.int32) == 20_000).all()


def test_sleeping_and_waking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without spinning, every job wakes workers, and its caller often sleeps until the last one has left."""
    monkeypatch.setattr(pool, "_pauses", lambda _: 1)
    POOL.stop()
    POOL.after_fork()  # begins anew, with the new number of pauses
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (300,)),))
    for workers in (2, 5):
        set_num_threads(workers)
        for count in [*range(2, 300), *range(2, 300)]:
            assert (count_run(executable, count)[:count] == 1).all()
    monkeypatch.undo()
    POOL.stop()
    POOL.after_fork()


def test_nested_jobs_run_inline() -> None:
    inner = COUNT_TASK.replace("@task", "@inner")
    # The table of buffers has one entry more than COUNT_TASK looks at: an unused input.
    program = artifact((NESTED_ENTRY, inner), (TensorSpec("i64", (1,)),), (TensorSpec("i32", (100,)),))
    executable = Executable(program, get_device("cpu"))
    for _ in range(50):
        out = zeros(100)
        executable.run([number(0)], [out])
        assert (out.array.view(np.int32) == 10).all()


def test_two_python_threads_share_the_pool() -> None:
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    start_pool()
    wrong: list[int] = []

    def work() -> None:
        for i in range(2000):
            if not (count_run(executable, 64) == 1).all():
                wrong.append(i)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("work", [{"flops": 1 << 30}, {"bytes": 1 << 30}])
def test_the_first_run_of_a_long_program_has_all_threads(work: dict[str, int]) -> None:
    POOL.stop()
    short = artifact((PARALLEL_ENTRY, COUNT_TASK), (TensorSpec("i64", (1,)),), (TensorSpec("i32", (64,)),))
    Executable(short, get_device("cpu"))
    assert not [t for t in threading.enumerate() if t.name.startswith("graphc-")]
    Executable(replace(short, launches=(replace(short.launches[0], **work),)), get_device("cpu"))
    assert len([t for t in threading.enumerate() if t.name.startswith("graphc-")]) == 1


def test_the_pool_starts_only_when_needed() -> None:
    POOL.stop()
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    count_run(executable, 1)
    assert not [t for t in threading.enumerate() if t.name.startswith("graphc-")]
    count_run(executable, 64)
    assert len([t for t in threading.enumerate() if t.name.startswith("graphc-")]) == 1


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    for count in (3, 1, 4, 2):
        set_num_threads(count)
        assert get_num_threads() == count
        assert (count_run(executable, 64) == 1).all()
        assert (count_run(executable, 64) == 1).all()
        assert len([t for t in threading.enumerate() if t.name.startswith("graphc-")]) == count - 1
    for count in (0, -1, 2000):
        with pytest.raises(ValueError, match="between 1 and 1024"):
            set_num_threads(count)
    monkeypatch.delenv("GRAPHC_THREADS", raising=False)
    THREADS.reset()
    assert get_num_threads() == cpu_count()


def test_threads_can_be_changed_while_others_work() -> None:
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    stop = threading.Event()
    wrong: list[np.ndarray] = []

    def work() -> None:
        while not stop.is_set():
            visits = count_run(executable, 64)
            if not (visits == 1).all():
                wrong.append(visits)

    thread = threading.Thread(target=work)
    thread.start()
    for i in range(60):
        set_num_threads(1 + i % 4)
    stop.set()
    thread.join()
    assert not wrong


def test_affinity_decides_the_default() -> None:
    done = python(
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import graphc_runtime; print(graphc_runtime.get_num_threads())",
        environment={"GRAPHC_THREADS": "0"},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


EXIT = """
import sys, threading
import numpy as np
from graphc_runtime import *
from tests.runtime.native import COUNT_TASK, count_run, parallel
set_num_threads(3)
executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
for _ in range(5):
    assert (count_run(executable, 64) == 1).all()
assert threading.active_count() == 3
"""


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("pass", 0),
        ("sys.exit(7)", 7),
        ("t = threading.Thread(target=lambda: [count_run(executable, 64) for _ in range(3000)]); t.start()", 0),
        ("threading.Thread(target=lambda: [count_run(executable, 64) for _ in iter(int, 1)], daemon=True).start()", 0),
        ("import os; pid = os.fork(); count_run(executable, 64); pid and os.waitpid(pid, 0)", 0),
        ("import atexit; atexit.register(lambda: count_run(executable, 64))", 0),
        ("import builtins, numpy; builtins.a = executable, Buffer.allocate(9); numpy.b = Buffer.allocate(9).array", 0),
        ("import gc; keep = executable; loop = [loop for loop in [[]]]; loop[0].append((loop, keep)); gc.freeze()", 0),
    ],
)
def test_shutdown_is_silent(state: str, code: int) -> None:
    for _ in range(2):
        done = python(f"{EXIT}\n{state}\n")
        assert (done.returncode, done.stderr) == (code, "")
