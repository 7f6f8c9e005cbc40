"""What the benchmark runs on a CUDA device, made tiny: graphc's results there are those on the CPU."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from benchmarks.session import disagreement
from benchmarks.systems import system
from benchmarks.worker import check, loop
from benchmarks.workload import Workload
from benchmarks.workloads import workloads
from tests.cuda.machine import Machine

TINY = workloads(tiny=True, device="cuda")


def computed(name: str, workload: Workload, device: str) -> list[dict[str, Any]]:
    one = system(name, device)
    one.start(graphc.get_num_threads())
    ready = one.prepare(workload, workload.form(name), one.settings(workload)[0])
    before = None if ready.weights is None else ready.weights()
    with ready.context():
        found = check(ready, before, ready.call())
    loop(ready, 2)(3)
    return found


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("form", [pytest.param("graphc", marks=pytest.mark.slow), "graphc-compiled"])
def test_the_device_agrees(cuda: Machine, name: str, form: str) -> None:
    try:
        found = computed(form, TINY[name], "cuda")
    finally:
        graphc.set_float32_matmul_precision("highest")
    assert disagreement(TINY[name], found, computed("graphc-compiled", TINY[name], "cpu")) == ""
