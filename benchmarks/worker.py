"""The process that one system lives in: `python -m benchmarks.worker SYSTEM THREADS [tiny] [cuda]`.

It reads one JSON object a line from standard input and answers with one a line:

    {"do": "start"}                              import the system
    {"do": "prepare", "workload": "sum"}         make inputs, time the first call, tell the results
    {"do": "measure", "seconds": 0.5}            times of single calls

The system "machine" measures what the machine can do: a copy of the workload's bytes, and multiply-adds.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cards import Card
from benchmarks.processes import cpus
from benchmarks.systems import System, system
from benchmarks.systems.base import Prepared
from benchmarks.workload import Arrays, Workload, digest
from benchmarks.workloads import workloads

CHECKED_STEPS = 4
# Training steps whose losses nobody reads: loops print now and then, not at each step.
STEPS_A_LOOK = 10
SHORTEST_CHUNK = 1e-3
# Seconds between looks at whether a process still computes, and for all of them.
SETTLING, LONGEST_SETTLING = 0.05, 10.0


class Missing(Exception):
    """The system has no form of the workload."""


def check(prepared: Prepared, before: Arrays | None, result: Any) -> list[dict[str, Any]]:
    """Digests of a result; for a training step of the first losses, and of how the weights moved at the first step.

    Later steps multiply rounding errors: after four of ResNet's, two float32 systems differ by several percent.
    """
    if prepared.weights is None or before is None:
        return [digest(array) for array in prepared.arrays(result)]
    after = prepared.weights()
    losses = [float(prepared.arrays(result)[0])]
    losses += [float(prepared.arrays(prepared.call())[0]) for _ in range(CHECKED_STEPS - 1)]
    return [digest(np.array(losses)), *(digest(after[name] - before[name]) for name in sorted(before))]


def loop(prepared: Prepared, look_every: int) -> Callable[[int], None]:
    """Runs that many calls, waiting for the results of every `look_every`-th and of the last."""
    call, wait = prepared.call, prepared.wait
    touch = prepared.touch or wait

    def run(count: int) -> None:
        result: Any = None
        with prepared.context():
            for _ in range((count - 1) // look_every):
                for _ in range(look_every - 1):
                    result = call()
                result = call()
                touch(result)
            for _ in range((count - 1) % look_every):
                result = call()
            result = call()
            wait(result)

    return run


def chunk_of(run: Callable[[int], None], least: int) -> int:
    """How many calls, a multiple of `least`, take at least a millisecond."""
    begin = time.perf_counter()
    run(least)
    return least * max(1, int(SHORTEST_CHUNK / max(time.perf_counter() - begin, 1e-9)))


def time_calls(run: Callable[[int], None], seconds: float, chunk: int) -> list[float]:
    """Seconds a call, of chunks of so many calls, until the time is over."""
    begin = time.perf_counter()
    times: list[float] = []
    while not times or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run(chunk)
        times.append((time.perf_counter() - start) / chunk)
    return times


def settle() -> None:
    """Waits until nothing is computed behind the caller's back, such as code that is built while calls go on."""
    for _ in range(int(LONGEST_SETTLING / SETTLING)):
        spent = time.process_time()
        time.sleep(SETTLING)
        if time.process_time() - spent < SETTLING / 10:
            return


def reset_peak() -> None:
    """Lets `peak_bytes` start from what is used now, where the system can do that (Linux)."""
    gc.collect()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that this process had since the last reset, or ever."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def hold(threads: int) -> None:
    """Holds the process to as many CPUs as threads: once all are imported, which may use every CPU, before any work."""
    if held := cpus(threads):
        os.sched_setaffinity(0, held)


