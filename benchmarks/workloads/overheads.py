"""What a call costs that computes next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import LONG_WARM, Workload

SECTION = "Overheads"
OPERATIONS = 64


def _many(x: Any) -> Any:
    for _ in range(OPERATIONS // 2):
        x = x * 0.5
        x = x + 1.0
    return x


def workloads(tiny: bool) -> list[Workload]:
    """Recording an operation, and replaying a program whose own time is a few nanoseconds."""
    return [
        Workload(
            name="record",
            section=SECTION,
            inputs=lambda: {"x": np.ones(16, np.float32)},
            flops=0.0,
            bytes=0.0,
            torch=lambda t, x: _many(x),
            numpy=lambda x: _many(x),
            per=OPERATIONS,
            observe=False,
            warm=LONG_WARM,
            only=("graphc", "torch", "numpy"),
        ),
        Workload(
            name="replay",
            section=SECTION,
            inputs=lambda: {"x": np.ones(16, np.float32)},
            flops=0.0,
            bytes=0.0,
            torch=lambda t, x: x + 1.0,
            jax=lambda j, x: x + 1.0,
            tinygrad=lambda tg, x: x + 1.0,
            numpy=lambda x: x + np.float32(1.0),
            numexpr="x + one",
        ),
    ]
