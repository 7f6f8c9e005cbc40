"""The Makefile: its targets, and what it says on a machine without a fitting Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

TARGETS = ("lenet", "test", "lint", "fuzz", "bench", "test-cuda", "bench-cuda", "clean")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make there, not as a part of the make that runs the tests."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"
    }
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_make_alone_lists_the_targets() -> None:
    done = make(ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for target in TARGETS:
        (line,) = [line for line in lines if line.startswith(f"make {target} ")]
        assert len(line) > 20


def test_no_python_is_a_clear_message(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = make(tmp_path, ".venv/.python", "PYTHONS=no-such-python no-such-python3.11")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer; tried: no-such-python no-such-python3.11" in done.stderr
    assert "make PYTHON=/path/to/python" in done.stderr


def test_a_python_without_venv_is_a_clear_message(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    fake.chmod(0o755)
    done = make(tmp_path, ".venv/.python", f"PYTHONS={fake}")
    assert done.returncode != 0
    assert "venv or ensurepip module is missing" in done.stderr and "python3-venv" in done.stderr


def test_ci_script_runs_everything() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text
    assert all(step in text for step in ("make test", "make lint", "tests/differential"))
