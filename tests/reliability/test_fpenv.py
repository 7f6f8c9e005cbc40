"""Row 14: the floating-point mode of no thread is changed, neither the caller's nor a worker's; subnormals are kept."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator

import numpy as np
import pytest

from graphc_runtime import Executable, TensorSpec, get_device, set_num_threads
from graphc_runtime.devices.cpu import Library
from graphc_runtime.options import THREADS
from graphc_runtime.pool import POOL
from tests.runtime.native import COUNT_TASK, artifact, compile_object, count_run, number, parallel, start_pool, zeros

# The exception flags (low six bits of MXCSR) are set by ordinary arithmetic; the rest is the mode.
MACHINES = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define i64 @mode() {
  %at = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %at)
  %word = load i32, ptr %at
  %mode = and i32 %word, -64
  %wide = zext i32 %mode to i64
  ret i64 %wide
}
define void @set_mode(i64 %mode) {
  %at = alloca i32
  %word = trunc i64 %mode to i32
  store i32 %word, ptr %at
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define i64 @mode() {
  %word = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %word
}
define void @set_mode(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
""",
}
FLUSH = {"x86_64": 0x8040, "aarch64": 1 << 24}

# Index i waits until all threads have come, so that each takes one index; then it notes the thread's mode and
# halves its number.
MODE_TASK = """
declare i64 @mode()
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %modes.at = getelementptr ptr, ptr %buffers, i64 1
  %modes = load ptr, ptr %modes.at
  %small.at = getelementptr ptr, ptr %buffers, i64 2
  %small = load ptr, ptr %small.at
  %come.at = getelementptr ptr, ptr %buffers, i64 3
  %come = load ptr, ptr %come.at
  %count.at = load ptr, ptr %buffers
  %count = load i64, ptr %count.at
  %old = atomicrmw add ptr %come, i64 1 seq_cst
  br label %wait
wait:
  %k = phi i64 [ 0, %entry ], [ %k1, %wait ]
  %k1 = add i64 %k, 1
  %here = load atomic i64, ptr %come seq_cst, align 8
  %all = icmp eq i64 %here, %count
  %tired = icmp sgt i64 %k, 3000000000
  %go = or i1 %all, %tired
  br i1 %go, label %note, label %wait
note:
  %mode = call i64 @mode()
  %mode.at = getelementptr i64, ptr %modes, i64 %lo
  store i64 %mode, ptr %mode.at
  %x.at = getelementptr double, ptr %small, i64 %lo
  %x = load double, ptr %x.at
  %y = fmul double %x, 0.5
  store double %y, ptr %x.at
  ret void
}
"""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    set_num_threads(3)
    yield
    THREADS.reset()
    POOL.resize()


@pytest.fixture(scope="module")
def code() -> str:
    machine = platform.machine()
    if machine not in MACHINES:
        pytest.skip(f"no way to read the floating-point mode of {machine} is written here")
    return MACHINES[machine]


@pytest.fixture(scope="module")
def registers(code: str) -> Iterator[tuple[ctypes._CFuncPtr, ctypes._CFuncPtr]]:
    """Functions that read and set the mode of the calling thread."""
    library = Library("mode", (compile_object(code),), ("mode", "set_mode"))
    yield ctypes.CFUNCTYPE(ctypes.c_int64)(library["mode"]), ctypes.CFUNCTYPE(None, ctypes.c_int64)(library["set_mode"])


def modes_of_all_threads(code: str) -> tuple[list[int], list[float]]:
    """The mode of each of the three threads of the pool, and half of the smallest normal number by each."""
    count, modes, small = TensorSpec("i64", (1,)), TensorSpec("i64", (3,)), TensorSpec("f64", (3,))
    entry = """
declare void @task(ptr, i64, i64)
define void @main_entry(ptr %buffers, ptr %runtime) {
  %parallel_for = load ptr, ptr %runtime
  %pool.at = getelementptr ptr, ptr %runtime, i64 1
  %pool = load ptr, ptr %pool.at
  call void %parallel_for(ptr %pool, ptr @task, ptr %buffers, i64 3)
  ret void
}
"""
    program = artifact((entry, MODE_TASK, code), (count,), (modes, small, count))
    found, numbers, come = zeros(3, np.int64), zeros(3, np.float64), zeros(1, np.int64)
    numbers.view(np.float64, (3,))[:] = np.finfo(np.float64).tiny
    Executable(program, get_device("cpu")).run([number(3)], [found, numbers, come])
    assert come.view(np.int64, (1,)).tolist() == [3]
    return found.array.view(np.int64).tolist(), numbers.array.view(np.float64).tolist()


def test_the_mode_stays_as_it_was(code: str, registers: tuple) -> None:
    mode, _ = registers
    executable = parallel(COUNT_TASK, (TensorSpec("i32", (64,)),))
    before = mode()
    start_pool()
    first, halves = modes_of_all_threads(code)
    for _ in range(1000):
        count_run(executable, 64)
    last, _ = modes_of_all_threads(code)
    assert mode() == before
    assert first == [before] * 3
    assert last == [before] * 3
    half = float(np.finfo(np.float64).tiny) * 0.5
    assert half > 0
    assert halves == [half] * 3


def test_a_change_would_be_seen(registers: tuple) -> None:
    mode, set_mode = registers
    before = mode()
    try:
        set_mode(before | FLUSH[platform.machine()])
        flushed = mode()
    finally:
        set_mode(before)
    assert flushed == before | FLUSH[platform.machine()]
    assert mode() == before
