"""tinygrad: everything under `TinyJit`, kernels built by clang."""

from __future__ import annotations

import importlib
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System, several
from benchmarks.systems.clang import frontend
from benchmarks.workload import Arrays, Network, Workload


class Tinygrad(System):
    """Its CPU back end. The first two calls of a `TinyJit` do not replay."""

    def start(self, threads: int) -> str:
        os.environ.setdefault("DEV", "CPU")
        os.environ["CPU_COUNT"] = str(threads)
        self.folder = tempfile.TemporaryDirectory()
        os.environ["CC"] = frontend(Path(self.folder.name))
        # Newer versions read the training mode here, older ones on the class.
        os.environ["TRAINING"] = "1"
        self.tinygrad: Any = importlib.import_module("tinygrad")
        self.optim: Any = importlib.import_module("tinygrad.nn.optim")
        return importlib.import_module("importlib.metadata").version("tinygrad")

    def settings(self, workload: Workload) -> list[str]:
        return ["TinyJit"]

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        tg = self.tinygrad
        tg.Tensor.training = workload.training or workload.random
        arrays, cotangent = workload.operands()
        operands = {name: self._tensor(array) for name, array in arrays.items()}
        if workload.network is not None:
            return self._network(workload.network, workload.training, form, operands)
        values = tuple(operands.values())
        if cotangent is None:
            function = tg.TinyJit(lambda *values: form(tg, *values).realize())
            return self._prepared(partial(function, *values))
        g = self._tensor(cotangent)
        places = [list(operands).index(name) for name in workload.gradients]

        @tg.TinyJit
        def both(g: Any, *values: Any) -> Any:
            result = form(tg, *values)
            found = result.gradient(*(values[place] for place in places), gradient=g)
            tg.Tensor.realize(result, *found)
            return (result, *found)

        return self._prepared(partial(both, g, *values))

    def _tensor(self, array: np.ndarray) -> Any:
        return self.tinygrad.Tensor(array.astype(np.int32) if array.dtype == np.int64 else array).realize()

    def _prepared(self, call: Any, weights: Any = None) -> Prepared:
        device = self.tinygrad.Device[self.tinygrad.Device.DEFAULT]

        def wait(results: Any) -> None:
            device.synchronize()

        return Prepared(call, wait, lambda results: [r.numpy() for r in several(results)], weights)

    def _network(self, network: Network, training: bool, form: Any, operands: dict[str, Any]) -> Prepared:
        tg = self.tinygrad
        w = {name: tg.Tensor(array).realize() for name, array in network.weights().items()}
        x, y = operands["x"], operands["y"]
        if not training:
            infer = tg.TinyJit(lambda x: form(tg, w, x).realize())
            return self._prepared(partial(infer, x))
        rule = {"sgd": self.optim.SGD, "adamw": self.optim.AdamW}[network.optimizer]
        optimizer = rule([w[name] for name in network.parameters], lr=network.rate)
        buffers = [w[name] for name in network.buffers]

        @tg.TinyJit
        def train(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = form(tg, w, x).sparse_categorical_crossentropy(y).backward()
            # Together, so that the loss is that of the weights before the step.
            return loss.realize(*optimizer.schedule_step(), *buffers)

        def now() -> Arrays:
            return {name: w[name].numpy().copy() for name in network.parameters}

        return self._prepared(partial(train, x, y), now)
