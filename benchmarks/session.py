"""Runs workloads: all systems side by side, taking turns, after their results were compared."""

from __future__ import annotations

import math
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import NO_ANSWER, SystemProcess, busy, cpus, environment, interpreter
from benchmarks.results import Results, Row
from benchmarks.workload import BY_HAND, OURS, Workload, difference

# Whose result the others are compared with, the first that is there.
JUDGES = ("torch", "jax", "numpy", "torch-compile", "tinygrad", "numexpr", *OURS)
FIRST_STEPS = ("lenet-train-b64", "mlp-train-b128", "resnet18-train-b16", "lstm-train-b16", "transformer-train-b8")
# Steps of more than one thread beside a process that keeps one CPU busy; the others take long to compile.
BUSY_CORE, BUSY_SYSTEMS = FIRST_STEPS, (*OURS, "torch", "jax")
CUDA_FIRST_STEPS = ("lenet-train-b64", "resnet18-train-b128", "transformer-train-b32")
IMPORTS = {
    "graphc": "graphc",
    "torch": "torch",
    "jax": "jax, jax.numpy",
    "tinygrad": "tinygrad",
    "numexpr": "numexpr",
}
# A turn that took so long is not repeated in every round.
LONG_TURN, LONG_TURNS = 3.0, 2


@dataclass(frozen=True)
class Options:
    """What to run and for how long."""

    systems: list[str]
    rounds: int = 7
    seconds: float = 0.3
    timeout: float = 600.0
    peer_python: str = ""
    tiny: bool = False
    device: str = "cpu"


