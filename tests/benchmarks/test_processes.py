"""What the processes of the benchmark are given."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import benchmarks.session
from benchmarks import processes
from benchmarks.results import Results
from benchmarks.session import Options, Session
from benchmarks.worker import settle
from benchmarks.workloads import workloads


def test_first_steps_and_imports_find_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they do where a library was installed; reading the source instead takes as long as compiling a network."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in processes.environment(1, tmp_path)
    for folder in ("graphc", "runtime/graphc_runtime", "benchmarks"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "made.py").write_text("x = 1\n")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    processes.write_bytecode()
    for folder in ("graphc", "runtime/graphc_runtime", "benchmarks"):
        assert Path(importlib.util.cache_from_source(tmp_path / folder / "made.py")).exists()


@pytest.mark.skipif(len(processes.cpus(2)) < 2, reason="needs two CPUs")
def test_a_step_is_measured_beside_a_busy_cpu() -> None:
    told: list[str] = []
    machine = {"revision": "commit 1"}
    session = Session(
        Options(["graphc-compiled", "numpy"], rounds=1, seconds=0.01, peer_python=sys.executable, tiny=True),
        Results(machine, {}),
        told.append,
    )
    workload = workloads(tiny=True)["mlp-train-b3"]
    session.busy_core(workload, 2)
    assert told == [] and set(session.results.busy_core[workload.name]) == {"graphc-compiled"}
    assert session.results.busy_core[workload.name]["graphc-compiled"] > 0
    session.busy_core(workload, 10_000)
    assert len(told) == 1 and "too few for 10000 threads" in told[0]


def test_who_gives_no_answer_is_not_asked_again_and_caches_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, Path]] = []
    silent = {"failed": f"{processes.NO_ANSWER} 600 s"}

    class Process(processes.SystemProcess):
        def __init__(self, name: str, threads: int, python: str, cache: Path, *rest: Any) -> None:
            super().__init__(name, threads, python, cache, *rest)
            asked.append((name, threads, cache))

        def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
            return silent if (self.name, do) == ("numpy", "measure") else super().ask(do, **arguments)

    monkeypatch.setattr(benchmarks.session, "SystemProcess", Process)
    session = Session(
        Options(["graphc-compiled", "numpy"], rounds=1, seconds=0.01, peer_python=sys.executable, tiny=True),
        Results({"revision": "commit 1"}, {}),
        lambda text: None,
    )
    workload = workloads(tiny=True)["sum"]
    first, second = session.measure(workload, (1, 2))
    assert [(name, threads) for name, threads, _ in asked if name != "machine"] == [
        ("graphc-compiled", 1),
        ("numpy", 1),
        ("graphc-compiled", 2),
    ]
    assert len({cache for _, _, cache in asked}) == 1
    assert first.failures == second.failures == {"numpy": silent["failed"]}
    assert set(first.first_s) == {"graphc-compiled", "numpy"} and not second.first_s
    assert first.median_s.keys() == second.median_s.keys() == {"graphc-compiled"}


@pytest.mark.skipif(len(processes.cpus(2)) < 2, reason="needs two CPUs")
def test_a_busy_cpu_is_busy_while_it_is_asked_for() -> None:
    def spent(cpu: int) -> float:
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name == f"cpu{cpu}":
                return int(ticks[0]) + int(ticks[1])  # user and nice, in ticks
        raise AssertionError(f"no CPU {cpu}")

    cpu = processes.cpus(2)[-1]
    with processes.busy(cpu):
        before = spent(cpu)
        time.sleep(0.5)
        assert spent(cpu) > before


def test_settling_waits_for_work_in_the_background() -> None:
    ended: list[float] = []

    def work() -> None:
        while time.thread_time() < 0.4:
            pass
        ended.append(time.process_time())

    thread = threading.Thread(target=work)
    thread.start()
    settle()
    assert ended
    thread.join()
