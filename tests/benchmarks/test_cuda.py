"""What is measured on CUDA devices, as far as no device is needed: forms, names, the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from benchmarks import cuda_report, cuda_resources
from benchmarks.results import Results, Row
from benchmarks.systems import system
from benchmarks.workload import CUDA_SYSTEMS, HALVES, Workload
from benchmarks.workloads import workloads
from graphc.codegen.cuda import build
from graphc.codegen.cuda.facts import cuda_target
from graphc.errors import CompileError
from tests.architecture.sources import run_python

TINY = workloads(tiny=True, device="cuda")


@pytest.mark.parametrize("name", [name for name, w in TINY.items() if w.cupy is not None])
def test_forms_agree(name: str) -> None:
    """NumPy stands in for CuPy, the CPU for the device."""
    workload = TINY[name]
    one = system("graphc-compiled")
    one.start(graphc.get_num_threads())
    ready = one.prepare(workload, workload.form("graphc-compiled"), "")
    with ready.context():
        (found,) = ready.arrays(ready.call())
    form: Any = workload.cupy
    close = workload.tolerance if workload.dtype in HALVES else 1e-4
    np.testing.assert_allclose(found, form(np, *workload.inputs().values()), rtol=close, atol=close)


def test_every_system_has_its_work() -> None:
    every = workloads(device="cuda")
    assert {f"lenet-train-b{batch}" for batch in (4, 64, 512, 4096)} <= set(every)
    assert {f"matmul-{kind}-n{n}" for kind in ("f32", "tf32", "f16", "bf16") for n in (512, 8192)} <= set(every)
    for name, workload in every.items():
        assert workload.form("graphc") is not None and workload.form("by-hand") is None
        mixed = workload.network is not None and workload.dtype == "bf16"  # autocast: PyTorch's alone
        peers = {peer for peer in CUDA_SYSTEMS if workload.form(peer) is not None}
        assert peers >= set(CUDA_SYSTEMS) - ({"jax", "cupy"} if mixed else {"cupy"}), name
        assert ("cupy" in peers) == (workload.network is None and workload.dtype != "bf16"), name
        assert ("jax" in peers) != mixed, name
        assert workload.flops > 0 and workload.bytes > 0


def test_names_of_the_command() -> None:
    names = run_python("-m", "benchmarks", "--device", "cuda", "--list").stdout.split()
    assert names == [*workloads(device="cuda"), "first-step"]


def _row(workload: Workload, ours: float, peer: float) -> Row:
    row = Row(workload.name, workload.section, 1, workload.dtype, workload.flops, workload.bytes, revision="commit 1")
    row.median_s = {"graphc-compiled": ours, "torch": peer, "torch-graphs": peer / 2}
    row.copy_s, row.peak_flops = workload.bytes / 3e12, 5e13
    return row


def test_page(tmp_path: Path) -> None:
    every = workloads(device="cuda")
    machine = {"processor": "P", "cores": 2, "system": "S", "python": "3", "revision": "commit 1"}
    machine |= {"card": "NVIDIA X", "driver": "580.1", "memory": "80 MiB", "clock": "1 MHz"}
    results = Results(machine, {"rounds": 1, "seconds": 0.1}, versions={"torch": "2", "torch-graphs": "2"})
    results.rows = [_row(every["sum"], 4e-4, 8e-4), _row(every["matmul-bf16-n8192"], 4e-2, 2e-2)]
    results.rows[1].failures = {"jax": "no memory"}
    results.first_steps = {"lenet-train-b64": {"graphc-compiled": {"cold": 4.0, "cached": 0.2}}}
    cuda_report.write(results, tmp_path)
    text = (tmp_path / "benchmarks-cuda.md").read_text()
    assert "Card: NVIDIA X, 80 MiB, 1 MHz; driver 580.1." in text and "3,000 GB/s read and written by a copy" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| sum ") and "memory" in line]
    # 1.07 GB at 3 TB/s take 358 of 400 us.
    assert [cell.strip() for cell in line.strip("|").split("|")][-5:] == ["1.00", "2.00", "memory", "89 %", "89 %"]
    assert "- pointwise and reductions, of a plain copy, 90 %: sum/1 89 %." in text
    assert "- products in f32 and bf16, to PyTorch (cuBLAS), 0.80: matmul-bf16-n8192/1 0.50." in text
    assert "- first LeNet step, empty cache, 3 s: lenet-train-b64 4 s." in text
    assert "- matmul-bf16-n8192, jax: no memory" in text


@pytest.mark.parametrize("name", TINY)
def test_programs_are_found_without_a_device(name: str) -> None:
    workload = TINY[name]
    graph, donated = cuda_resources.program_of(workload)
    operators = {node.op for node in graph.nodes}
    if workload.network is not None:
        assert donated and "contract" in operators, "weights are overwritten"
    elif name.startswith("matmul"):
        assert [node.type.dtype.name for node in graph.inputs] == [workload.dtype.replace("tf32", "f32")] * 2
        assert "contract" in operators
    else:
        assert len(graph.inputs) == len(workload.inputs())


def test_page_of_resources() -> None:
    try:
        build.compiler()
    except CompileError as error:
        pytest.skip(str(error))
    names = ("lenet-train-b2", "softmax", "matmul-bf16-n16")
    rows = [cuda_resources.row_of(TINY[name], cuda_target("sm_90")) for name in names]
    for row in rows:
        assert row.launches >= row.kernels >= 1 and 0 < row.registers <= 255 and row.shared >= 0
        assert row.flops > 0 and row.bytes > 0 and row.least_s > 0
    assert rows[1].launches == 1 and rows[1].bytes == rows[1].workload.bytes, "rows are read once"
    text = cuda_resources.page(rows, "sm_90")
    for name, shown in zip(names, ("-", "1.00", "1.00"), strict=True):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} ")]
        assert [cell.strip() for cell in line.split("|")][10] == shown
