"""Executables: arguments, outputs new, given and taken over, arenas, counters, several threads, the null device."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from graphc_runtime import (
    COUNTERS,
    Artifact,
    Buffer,
    CallError,
    Executable,
    GraphcRuntimeError,
    LoadError,
    OutOfMemory,
    TensorSpec,
    counters,
    get_device,
    memory_stats,
    reset_peak,
)
from graphc_runtime.options import scope
from tests.runtime.native import artifact, compile_object

VECTOR = TensorSpec("f32", (4,))

# out = sin(x) + y by way of the arena, which has stale values; `helper` is in another object, `sinf` in the C library.
ADD_ENTRY = """
declare void @helper(ptr, ptr, i64)
define void @main_entry(ptr %buffers, ptr %runtime) {
entry:
  %y.at = getelementptr ptr, ptr %buffers, i64 1
  %out.at = getelementptr ptr, ptr %buffers, i64 2
  %arena.at = getelementptr ptr, ptr %buffers, i64 3
  %x = load ptr, ptr %buffers
  %y = load ptr, ptr %y.at
  %out = load ptr, ptr %out.at
  %arena = load ptr, ptr %arena.at
  call void @helper(ptr %x, ptr %arena, i64 4)
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %a.at = getelementptr float, ptr %arena, i64 %i
  %b.at = getelementptr float, ptr %y, i64 %i
  %c.at = getelementptr float, ptr %out, i64 %i
  %a = load float, ptr %a.at
  %b = load float, ptr %b.at
  %c = fadd float %a, %b
  store float %c, ptr %c.at
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, 4
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""
HELPER = """
declare float @sinf(float)
@scale = internal constant [4 x float] [float 1.0, float 1.0, float 2.0, float 2.0]
define void @helper(ptr %x, ptr %out, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %x.at = getelementptr float, ptr %x, i64 %i
  %out.at = getelementptr float, ptr %out, i64 %i
  %s.at = getelementptr float, ptr @scale, i64 %i
  %v = load float, ptr %x.at
  %s = load float, ptr %s.at
  %w = call float @sinf(float %v)
  %p = fmul float %w, %s
  store float %p, ptr %out.at
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""


def adder(aliases: tuple[int, ...] = (-1,)) -> Executable:
    return Executable(artifact((ADD_ENTRY, HELPER), (VECTOR, VECTOR), (VECTOR,), aliases, 64), get_device("cpu"))


def arguments() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.array([0.5, 1, 2, 3], np.float32)
    y = np.array([10, 20, 30, 40], np.float32)
    return x, y, np.sin(x) * np.array([1, 1, 2, 2], np.float32) + y


def floats(buffer: Buffer) -> np.ndarray:
    return buffer.view(np.float32, (4,))


def test_objects_are_linked_with_each_other_and_the_c_library() -> None:
    x, y, expected = arguments()
    (out,) = adder().run([Buffer.from_array(x), Buffer.from_array(y)])
    np.testing.assert_allclose(floats(out), expected, rtol=1e-6)


def test_the_same_program_twice_and_dropped() -> None:
    x, y, expected = arguments()
    inputs = [Buffer.from_array(x), Buffer.from_array(y)]
    for _ in range(6):
        one, two = adder(), adder()
        np.testing.assert_allclose(floats(one.run(inputs)[0]), expected, rtol=1e-6)
        del one
        gc.collect()
        np.testing.assert_allclose(floats(two.run(inputs)[0]), expected, rtol=1e-6)


def test_unaligned_and_read_only_inputs() -> None:
    x, y, expected = arguments()
    raw = np.zeros(17, np.uint8)
    raw[1:].view(np.float32)[:] = x
    y.flags.writeable = False
    (out,) = adder().run([Buffer.from_array(raw[1:]), Buffer.from_array(y)])
    np.testing.assert_allclose(floats(out), expected, rtol=1e-6)


def test_given_outputs() -> None:
    x, y, expected = arguments()
    inputs = [Buffer.from_array(x), Buffer.from_array(y)]
    mine = Buffer.allocate(16)
    (out,) = adder().run(inputs, [mine])
    assert out is mine
    np.testing.assert_allclose(floats(mine), expected, rtol=1e-6)
    assert adder().run(inputs, [None])[0].nbytes == 16


def test_an_output_takes_over_an_input() -> None:
    x, y, expected = arguments()
    inputs = [Buffer.from_array(x), Buffer.from_array(y)]
    executable = adder((1,))
    (out,) = executable.run(inputs)
    assert out is inputs[1]
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert executable.run(inputs, [inputs[1]])[0] is inputs[1]
    with pytest.raises(CallError, match="output 0 takes over input 1"):
        executable.run(inputs, [Buffer.allocate(16)])


def test_wrong_arguments() -> None:
    x, y, _ = arguments()
    good = [Buffer.from_array(x), Buffer.from_array(y)]
    executable = adder()
    with pytest.raises(CallError, match=r"test has 2 inputs \(f32\[4\], f32\[4\]\), got 1 buffers"):
        executable.run(good[:1])
    with pytest.raises(CallError, match=r"input 1 is f32\[4\] \(16 bytes\), got 20 bytes"):
        executable.run([good[0], Buffer.allocate(20)])
    with pytest.raises(CallError, match="1 outputs, got 2 buffers"):
        executable.run(good, [None, None])
    with pytest.raises(CallError, match=r"output 0 is f32\[4\] \(16 bytes\), got 12 bytes"):
        executable.run(good, [Buffer.allocate(12)])
    x.flags.writeable = False
    with pytest.raises(CallError, match="read-only"):
        executable.run(good, [Buffer.from_array(x)])


def test_steps_allocate_nothing_new() -> None:
    x, y, _ = arguments()
    executable = adder()
    inputs = [Buffer.from_array(x), Buffer.from_array(y)]
    out = executable.run(inputs)
    before = counters()["allocations"]
    live = memory_stats().live_bytes
    for _ in range(500):
        out = executable.run(inputs)
    assert counters()["allocations"] - before <= 1  # two outputs are alive at a time
    assert memory_stats().live_bytes <= live + 128
    assert out[0].nbytes == 16


def test_counters() -> None:
    x, y, _ = arguments()
    executable = adder()
    COUNTERS.reset()
    for _ in range(3):
        executable.run([Buffer.from_array(x), Buffer.from_array(y)])
    assert counters()["runs"] == 3
    assert counters()["launches"] == 3
    assert counters()["peak_bytes"] > 0


def test_several_threads() -> None:
    x, y, expected = arguments()
    executable = adder()
    wrong: list[object] = []

    def work(k: int) -> None:
        inputs = [Buffer.from_array(x), Buffer.from_array(y + np.float32(k))]
        for _ in range(1000):
            (out,) = executable.run(inputs)
            if not np.allclose(floats(out), expected + k, rtol=1e-5):
                wrong.append(floats(out))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


WAIT_ENTRY = """
define void @main_entry(ptr %buffers, ptr %runtime) {
entry:
  %flag = load ptr, ptr %buffers
  %entered = getelementptr i32, ptr %flag, i64 1
  store atomic i32 1, ptr %entered seq_cst, align 4
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %i1, %again ]
  %now = load atomic i32, ptr %flag seq_cst, align 4
  %set = icmp ne i32 %now, 0
  br i1 %set, label %end, label %again
again:
  %i1 = add i64 %i, 1
  %patient = icmp slt i64 %i1, 30000000000
  br i1 %patient, label %wait, label %end
end:
  %out.at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %out.at
  store i32 %now, ptr %out
  ret void
}
"""


def test_python_runs_during_a_native_call() -> None:
    one, two = TensorSpec("i32", (1,)), TensorSpec("i32", (2,))
    executable = Executable(artifact((WAIT_ENTRY,), (two,), (one,)), get_device("cpu"))
    flag = np.zeros(2, np.int32)
    results: list[Buffer] = []
    thread = threading.Thread(target=lambda: results.extend(executable.run([Buffer.from_array(flag)])))
    thread.start()
    while not flag[1]:  # until the other thread is in the call, which only the next line can end
        time.sleep(0.001)
    flag[0] = 5
    thread.join()
    assert results[0].view(np.int32, (1,)).tolist() == [5]


def test_programs_that_do_not_run_hold_no_arena() -> None:
    x, y, expected = arguments()
    program = artifact((ADD_ENTRY, HELPER), (VECTOR, VECTOR), (VECTOR,), None, 1 << 20)
    executables = [Executable(program, get_device("cpu")) for _ in range(5)]
    inputs = [Buffer.from_array(x), Buffer.from_array(y)]
    before = memory_stats().live_bytes
    reset_peak()
    for executable in executables:
        np.testing.assert_allclose(floats(executable.run(inputs)[0]), expected, rtol=1e-6)
    assert memory_stats().live_bytes == before
    assert memory_stats().peak_bytes - before == (1 << 20) + 64


PEEK_ENTRY = """
define void @main_entry(ptr %buffers, ptr %runtime) {
  %arena.at = getelementptr ptr, ptr %buffers, i64 1
  %arena = load ptr, ptr %arena.at
  %out = load ptr, ptr %buffers
  %old = load i32, ptr %arena
  store i32 %old, ptr %out
  store i32 7, ptr %arena
  ret void
}
"""


def test_a_poisoned_arena_forgets_the_last_call() -> None:
    executable = Executable(artifact((PEEK_ENTRY,), (), (TensorSpec("i32", (1,)),), None, 64), get_device("cpu"))
    with scope(poison=True):
        for _ in range(5):
            assert executable.run([])[0].view(np.int32, (1,)).tolist() == [-1]


def test_an_impossible_arena() -> None:
    x, y, _ = arguments()
    program = artifact((ADD_ENTRY, HELPER), (VECTOR, VECTOR), (VECTOR,), None, 1 << 50)
    executable = Executable(program, get_device("cpu"))
    with pytest.raises(OutOfMemory, match="the arena of test"):
        executable.run([Buffer.from_array(x), Buffer.from_array(y)])


def test_code_that_cannot_be_linked() -> None:
    with pytest.raises(LoadError, match="cannot be linked"):
        Executable(artifact((ADD_ENTRY,), (VECTOR, VECTOR), (VECTOR,)), get_device("cpu"))
    with pytest.raises(LoadError, match="cannot be linked"):
        Executable(Artifact("x", (), (), (), 0, (compile_object(HELPER),), "no_such_entry"), get_device("cpu"))
    for junk in (b"", b"junk", compile_object(HELPER)[:200]):
        with pytest.raises(LoadError, match="cannot be linked"):
            Executable(Artifact("x", (), (), (), 0, (junk,), "main_entry"), get_device("cpu"))


def test_the_null_device() -> None:
    x, y, _ = arguments()
    null = Executable(artifact((ADD_ENTRY,), (VECTOR, VECTOR), (VECTOR, VECTOR), (-1, 1), 64), get_device("null"))
    given = Buffer.allocate(16)
    given.array[:] = 9
    COUNTERS.reset()
    first, second = null.run([Buffer.from_array(x), Buffer.from_array(y)], [given, None])
    assert not floats(first).any()
    assert floats(second).tolist() == y.tolist()
    assert (counters()["runs"], counters()["launches"]) == (1, 1)


def test_unknown_devices() -> None:
    with pytest.raises(GraphcRuntimeError, match=r"no device 'tpu'; devices are: cpu, null"):
        get_device("tpu")
