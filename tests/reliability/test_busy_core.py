"""Another process keeps one of the cores busy: a training step on two threads finishes, with the same bits as always.

That no thread waits for chunks which another one has not begun is counted in `tests/runtime/test_pool.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphc_runtime import Executable, get_device, set_num_threads
from graphc_runtime.options import THREADS
from graphc_runtime.pool import POOL
from tests.codegen.networks import arrays_for, training_step
from tests.codegen.programs import buffers
from tests.codegen.raw import artifact_of, program_for

STEPS = 20
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile True: pass"


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    THREADS.reset()
    POOL.resize()


@contextmanager
def busy(core: int) -> Iterator[subprocess.Popen[str]]:
    """A process that computes on `core` and never rests."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(core)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()  # it has begun
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_a_training_step_beside_a_busy_core(threads: None) -> None:
    graph = training_step(48, 26, (1, 4, 8))
    arrays = arrays_for(graph)
    program = program_for(graph)
    executable = Executable(artifact_of(program), get_device("cpu"))

    def step() -> bytes:
        return b"".join(out.array.tobytes() for out in executable.run(buffers(arrays)))

    set_num_threads(1)
    expected = step()
    set_num_threads(2)
    step()  # starts the worker
    assert any(getattr(launch, "parallel", False) for launch in program.steps)
    with busy(min(os.sched_getaffinity(0))) as process:
        assert all(step() == expected for _ in range(STEPS))
        assert process.poll() is None
    assert POOL.workers == 1
