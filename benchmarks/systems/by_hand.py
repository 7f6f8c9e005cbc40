"""LeNet's training step in C with vectors by hand, built by clang: what a patient programmer reaches on one thread."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System
from benchmarks.systems.clang import compiler
from benchmarks.workload import Arrays, Workload

SOURCE = Path(__file__).with_name("lenet_by_hand.c")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")


class ByHand(System):
    """No library: one function, built for this machine."""

    def start(self, threads: int) -> str:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "lenet_by_hand.so"
            subprocess.run([*compiler(), *FLAGS, SOURCE, "-o", library], check=True, capture_output=True)
            self.step = ctypes.CDLL(str(library)).lenet_step
        pointer = ctypes.c_void_p
        self.step.argtypes = [pointer, pointer, pointer, ctypes.c_int, ctypes.c_float]
        self.step.restype = ctypes.c_float
        return "1"

    def settings(self, workload: Workload) -> list[str]:
        return [" ".join(("clang", *FLAGS[:3]))]

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        network, arrays = workload.network, workload.inputs()
        assert network is not None and len(arrays["x"]) % 16 == 0
        initial = network.weights()
        flat = np.concatenate([initial[name].reshape(-1) for name in network.parameters])
        x, y = np.ascontiguousarray(arrays["x"]), np.ascontiguousarray(arrays["y"], np.int64)

        def step() -> float:
            return self.step(flat.ctypes.data, x.ctypes.data, y.ctypes.data, len(x), network.rate)

        def weights() -> Arrays:
            shapes = [parameter.shape for parameter in network.parameters.values()]
            ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
            parts = zip(network.parameters, np.split(flat.copy(), ends), shapes, strict=True)
            return {name: part.reshape(shape) for name, part, shape in parts}

        return Prepared(step, lambda loss: None, lambda loss: [np.array(loss, np.float32)], weights)
