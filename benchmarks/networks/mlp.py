"""A perceptron of three linear layers: 784-512-512-10."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.networks import parts
from benchmarks.workload import Arrays, Network

LAYERS = ("0", "2", "4")


def _jax(j: Any, w: dict[str, Any], x: Any, training: bool) -> Any:
    for name in LAYERS[:-1]:
        x = j.nn.relu(parts.jax_linear(w, name, x))
    return parts.jax_linear(w, LAYERS[-1], x), {}


def _tinygrad(tg: Any, w: dict[str, Any], x: Any) -> Any:
    for name in LAYERS[:-1]:
        x = parts.tinygrad_linear(w, name, x).relu()
    return parts.tinygrad_linear(w, LAYERS[-1], x)


def _numpy(w: Arrays, x: np.ndarray) -> np.ndarray:
    for name in LAYERS:
        x = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        x = x if name == LAYERS[-1] else np.maximum(x, 0, out=x)
    return x


def mlp(inputs: int = 784, hidden: int = 512) -> Network:
    """The network; the sizes may be made smaller for tests."""

    def module(lib: Any) -> Any:
        nn = lib.nn
        first, second, last = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 10)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def samples(rng: np.random.Generator, batch: int) -> Arrays:
        return {"x": rng.standard_normal((batch, inputs), np.float32), "y": rng.integers(0, 10, batch)}

    sizes = ((inputs, hidden), (hidden, hidden), (hidden, 10))
    layers = [parts.linear(name, *size) for name, size in zip(LAYERS, sizes, strict=True)]
    return Network(
        name="mlp",
        parameters={name: p for layer in layers for name, p in layer.items()},
        module=module,
        jax=_jax,
        tinygrad=_tinygrad,
        numpy=_numpy,
        samples=samples,
        forward_flops=lambda batch: 2.0 * batch * sum(a * b for a, b in sizes),
        first_flops=lambda batch: 2.0 * batch * inputs * hidden,
    )
