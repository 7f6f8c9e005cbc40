"""NumPy, and numexpr over NumPy's arrays."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System, several
from benchmarks.workload import Workload


def _prepared(call: Callable[[], Any]) -> Prepared:
    return Prepared(call, lambda results: None, lambda results: [np.asarray(r) for r in several(results)])


class NumPy(System):
    """NumPy; its matrix library takes the number of threads from the environment."""

    def start(self, threads: int) -> str:
        return np.__version__

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        if workload.network is not None:
            weights, x = workload.network.weights(), workload.inputs()["x"]
            return _prepared(partial(form, weights, x))
        operands = tuple(workload.inputs().values())
        return _prepared(partial(form, *operands))


class Numexpr(System):
    """numexpr: the expression is compiled at the first call and evaluated anew by the others."""

    def start(self, threads: int) -> str:
        self.numexpr: Any = importlib.import_module("numexpr")
        self.numexpr.set_num_threads(threads)
        return self.numexpr.__version__

    def settings(self, workload: Workload) -> list[str]:
        return ["re_evaluate"]

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        # Constants as numbers would make the expression float64.
        numbers = {"zero": np.float32(0), "half": np.float32(0.5), "one": np.float32(1)}
        names = {**workload.inputs(), **numbers}
        self.numexpr.evaluate(form, local_dict=names, global_dict={})
        return _prepared(partial(self.numexpr.re_evaluate, local_dict=names))