class SystemWorker:
    """Answers for one system."""

    def __init__(self, name: str, threads: int, tiny: bool, device: str) -> None:
        self.name, self.threads, self.tiny, self.device = name, threads, tiny, device
        self.system: System = system(name, device)
        self.run: Callable[[int], None] | None = None
        self.chunk = 0  # calls that are timed together: the same in all turns, as other loops are other code
        self.peak = 0

    def start(self) -> dict[str, Any]:
        """Imports the system."""
        begin = time.perf_counter()
        version = self.system.start(self.threads)
        if self.device == "cpu":
            hold(self.threads)
        return {"version": version, "import_s": time.perf_counter() - begin}

    def prepare(self, workload: str) -> dict[str, Any]:
        """Makes the work ready, by the first setting that does not fail, and tells its results."""
        self.work: Workload = workloads(self.tiny, self.device)[workload]
        form = self.work.form(self.name)
        if form is None:
            raise Missing(f"no form of {workload}")
        settings = self.system.settings(self.work)
        for setting in settings:
            try:
                return {**self._prepare(form, setting), "setting": setting}
            except Exception:
                if setting == settings[-1]:
                    raise
        raise Missing("no settings")

    def _prepare(self, form: Any, setting: str) -> dict[str, Any]:
        prepared = self.system.prepare(self.work, form, setting)
        before = None if prepared.weights is None else prepared.weights()
        # What a trial of settings took, and what comparing takes, is no memory of the workload.
        reset_peak()
        with prepared.context():
            begin = time.perf_counter()
            result = prepared.call()
            prepared.wait(result)
            first = time.perf_counter() - begin
            self.peak = self._peak()
            results = check(prepared, before, result)
        del before, result
        reset_peak()
        self.chunk = 0
        self.run = loop(prepared, STEPS_A_LOOK if self.work.training else 1)
        # Some systems compile at the second call, too.
        self.run(2)
        self.peak = max(self.peak, self._peak())
        return {"first_s": first, "results": results, "peak_bytes": self.peak}

    def _peak(self) -> int:
        found = self.system.peak_bytes()
        return peak_bytes() if found is None else found

    def measure(self, seconds: float) -> dict[str, Any]:
        """The median and the least time of a call; the first turn ends when the process has settled."""
        assert self.run is not None, "measure comes after prepare"
        if self.chunk:
            times = time_calls(self.run, seconds, self.chunk)
        else:
            least = STEPS_A_LOOK if self.work.training else 1
            time_calls(self.run, seconds / 2, chunk_of(self.run, least))
            self.chunk = chunk_of(self.run, least)
            times = time_calls(self.run, seconds / 2, self.chunk)
            settle()
        per, self.peak = self.work.per, max(self.peak, self._peak())
        return {"median_s": statistics.median(times) / per, "min_s": min(times) / per, "peak_bytes": self.peak}


class MachineWorker:
    """Answers for the machine."""

    def __init__(self, threads: int, tiny: bool) -> None:
        self.threads, self.tiny = threads, tiny

    def start(self) -> dict[str, Any]:
        """Builds the loops."""
        # Needs llvmlite, which the interpreter of the other systems may lack.
        from benchmarks.roofline import Machine

        self.machine = Machine(self.threads)
        hold(self.threads)
        return {"version": ""}

    def prepare(self, workload: str) -> dict[str, Any]:
        """Makes the arrays of the copy."""
        self.work = workloads(self.tiny)[workload]
        self.copy = self.machine.copier(self.work.bytes)
        return {}

    def measure(self, seconds: float) -> dict[str, Any]:
        """The median time of the copy, and operations a second."""

        def run(count: int) -> None:
            for _ in range(count):
                self.copy()

        times = time_calls(run, seconds / 2, chunk_of(run, 1))
        return {"copy_s": statistics.median(times), "flops": self.machine.peak_flops(self.work.dtype)}


class CudaMachineWorker:
    """Answers for a CUDA device."""

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny

    def start(self) -> dict[str, Any]:
        """Imports what copies and multiplies."""
        self.card = Card(self.tiny)
        return {"version": ""}

    def prepare(self, workload: str) -> dict[str, Any]:
        """Notes the work."""
        self.work = workloads(self.tiny, "cuda")[workload]
        return {}

    def measure(self, seconds: float) -> dict[str, Any]:
        """How long a copy of the workload's bytes takes at the speed of a long one, and operations a second."""
        return {"copy_s": self.work.bytes / self.card.copy_speed(), "flops": self.card.flops(self.work.dtype)}


def serve(worker: SystemWorker | MachineWorker | CudaMachineWorker) -> None:
    """Answers until standard input ends."""
    # Libraries print to standard output; the answers go out on a descriptor that only this function knows.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    actions = {"start": worker.start, "prepare": worker.prepare, "measure": worker.measure}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = actions[request.pop("do")](**request)
        except ModuleNotFoundError as error:
            answer = {"missing": str(error)}
        except Missing as error:
            answer = {"not_for_it": str(error)}
        except Exception as error:  # whatever a system raises is reported as its result
            answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")


def _end_with_parent() -> None:
    """Ends with its parent (Linux): while it is stopped it does not see that its standard input ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    _end_with_parent()
    name, threads, tiny = sys.argv[1], int(sys.argv[2]), "tiny" in sys.argv[3:]
    device = "cuda" if "cuda" in sys.argv[3:] else "cpu"
    if name != "machine":
        serve(SystemWorker(name, threads, tiny, device))
    else:
        serve(MachineWorker(threads, tiny) if device == "cpu" else CudaMachineWorker(tiny))


if __name__ == "__main__":
    main()
