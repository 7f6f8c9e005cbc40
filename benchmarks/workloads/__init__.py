"""All workloads by name, in the order of the report."""

from __future__ import annotations

from benchmarks.workload import Workload
from benchmarks.workloads import (
    convolutions,
    elementwise,
    loops,
    on_cuda,
    overheads,
    products,
    programs,
    rows,
    training,
)


def workloads(tiny: bool = False, device: str = "cpu") -> dict[str, Workload]:
    """All workloads of a device; `tiny` makes them small enough for tests, under the same names."""
    families = (
        (on_cuda,)
        if device == "cuda"
        else (training, elementwise, rows, products, convolutions, loops, programs, overheads)
    )
    made = [workload for family in families for workload in family.workloads(tiny)]
    by_name = {workload.name: workload for workload in made}
    assert len(by_name) == len(made), "two workloads have one name"
    return by_name