class Session:
    """Fills in the results; `note` gets a line of progress."""

    def __init__(self, options: Options, results: Results, note: Callable[[str], None]) -> None:
        self.options, self.results, self.note = options, results, note

    @contextmanager
    def _started(self, names: list[str], threads: int, cache: Path) -> Iterator[dict[str, SystemProcess]]:
        """Processes of those systems, imported; who is not installed is left out from now on. One that did not start
        answers whatever it is asked with the reason.
        """
        o = self.options
        running = {
            name: SystemProcess(name, threads, interpreter(name, o.peer_python), cache, o.timeout, o.tiny, o.device)
            for name in names
        }
        try:
            for process in running.values():
                process.send("start")
            for name, process in list(running.items()):
                answer = process.answer()
                if "missing" in answer:
                    self.results.left_out[name] = answer["missing"]
                    self.note(f"{name} is left out: {answer['missing']}")
                    running.pop(name).close()
                elif "version" in answer and name != "machine":
                    self.results.versions[name] = answer["version"]
            yield running
        finally:
            for process in running.values():
                process.close()

    def _systems_for(self, workload: Workload, threads: int) -> list[str]:
        asked = [name for name in self.options.systems if name not in self.results.left_out]
        # The yardstick has one thread.
        asked = [name for name in asked if name != BY_HAND or threads == 1]
        return [name for name in asked if workload.form(name) is not None]

    def measure(self, workload: Workload, threads: Sequence[int]) -> Iterator[Row]:
        """One workload with each number of threads: results are compared, then everybody takes turns.

        Caches are empty at first and stay from one number of threads to the next; only the first calls with empty ones
        are told. Who gives no answer in time is not asked again.
        """
        slow: dict[str, str] = {}
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            for number in threads:
                row = Row(workload.name, workload.section, number, workload.dtype, workload.flops, workload.bytes)
                row.revision = self.results.machine["revision"]
                row.failures |= slow
                self.results.add(row)
                names = [name for name in self._systems_for(workload, number) if name not in slow]
                with self._started([*names, "machine"], number, Path(folder)) as started:
                    running = {name: process for name, process in started.items() if name != "machine"}
                    machine = started.get("machine")
                    if machine is not None:
                        machine.ask("prepare", workload=workload.name)
                    self._prepare(workload, row, running)
                    self._turns(row, running, machine, workload.warm)
                slow |= {name: why for name, why in row.failures.items() if why.startswith(NO_ANSWER)}
                if number != threads[0]:
                    row.first_s.clear()
                yield row

    def _drop(self, row: Row, running: dict[str, SystemProcess], name: str, reason: str) -> None:
        row.failures[name] = reason
        self.note(f"{row.workload}: {name}: {reason}")
        running.pop(name).close()

    def _prepare(self, workload: Workload, row: Row, running: dict[str, SystemProcess]) -> None:
        found: dict[str, list[dict[str, Any]]] = {}
        for name, process in list(running.items()):
            answer = process.ask("prepare", workload=workload.name)
            if "results" not in answer:
                self._drop(row, running, name, answer.get("failed") or answer.get("missing") or "no answer")
                continue
            found[name] = answer["results"]
            row.first_s[name] = answer["first_s"]
            row.peak_bytes[name] = answer["peak_bytes"]
            row.setting[name] = answer["setting"]
        judge = next((name for name in JUDGES if name in found), None)
        for name in found:
            if judge is not None and (text := disagreement(workload, found[name], found[judge])):
                self._drop(row, running, name, f"differs from {judge}: {text}")

    def _turns(self, row: Row, running: dict[str, SystemProcess], machine: SystemProcess | None, warm: int) -> None:
        medians: dict[str, list[float]] = {name: [] for name in running}
        least: dict[str, float] = {}
        copies: list[float] = []
        peaks: list[float] = []
        long: set[str] = set()
        for turn in range(self.options.rounds + 1):
            seconds = self.options.seconds * (1 if turn else warm)  # the first turn warms up
            for name, process in list(running.items()):
                if name in long and len(medians[name]) >= LONG_TURNS:
                    continue
                begin = time.perf_counter()
                answer = process.ask("measure", seconds=seconds)
                if time.perf_counter() - begin > LONG_TURN + seconds:
                    long.add(name)
                if "median_s" not in answer:
                    self._drop(row, running, name, answer.get("failed") or "no answer")
                    continue
                row.peak_bytes[name] = answer["peak_bytes"]
                if turn > 0:
                    medians[name].append(answer["median_s"])
                    least[name] = min(answer["min_s"], least.get(name, math.inf))
            answer = {} if machine is None else machine.ask("measure", seconds=self.options.seconds)
            if "copy_s" in answer:
                copies.append(answer["copy_s"])
                peaks.append(answer["flops"])
        row.median_s = {name: statistics.median(medians[name]) for name in running if medians[name]}
        row.min_s = {name: least[name] for name in row.median_s}
        if copies:
            row.copy_s, row.peak_flops = statistics.median(copies), max(peaks)

    def first_steps(self, workload: Workload, threads: int) -> None:
        """The first call in fresh processes: with an empty cache folder, then with the one just filled."""
        for name in self._systems_for(workload, threads):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                for state in ("cold", "cached"):
                    with self._started([name], threads, Path(folder)) as running:
                        if name not in running:
                            break
                        answer = running[name].ask("prepare", workload=workload.name)
                    if "first_s" not in answer:
                        self.note(f"first step of {workload.name}: {name}: {answer.get('failed', 'no answer')}")
                        break
                    self.results.first_steps.setdefault(workload.name, {}).setdefault(name, {})[state] = answer[
                        "first_s"
                    ]

    def busy_core(self, workload: Workload, threads: int) -> None:
        """How many times longer a call takes while another process keeps the last of its CPUs busy, in turns with
        calls that have them for themselves.
        """
        held = cpus(threads)
        if len(held) < max(2, threads):
            self.note(f"busy core: {len(held)} CPUs are too few for {threads} threads")
            return
        names = [name for name in self._systems_for(workload, threads) if name in BUSY_SYSTEMS]
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            self._started(names, threads, Path(folder)) as running,
        ):
            for name, process in running.items():
                answers = [process.ask("prepare", workload=workload.name)]
                for _ in range(self.options.rounds + 1):
                    answers.append(process.ask("measure", seconds=self.options.seconds))
                    with busy(held[-1]):
                        answers.append(process.ask("measure", seconds=self.options.seconds))
                if failed := next((answer["failed"] for answer in answers if "failed" in answer), None):
                    self.note(f"busy core, {workload.name}: {name}: {failed}")
                    continue
                # The first pair warms up.
                alone, beside = ([a["median_s"] for a in answers[first::2]] for first in (3, 4))
                slowdown = statistics.median(beside) / statistics.median(alone)
                self.results.busy_core.setdefault(workload.name, {})[name] = slowdown

    def imports(self) -> None:
        """What importing each library costs once NumPy is there, in turns."""
        found: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for _ in range(self.options.rounds):
                for name in [name for name in self.options.systems if name in IMPORTS]:
                    code = f"import time, numpy\nt = time.perf_counter()\nimport {IMPORTS[name]}\n"
                    code += "print(time.perf_counter() - t)"
                    command = [interpreter(name, self.options.peer_python), "-c", code]
                    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": self.options.timeout}
                    try:
                        done = subprocess.run(command, env=environment(1, Path(folder)), **options)
                    except subprocess.TimeoutExpired:
                        continue
                    if done.returncode == 0:
                        found.setdefault(name, []).append(float(done.stdout.split()[-1]))
        self.results.imports = {name: statistics.median(times) for name, times in found.items()}


def disagreement(workload: Workload, found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> str:
    """How a system's results differ from another's; empty when they agree."""
    if len(found) != len(wanted):
        return f"{len(found)} results instead of {len(wanted)}"
    pairs = list(zip(found, wanted, strict=True))
    # AdamW divides a gradient by its size: where one should be zero, its rounding error decides. Losses are the check.
    if workload.network is not None and workload.training and workload.network.optimizer == "adamw":
        pairs = pairs[:1]
    for place, (a, b) in enumerate(pairs):
        # Losses agree closely; how weights moved is what is left of a difference.
        moved = workload.training and place > 0
        tolerance = 20 * workload.tolerance if moved else workload.tolerance
        if text := difference(a, b, tolerance, workload.random, moved):
            return f"result {place}: {text}"
    return ""
