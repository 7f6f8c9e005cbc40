"""What the processes of the benchmark are given."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks import processes


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
