"""The benchmark does what it says. Its numbers are not looked at: tests never judge times."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("jax", "tinygrad", "torch") if importlib.util.find_spec(name) is None]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "lenet.py"), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "runtime")))},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_systems_take_turns_agree_and_are_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    peers = ["graphc", "graphc-compiled", *MISSING[:1]]
    quick = ("--batches", "2,3", "--threads", "1", "--rounds", "1", "--seconds", "0.01", "--first-batch", "2")
    done = run("--peers", ",".join(peers), *quick, "--json", "--markdown", str(page))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["disagreements"] == []
    assert list(result["left_out"]) == MISSING[:1]
    for batch in ("2", "3"):
        measured = result["steps"]["1"][batch]
        assert set(measured) == {"graphc", "graphc-compiled"}
        assert all(0 < numbers["min_s"] <= numbers["median_s"] for numbers in measured.values())
    assert set(result["first"]["graphc-compiled"]) == {"import", "cold", "cached"}
    assert result["peaks"]["1"]["graphc"] > 10_000_000
    text = page.read_text()
    assert "| graphc-compiled |" in text and "### 1 thread\n" in text and result["machine"]["processor"] in text
    assert all(f"Left out: {name} (" in text for name in MISSING[:1])


def test_wrong_arguments() -> None:
    for arguments, message in (
        (("--peers", "pytorch"), "no system pytorch; there are graphc, graphc-compiled, torch"),
        (("--batches", "4,0"), "numbers must be positive"),
        (("--rounds", "0"), "--rounds and --sync-every must be positive"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and message in done.stderr
