"""Programs on the CUDA devices of a test: compiled past every cache, run on copies of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphc.codegen.cuda.program import combined_steps, make_device_artifact
from graphc.compiled import target_of
from graphc.ir.graph import Graph
from graphc.pipeline import build_program
from graphc_runtime.buffer import Buffer
from graphc_runtime.devices.cuda import cuda_device
from graphc_runtime.executor import Executable
from tests.codegen.programs import buffers, results
from tests.cuda.driver import ShimDriver


class ShimCompiler:
    """Takes the place of NVRTC: the code of a unit is its text (the protocol `cuda.build.Compiler`)."""

    version = "host shim"
    workers = 1

    def compile(self, unit: str, arch: str, to_ptx: bool, options: Sequence[str]) -> tuple[bytes, str]:
        return unit.encode(), ""


class Machine:
    """cuda:0, cuda:1, ...: those of the shim's `driver`, or of the machine when it is None."""

    def __init__(self, driver: ShimDriver | None) -> None:
        self.driver = driver

    def executable(self, graph: Graph, donated: Iterable[int] = ()) -> Executable:
        """Code for `graph` on cuda:0, built anew. A checked driver is told how large the parameters of kernels are."""
        target = target_of("cuda:0")
        program = build_program(graph, frozenset(donated), target)
        if self.driver is not None:
            for step in combined_steps(program, target):
                params = [p for work in step.works if work.kernel is not None for p in work.kernel.params]
                self.driver.extents[step.symbol] = [(p.name, p.size * p.dtype.itemsize) for p in params]
        return Executable(make_device_artifact(program, target, {}), cuda_device(0))

    def run(self, graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `graph` gives on cuda:0 for copies of `arrays`."""
        return self.call(self.executable(graph), graph, arrays)

    def call(self, executable: Executable, graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `executable`, made for `graph`, gives for copies of `arrays`."""
        device = cuda_device(0)
        given = [device.upload(b) for b in buffers(arrays)]
        made: list[Buffer] = [device.download(b) for b in executable.run(given)]
        return results(graph, made)
