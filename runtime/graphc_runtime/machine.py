"""What this process may use of its machine: cores and memory, after affinity masks, control groups and resource
limits.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Cores that this process may use: its affinity mask, cut by the quota of its control group (rounded up)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _group_folders("cpu"):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            cores = min(cores, max(1, -(-quota // period)))
    return max(1, cores)


def memory_limit() -> int:
    """Bytes that this process can ever have: physical memory and swap, cut by its control group and RLIMIT_AS."""
    limit = _physical()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    for folder in _group_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _read(folder / name)
            if value.isdigit():
                limit = min(limit, int(value))
    return limit


def _physical() -> int:
    total = 0
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "SwapTotal"):
            total += int(rest.split()[0]) * 1024
    return total or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _quota(folder: Path) -> tuple[int, int]:
    """(quota, period) in microseconds; (0, 0) when there is none."""
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
        return int(words[0]), int(words[1])
    return 0, 0


def _group_folders(controller: str) -> Iterator[Path]:
    """The folders of this process's control group and its parents, for both versions of the interface."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        names, _, path = line.partition(":")[2].partition(":")
        if not names:
            root = _GROUPS
        elif controller in names.split(","):
            root = _GROUPS / controller
        else:
            continue
        yield root
        folder = root
        for part in Path(path.lstrip("/")).parts:
            folder = folder / part
            yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
