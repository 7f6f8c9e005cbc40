"""What a run has found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workload import BY_HAND, OURS


@dataclass
class Row:
    """One workload with one number of threads; everything by system, in seconds and bytes.

    `failures` says why a system has no time: it failed, or its result differs from the others'. `copy_s` is what a
    plain copy of the workload's bytes took, `peak_flops` what the machine reached, both between the systems' turns.
    `revision` is that of graphc and the day.
    """

    workload: str
    section: str
    threads: int
    dtype: str
    flops: float
    bytes: float
    median_s: dict[str, float] = field(default_factory=dict)
    min_s: dict[str, float] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    setting: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    copy_s: float = 0.0
    peak_flops: float = 0.0
    revision: str = ""

    def peers(self) -> dict[str, float]:
        """The medians of the other systems, without the yardstick."""
        return {name: time for name, time in self.median_s.items() if name not in (*OURS, BY_HAND)}

    def best_peer(self) -> str | None:
        """The fastest of them."""
        peers = self.peers()
        return min(peers, key=lambda name: peers[name]) if peers else None

    def ours(self) -> str | None:
        """The fastest form of graphc."""
        names = [name for name in OURS if name in self.median_s]
        return min(names, key=lambda name: self.median_s[name]) if names else None

    def faster(self, name: str | None, other: str | None) -> float | None:
        """How many times faster a system is than another one."""
        if name not in self.median_s or other not in self.median_s:
            return None
        return self.median_s[other] / self.median_s[name]

    def bound(self) -> tuple[float, str]:
        """The least time by the roofline, and whether arithmetic or memory sets it; (0, "") where neither is known."""
        arithmetic = self.flops / self.peak_flops if self.peak_flops > 0 else 0.0
        memory = self.copy_s if self.bytes > 0 and self.copy_s > 0 else 0.0
        if max(arithmetic, memory) == 0:
            return 0.0, ""
        return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")

    def share(self, name: str | None) -> float | None:
        """The least time by the roofline over the time of a system."""
        least, _ = self.bound()
        return least / self.median_s[name] if name in self.median_s and least > 0 else None


@dataclass
class Results:
    """Everything that a run has found; `first_steps[workload][system]` has "cold" and "cached", `imports[system]` the
    seconds that an import takes once NumPy is there, `busy_core[workload][system]` how many times longer a call takes
    while another process computes on one of the CPUs.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    first_steps: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    imports: dict[str, float] = field(default_factory=dict)
    busy_core: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Results:
        """Results from the JSON that a run wrote; ValueError when it is something else."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "rows": [Row(**row) for row in fields["rows"]]})
        except (TypeError, KeyError) as error:
            raise ValueError(f"these are no results of this benchmark: {error}") from error

    def add(self, row: Row) -> None:
        """A row, instead of an older one of the same workload and threads."""
        key = (row.workload, row.threads)
        at = next((i for i, old in enumerate(self.rows) if (old.workload, old.threads) == key), None)
        if at is None:
            self.rows.append(row)
        else:
            self.rows[at] = row

    def sections(self) -> list[str]:
        """The sections that have rows, in their order."""
        return list(dict.fromkeys(row.section for row in self.rows))

    def ours_failed(self) -> list[str]:
        """What graphc could not do or did wrongly."""
        return [
            f"{row.workload}, threads {row.threads}: {name}: {reason}"
            for row in self.rows
            for name, reason in row.failures.items()
            if name in OURS
        ]
