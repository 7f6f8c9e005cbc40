"""Systems in processes of their own."""

from __future__ import annotations

import compileall
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.workload import OURS

ROOT = Path(__file__).resolve().parents[1]
NO_ANSWER = "no answer within"


def environment(threads: int, cache: Path) -> dict[str, str]:
    """The environment of a system: libraries find the project, caches lie in a folder, threads are limited."""
    paths = [str(ROOT), str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")]
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS")
    # A library that was installed has its bytecode, and so has ours: see `write_bytecode`.
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **given,
        **dict.fromkeys(limits, str(threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "GRAPHC_CACHE_DIR": str(cache / "graphc"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "CACHEDB": str(cache / "tinygrad.db"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "CUPY_CACHE_DIR": str(cache / "cupy"),
        "CUDA_CACHE_PATH": str(cache / "cuda"),
        # JAX would take most of a device's memory at its start, from all others.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def write_bytecode() -> None:
    """Compiles our Python files, as an installer does, so that no first step or import is charged with it."""
    for folder in (ROOT / "graphc", ROOT / "runtime" / "graphc_runtime", ROOT / "benchmarks"):
        compileall.compile_dir(folder, quiet=2)


def cpus(threads: int) -> list[int]:
    """The CPUs that a process with so many threads is held to; empty where the system cannot do that."""
    return sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []


@contextmanager
def busy(cpu: int) -> Iterator[None]:
    """Another process computes on a CPU and never rests."""
    code = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nprint(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()  # it has begun
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def interpreter(name: str, peer_python: str) -> str:
    """The Python that a system runs in; ours and the machine's always run in this one."""
    return sys.executable if name in (*OURS, "machine") else peer_python


class SystemProcess:
    """One system (or "machine"), asked by JSON lines.

    Between an answer and the next question it is stopped: threads of OpenBLAS, OpenMP and other pools go on looking for
    work for a tenth of a second and more, and would take a CPU from whoever is measured next.
    """

    def __init__(
        self, name: str, threads: int, python: str, cache: Path, timeout: float, tiny: bool = False, device: str = "cpu"
    ) -> None:
        self.name, self.timeout = name, timeout
        self.failure: dict[str, Any] | None = None
        words = [*(["tiny"] if tiny else []), *(["cuda"] if device == "cuda" else [])]
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", name, str(threads), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(threads, cache),
        )

    def send(self, do: str, **arguments: Any) -> None:
        """Asks something; `answer` must be called next."""
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return

    def answer(self) -> dict[str, Any]:
        """The answer; `{"failed": ...}` when the process is gone or silent for too long, which ends it: the answer to
        all that it is asked afterwards, too.
        """
        assert self.process.stdout is not None
        if self.failure is not None:
            return self.failure
        ready, _, _ = select.select([self.process.stdout], [], [], self.timeout)
        if not ready:
            self.process.kill()
            self.process.wait()
            self.failure = {"failed": f"{NO_ANSWER} {self.timeout:.0f} s"}
            return self.failure
        line = self.process.stdout.readline()
        if not line:
            self.failure = {"failed": f"the process ended with status {self.process.wait()}"}
            return self.failure
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Both."""
        self.send(do, **arguments)
        return self.answer()

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            self.process.kill()
        self.process.stdout.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
