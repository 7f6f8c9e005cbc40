"""What the process may use: affinity, control groups of both versions, limits of memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphc_runtime import machine


def fake(monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """Let the machine's files be these."""
    monkeypatch.setattr(machine, "_read", lambda path: files.get(str(path), ""))


def test_this_machine() -> None:
    assert 1 <= machine.cpu_count() <= len(os.sched_getaffinity(0))
    assert 1 << 26 < machine.memory_limit() < 1 << 50


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("250000 100000", 3), ("5000 100000", 1), ("junk", 8)]
)
def test_quota_of_version_two(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    fake(monkeypatch, {"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/cpu.max": quota})
    assert machine.cpu_count() == cores


def test_quota_of_version_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    files = {
        "/proc/self/cgroup": "4:memory:/m\n2:cpu,cpuacct:/a",
        "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "150000",
        "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
    }
    fake(monkeypatch, files)
    assert machine.cpu_count() == 2
    fake(monkeypatch, {**files, "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1"})
    assert machine.cpu_count() == 8


def test_memory_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal:       1000 kB\nMemFree: 5 kB\nSwapTotal: 24 kB",
        "/proc/self/cgroup": "0::/a",
        "/sys/fs/cgroup/a/memory.max": "max",
    }
    fake(monkeypatch, files)
    assert machine.memory_limit() == 1024 * 1024
    fake(monkeypatch, {**files, "/sys/fs/cgroup/a/memory.max": "4096"})
    assert machine.memory_limit() == 4096


def test_limits_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, {"/proc/self/cgroup": "0::/a"})
    assert machine.core_quota() is None and machine.memory_quota() is None
    quota = {"/sys/fs/cgroup/a/cpu.max": "150000 100000", "/sys/fs/cgroup/a/memory.max": "4096"}
    fake(monkeypatch, {"/proc/self/cgroup": "0::/a", **quota})
    assert machine.core_quota() == 1.5 and machine.memory_quota() == 4096
    old = {"/proc/self/cgroup": "4:memory:/m", "/sys/fs/cgroup/memory/m/memory.limit_in_bytes": "9223372036854771712"}
    fake(monkeypatch, old)
    assert machine.memory_quota() is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 3})
    assert machine.affinity() == (2, 3, 5)


def test_missing_files_are_no_error(tmp_path: Path) -> None:
    assert machine._read(tmp_path / "none") == ""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert machine._read(tmp_path / "bytes") == ""
