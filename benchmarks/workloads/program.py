"""What programs that nobody compiles have in common."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.workload import LONG_WARM, Arrays, Form, Workload

SECTION = "Programs"


def program(
    name: str, inputs: Callable[[], Arrays], torch: Form, reference: Form, flops: float, nbytes: float
) -> Workload:
    return Workload(
        name=f"program-{name}",
        section=SECTION,
        inputs=inputs,
        flops=flops,
        bytes=nbytes,
        torch=torch,
        reference=reference,
        tolerance=1e-3,
        only=("graphc", "torch"),
        warm=LONG_WARM,
    )
