"""What this process may use of its machine: cores and memory, after affinity masks, control groups and resource
limits.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_NONE = 1 << 62


def cpu_count() -> int:
    """Cores that this process may use: its affinity mask, cut by the quota of its control group (rounded up)."""
    cores, quota = len(affinity()), core_quota()
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def affinity() -> tuple[int, ...]:
    """Numbers of the cores in this process's affinity mask; of all cores where there is none."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def core_quota() -> float | None:
    """How many cores' time this process's control group may use, or None: any."""
    quotas = [_quota(folder) for folder in _group_folders("cpu")]
    return min((quota / period for quota, period in quotas if quota > 0 and period > 0), default=None)


def memory_quota() -> int | None:
    """How many bytes this process's control group may have, or None: any."""
    values = [
        _read(folder / name) for folder in _group_folders("memory") for name in ("memory.max", "memory.limit_in_bytes")
    ]
    # Version one writes nearly 2**63 for no limit.
    return min((int(value) for value in values if value.isdigit() and int(value) < _NONE), default=None)


def memory_limit() -> int:
    """Bytes that this process can ever have: physical memory and swap, cut by its control group and RLIMIT_AS."""
    limit = _physical()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    quota = memory_quota()
    return limit if quota is None else min(limit, quota)


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
