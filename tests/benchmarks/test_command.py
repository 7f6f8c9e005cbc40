"""The benchmark does what it says. Its numbers are not looked at: tests never judge times."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.processes import NO_ANSWER, SystemProcess
from benchmarks.results import Results
from benchmarks.session import Options, Session
from benchmarks.workloads import workloads
from tests.architecture.sources import run_python

MISSING = [name for name in ("jax", "tinygrad", "torch") if importlib.util.find_spec(name) is None]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "benchmarks", *arguments)


def test_systems_take_turns_agree_and_are_reported(tmp_path: Path) -> None:
    systems = ["graphc-compiled", "numpy", *MISSING[:1]]
    quick = ("--tiny", "--quick", "--threads", "1", "--seconds", "0.01", "--peers", ",".join(systems))
    files = ("--output", str(tmp_path), "--json", str(tmp_path / "results.json"))
    done = run("--only", "mlp-infer-*", "sum", "import", *quick, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "results.json").read_text())
    assert list(result["left_out"]) == MISSING[:1]
    assert [row["workload"] for row in result["rows"]] == ["mlp-infer-b3", "sum"]
    for row in result["rows"]:
        assert not row["failures"]
        assert set(row["median_s"]) == {"graphc-compiled", "numpy"}
        assert all(0 < row["min_s"][name] <= time for name, time in row["median_s"].items())
        assert row["peak_bytes"]["graphc-compiled"] > 10_000_000 and row["copy_s"] > 0 and row["peak_flops"] > 1e8
    assert all(seconds > 0 for seconds in result["imports"].values())
    text = (tmp_path / "benchmarks.md").read_text()
    assert "### Networks, 1 thread\n" in text and "| mlp-infer-b3 |" in text and result["machine"]["processor"] in text
    assert all(f"Left out: {name} (" in text for name in MISSING[:1])
    for section in ("networks", "vectors-of-16-m-floats"):
        assert f"plots/{section}-ratio.svg" in text
        assert (tmp_path / "plots" / f"{section}-ratio.svg").read_text().startswith("<svg ")


def test_who_starts_too_slowly_fails_at_that_workload_only() -> None:
    options = Options(systems=["numpy"], rounds=1, seconds=0.01, timeout=1e-6, peer_python=sys.executable, tiny=True)
    results, notes = Results({"revision": "of this test"}, {}), list[str]()
    (row,) = Session(options, results, notes.append).measure(workloads(True, "cpu")["sum"], [1])
    assert list(row.failures) == ["numpy"] and row.failures["numpy"].startswith(NO_ANSWER)
    assert not row.median_s and not results.left_out
    assert notes == [f"sum: numpy: {row.failures['numpy']}"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_who_is_not_asked_is_stopped_and_ends_with_its_parent(tmp_path: Path) -> None:
    def becomes(process: int, *states: str) -> bool:
        stat = Path(f"/proc/{process}/stat")
        for _ in range(400):
            if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in states:
                return True
            time.sleep(0.02)
        return False

    system = SystemProcess("numpy", 1, sys.executable, tmp_path, timeout=60, tiny=True)
    try:
        assert "version" in system.ask("start") and becomes(system.process.pid, "T")
        assert "first_s" in system.ask("prepare", workload="sum") and becomes(system.process.pid, "T")
    finally:
        system.close()
    assert system.process.returncode == 0

    code = f"""
import os, signal, sys
from pathlib import Path
from benchmarks.processes import NO_ANSWER, SystemProcess
from benchmarks.results import Results
from benchmarks.session import Options, Session
from benchmarks.workloads import workloads
system = SystemProcess("numpy", 1, sys.executable, Path({str(tmp_path)!r}), timeout=60, tiny=True)
system.ask("start")
print(system.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    left = int(run_python("-c", code).stdout)
    if not becomes(left, "Z"):
        os.kill(left, signal.SIGKILL)
        pytest.fail("a stopped process outlived its parent")


def test_wrong_arguments() -> None:
    for arguments, message in (
        (("--peers", "pytorch"), "no system pytorch; there are graphc, graphc-compiled, torch"),
        (("--threads", "4,0"), "numbers must be positive"),
        (("--rounds", "0"), "--rounds must be positive"),
        (("--only", "no-such-*"), "no workload no-such-*; --list prints their names"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and message in done.stderr


def test_list_prints_names() -> None:
    names = run("--list").stdout.split()
    assert {"lenet-train-b64", "resnet18-train-b16", "matmul-f64-n2048", "conv-depthwise-b16-grad", "import"} <= {
        *names
    }
