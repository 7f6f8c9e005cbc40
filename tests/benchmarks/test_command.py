"""The benchmark does what it says. Its numbers are not looked at: tests never judge times."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

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
