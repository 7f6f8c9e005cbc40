"""Small native programs for tests of the runtime, made with llvmlite."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from graphc_runtime import Artifact, Buffer, Executable, Launch, TensorSpec, get_device, get_num_threads
from graphc_runtime.pool import POOL

ROOT = Path(__file__).resolve().parents[2]

# Entry: parallel_for(task, context = the table of buffers) over as many indices as the first input, i64[1], says.
PARALLEL_ENTRY = """
declare void @task(ptr, i64, i64)
define void @main_entry(ptr %buffers, ptr %runtime) {
  %parallel_for = load ptr, ptr %runtime
  %pool.at = getelementptr ptr, ptr %runtime, i64 1
  %pool = load ptr, ptr %pool.at
  %count.at = load ptr, ptr %buffers
  %count = load i64, ptr %count.at
  call void %parallel_for(ptr %pool, ptr @task, ptr %buffers, i64 %count)
  ret void
}
"""

# Adds one to element i of the second buffer, i32[n], for every index i.
COUNT_TASK = """
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %at
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %i1, %loop ]
  %p = getelementptr i32, ptr %out, i64 %i
  %old = atomicrmw add ptr %p, i32 1 monotonic
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %hi
  br i1 %more, label %loop, label %end
end:
  ret void
}
"""

# Counts arrivals in element 0 of the second buffer, i32[2], and waits (not for ever) until there are two;
# then counts in element 1.
MEET_TASK = """
define void @task(ptr %buffers, i64 %lo, i64 %hi) {
entry:
  %at = getelementptr ptr, ptr %buffers, i64 1
  %out = load ptr, ptr %at
  %old = atomicrmw add ptr %out, i32 1 seq_cst
  br label %wait
wait:
  %i = phi i64 [ 0, %entry ], [ %i1, %again ]
  %here = load atomic i32, ptr %out seq_cst, align 4
  %both = icmp sge i32 %here, 2
  br i1 %both, label %met, label %again
again:
  %i1 = add i64 %i, 1
  %patient = icmp slt i64 %i1, 3000000000
  br i1 %patient, label %wait, label %end
met:
  %second = getelementptr i32, ptr %out, i64 1
  %old2 = atomicrmw add ptr %second, i32 1 seq_cst
  br label %end
end:
  ret void
}
"""


@cache
def _machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic", codemodel="small")


@cache
def compile_object(text: str) -> bytes:
    """Relocatable object code of a module in LLVM IR."""
    machine = _machine()
    with llvm.parse_assembly(text) as module:
        module.verify()
        return machine.emit_object(module)


def artifact(
    texts: tuple[str, ...],
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    aliases: tuple[int, ...] | None = None,
    arena_bytes: int = 0,
) -> Artifact:
    """A program whose entry is `main_entry`."""
    objects = tuple(compile_object(text) for text in texts)
    aliases = aliases if aliases is not None else (-1,) * len(outputs)
    launches = (Launch("task", 2, 1, 1, ("user.py:1",)),)
    return Artifact("test", inputs, outputs, aliases, arena_bytes, objects, "main_entry", launches)


def parallel(task: str, outputs: tuple[TensorSpec, ...], inputs: tuple[TensorSpec, ...] = ()) -> Executable:
    """`task` in parallel over as many indices as the first input, i64[1], says."""
    count = TensorSpec("i64", (1,))
    return Executable(artifact((PARALLEL_ENTRY, task), (count, *inputs), outputs), get_device("cpu"))


def number(value: int) -> Buffer:
    """An i64[1] with this value."""
    return Buffer.from_array(np.array([value], np.int64))


def zeros(count: int, dtype: type = np.int32) -> Buffer:
    """Memory of `count` zeros."""
    return Buffer.from_array(np.zeros(count, dtype))


def count_run(executable: Executable, count: int) -> np.ndarray:
    """How often each of `count` indices was visited by a program made from COUNT_TASK."""
    out = zeros(executable.artifact.outputs[0].shape[0])
    executable.run([number(count)], [out])
    return out.array.view(np.int32)


def start_pool() -> None:
    """Let the pool have all its workers: the first parallel job runs inline and asks for them."""
    count_run(parallel(COUNT_TASK, (TensorSpec("i32", (2,)),)), 2)
    while POOL.workers < get_num_threads() - 1:
        time.sleep(0.001)


def python(
    code: str, *, environment: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own, with the repository on its path."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "runtime")))
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
