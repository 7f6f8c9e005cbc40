"""JAX: everything under `jit`, a training step's weights and optimizer state donated."""

from __future__ import annotations

import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from benchmarks.systems.base import Prepared, System, several
from benchmarks.workload import HALVES, Arrays, Network, Workload

BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01


class Lib:
    """The modules that JAX forms are written in."""

    def __init__(self) -> None:
        self.jax: Any = importlib.import_module("jax")
        self.np: Any = importlib.import_module("jax.numpy")
        self.nn: Any = importlib.import_module("jax.nn")
        self.lax: Any = importlib.import_module("jax.lax")


def _updated(lib: Lib, network: Network, state: dict[str, Any], gradients: dict[str, Any]) -> dict[str, Any]:
    """Parameters and optimizer state after a step of plain SGD or of AdamW (I. Loshchilov and F. Hutter, 2017)."""
    w, rate = state["weights"], network.rate
    if network.optimizer == "sgd":
        return {"weights": {name: w[name] - rate * gradients[name] for name in w}}
    count = state["count"] + 1
    first = {name: BETAS[0] * m + (1 - BETAS[0]) * gradients[name] for name, m in state["first"].items()}
    second = {name: BETAS[1] * v + (1 - BETAS[1]) * gradients[name] ** 2 for name, v in state["second"].items()}
    grown = [1 - beta**count for beta in BETAS]
    weights = {
        name: w[name] * (1 - rate * DECAY)
        - rate * (first[name] / grown[0]) / (lib.np.sqrt(second[name] / grown[1]) + EPSILON)
        for name in w
    }
    return {"weights": weights, "first": first, "second": second, "count": count}


class Jax(System):
    """The CPU back end; its threads are held by the process's CPUs and by XLA's flag."""

    half = ""  # what the operands of a product are converted to

    def start(self, threads: int) -> str:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
        self.lib = Lib()
        return self.lib.jax.__version__

    def settings(self, workload: Workload) -> list[str]:
        return ["jit, donated state" if workload.training else "jit"]

    def prepare(self, workload: Workload, form: Any, setting: str) -> Prepared:
        lib, jax = self.lib, self.lib.jax
        if workload.dtype == "f64":
            jax.config.update("jax_enable_x64", True)
        self.half = HALVES.get(workload.dtype, "")
        arrays, cotangent = workload.operands()
        operands = {name: self._array(array) for name, array in arrays.items()}
        if workload.network is not None:
            return self._network(workload.network, workload.training, form, operands)
        values = tuple(operands.values())
        if cotangent is None:
            function = jax.jit(lambda *values: form(lib, *values))
            return self._prepared(partial(function, *values))
        g = self._array(cotangent)
        places = [list(operands).index(name) for name in workload.gradients]

        @jax.jit
        def both(values: tuple[Any, ...], g: Any) -> Any:
            def of_some(*some: Any) -> Any:
                whole = list(values)
                for place, value in zip(places, some, strict=True):
                    whole[place] = value
                return form(lib, *whole)

            result, pull = jax.vjp(of_some, *(values[place] for place in places))
            return (result, *pull(g))

        return self._prepared(partial(both, values, g))

    def _array(self, array: np.ndarray) -> Any:
        made = self.lib.np.asarray(array.astype(np.int32) if array.dtype == np.int64 else array)
        return made.astype(self.half) if self.half and array.dtype == np.float32 else made

    def _prepared(self, call: Any, weights: Any = None) -> Prepared:
        def wait(results: Any) -> None:
            self.lib.jax.block_until_ready(results)

        def arrays(results: Any) -> list[np.ndarray]:
            found = [np.asarray(r) for r in several(results)]
            return [a.astype(np.float32) if a.dtype.itemsize == 2 else a for a in found]

        return Prepared(call, wait, arrays, weights)

    def _network(self, network: Network, training: bool, form: Any, operands: dict[str, Any]) -> Prepared:
        lib, jax, jnp = self.lib, self.lib.jax, self.lib.np
        drawn = {name: jnp.asarray(array) for name, array in network.weights().items()}
        x, y = operands["x"], operands["y"]
        if not training:
            infer = jax.jit(lambda w, x: form(lib, w, x, False)[0])
            return self._prepared(partial(infer, drawn, x))
        weights = {name: drawn[name] for name in network.parameters}
        state: dict[str, Any] = {"weights": weights}
        if network.optimizer == "adamw":
            for moment in ("first", "second"):
                state[moment] = {name: jnp.zeros_like(w) for name, w in weights.items()}
            state["count"] = jnp.zeros((), jnp.float32)
        held = {"state": state, "buffers": {name: drawn[name] for name in network.buffers}}

        def loss_of(w: dict[str, Any], buffers: dict[str, Any], x: Any, y: Any) -> Any:
            logits, changed = form(lib, {**w, **buffers}, x, True)
            picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1)
            return -jnp.mean(picked), {**buffers, **changed}

        def train(held: dict[str, Any], x: Any, y: Any) -> Any:
            state, buffers = held["state"], held["buffers"]
            derive = jax.value_and_grad(loss_of, has_aux=True)
            (loss, changed), gradients = derive(state["weights"], buffers, x, y)
            return {"state": _updated(lib, network, state, gradients), "buffers": changed}, loss

        step = jax.jit(train, donate_argnums=(0,))

        def call() -> Any:
            nonlocal held
            held, loss = step(held, x, y)
            return loss

        def now() -> Arrays:
            return {name: np.array(w) for name, w in held["state"]["weights"].items()}

        return self._prepared(call, now)
