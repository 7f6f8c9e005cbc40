"""What the compiler says of the kernels of the CUDA benchmarks; no GPU is needed, only NVRTC or nvcc.

    python -m benchmarks.cuda_resources                        all workloads, into docs/cuda-resources.md
    python -m benchmarks.cuda_resources --only 'lenet-*'       some, to standard output

Every workload is captured as `graphc.compile` does it, with programs that compute nothing, and built for the
architecture: registers, spills and shared memory are the compiler's (`ptxas -v`), arithmetic and traffic the programs'
own counts.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import graphc
from benchmarks.processes import ROOT
from benchmarks.report import number, table
from benchmarks.systems.torch_like import TorchLike
from benchmarks.workload import Workload
from benchmarks.workloads import workloads
from graphc import programs
from graphc.codegen.cuda import build
from graphc.codegen.cuda.facts import cuda_target
from graphc.codegen.cuda.program import combined_steps, program_unit
from graphc.codegen.target import Target
from graphc.ir.graph import Graph
from graphc.memory import allocate_all
from graphc.options import scope
from graphc.pipeline import build_program
from graphc.recording import Recorder, using

PAGE = ROOT / "docs" / "cuda-resources.md"
CALLS = 3  # the first of a training step makes the optimizer's state
# The H200's: "NVIDIA H200 Tensor Core GPU" datasheet, without sparsity; bytes and operations a second.
MEMORY = 4.8e12
PEAK = {"f32": 67e12, "tf32": 494e12, "f16": 989e12, "bf16": 989e12}


@dataclass(frozen=True)
class Row:
    """A workload's program: launches, what its kernels take, and what they do."""

    workload: Workload
    launches: int
    kernels: int
    registers: int  # of the kernel that has most
    spilling: int  # kernels
    spilled: int  # bytes of the kernel that spills most
    shared: int  # bytes of the block that has most
    flops: float
    bytes: float
    least_s: float  # on an H200: of each launch its arithmetic or its traffic, whichever takes longer


class _Blank:
    """Stands where a compiled program does; its results are zeros."""

    def __init__(self, graph: Graph) -> None:
        self._types = [node.type for node in graph.outputs]
        self.output_aliases = (-1,) * len(self._types)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        made = allocate_all("cpu", self._types)
        self.launch(inputs, made)
        return made

    def launch(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        for buffer in outputs:
            buffer.array[:] = 0


def program_of(workload: Workload) -> tuple[Graph, frozenset[int]]:
    """The graph of the longest program that a call of the workload runs, and which inputs it may overwrite."""
    found: list[tuple[Graph, frozenset[int]]] = []

    def kept(graph: Graph, donate: Any = (), device: str = "cpu") -> _Blank:
        found.append((graph, frozenset(donate)))
        return _Blank(graph)

    compiles = mock.patch.object(graphc.compiled, "compile_graph", kept)
    forgets = mock.patch.object(programs, "_executables", OrderedDict())
    with compiles, forgets, scope(interpret=False), using(Recorder()):
        system = TorchLike("graphc", compiled=True)
        system.start(1)
        prepared = system.prepare(workload, workload.form("graphc-compiled"), "")
        with prepared.context():
            for _ in range(CALLS):
                prepared.wait(prepared.call())
    return max(reversed(found), key=lambda pair: sum(node.op != "input" for node in pair[0].nodes))


def row_of(workload: Workload, target: Target) -> Row:
    """What the compiler says of a workload. CompileError when there is no CUDA compiler."""
    target = replace(target, tf32=workload.dtype == "tf32")
    graph, donated = program_of(workload)
    program = build_program(graph, donated, target)
    steps = [done for done in combined_steps(program, target) if done.symbol]
    report = build.resource_report(program_unit(program, target), target)
    records = [done.record for done in steps]
    peak = PEAK[workload.dtype]
    return Row(
        workload,
        launches=len(steps),
        kernels=len(report),
        registers=max(taken.registers for taken in report.values()),
        spilling=sum(taken.spilled > 0 for taken in report.values()),
        spilled=max(taken.spilled for taken in report.values()),
        shared=max(done.shared + report[done.symbol].shared for done in steps),
        flops=sum(record.flops for record in records),
        bytes=sum(record.bytes for record in records),
        least_s=sum(max(record.flops / peak, record.bytes / MEMORY) for record in records),
    )


def page(rows: Sequence[Row], arch: str) -> str:
    """The report in Markdown."""
    header = [
        *("workload", "launches", "kernels", "registers", "spill", "spilled, bytes", "shared, KiB", "GFLOP", "MB"),
        *("MB to the least", "µs at least"),
    ]
    lines = [
        [
            *(row.workload.name, str(row.launches), str(row.kernels), str(row.registers), str(row.spilling)),
            *(str(row.spilled), number(row.shared / 1024), number(row.flops / 1e9), number(row.bytes / 1e6)),
            "-" if row.workload.network else number(row.bytes / row.workload.bytes),
            number(row.least_s * 1e6),
        ]
        for row in rows
    ]
    parts = [
        "# Kernels of the GPU benchmarks, as the compiler sees them",
        "Written by `make cuda-resources`, which needs no GPU: the programs of "
        f"[benchmarks-cuda.md](benchmarks-cuda.md) for {arch}, built by {build.compiler_version()}, "
        f"graphc {graphc.__version__}.",
        "Registers of a thread and shared memory of a block are those of the kernel that has most; `spill` counts "
        "the kernels that spill registers (where that makes room for one more block, ptxas may spill a few bytes of "
        "its own accord). GFLOP and MB are what the program's launches do, read and write by its own count; of "
        "single functions it is told how much more that is than inputs read once and results written once. The last "
        "column is what the launches take at least on an H200, each as long as its arithmetic or its traffic at the "
        "peaks of the datasheet (4.8 TB/s; 67 TFLOP/s in f32, 494 in TF32, 989 in f16 and bf16), without what "
        "starting them costs: no measurement.",
        table(header, lines),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda_resources",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="workloads, also as patterns, to standard output")
    parser.add_argument("--arch", default="sm_90", help="the architecture (sm_90)")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: to see that everything works")
    chosen = parser.parse_args()
    every = workloads(chosen.tiny, "cuda")
    names = [n for n in every if not chosen.only or any(fnmatch.fnmatchcase(n, pattern) for pattern in chosen.only)]
    if not names:
        parser.error(f"no workload {' '.join(chosen.only)}; there are {', '.join(every)}")
    target = cuda_target(chosen.arch)
    text = page([row_of(every[name], target) for name in names], chosen.arch)
    if chosen.only or chosen.tiny:
        print(text, end="")
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
