"""Kernels over long vectors: elementwise chains, and reductions to one number."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from benchmarks.workload import Workload, normal, uniform

SECTION = "Vectors of 16 M floats"
KEPT = 0.9
# PyTorch adds up long dot products and norms in float32 with an error of several parts in ten thousand.
ACCUMULATED = 2e-3


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2)))


@functools.cache
def _generator() -> np.random.Generator:
    return np.random.default_rng(7)  # not the seed of the numbers that it drops


def _numpy_dropout(x: np.ndarray, key: np.ndarray) -> np.ndarray:
    return x * (_generator().random(x.shape, np.float32) < KEPT) * np.float32(1 / KEPT)


def _jax_dropout(j: Any, x: Any, key: Any) -> Any:
    # An argument, so that XLA does not draw the mask when it compiles.
    key = key.astype(j.np.uint32)
    return j.np.where(j.jax.random.bernoulli(key, KEPT, x.shape), x / KEPT, 0)


def workloads(tiny: bool) -> list[Workload]:
    """Elementwise work, reductions and dropout."""
    n = 1000 if tiny else 1 << 24
    return [
        Workload(
            name="chain",
            section=SECTION,
            inputs=lambda: {"a": normal(1, n), "b": normal(2, n), "c": normal(3, n)},
            flops=10.0 * n,
            bytes=16.0 * n,
            torch=lambda t, a, b, c: t.F.relu(a * b + c) * t.torch.sigmoid(a - b) + 0.5 * c,
            jax=lambda j, a, b, c: j.nn.relu(a * b + c) * j.nn.sigmoid(a - b) + 0.5 * c,
            tinygrad=lambda tg, a, b, c: (a * b + c).relu() * (a - b).sigmoid() + 0.5 * c,
            numpy=lambda a, b, c: np.maximum(a * b + c, 0) * _sigmoid(a - b) + np.float32(0.5) * c,
            numexpr="where(a * b + c > 0, a * b + c, zero) / (one + exp(b - a)) + half * c",
            tolerance=1e-5,
        ),
        Workload(
            name="gelu",
            section=SECTION,
            inputs=lambda: {"x": normal(1, n)},
            flops=5.0 * n,
            bytes=8.0 * n,
            torch=lambda t, x: t.F.gelu(x),
            jax=lambda j, x: j.nn.gelu(x, approximate=False),
            tinygrad=lambda tg, x: 0.5 * x * (1 + (x * math.sqrt(0.5)).erf()),
            reference=_gelu,
            tolerance=1e-5,
        ),
        Workload(
            name="sum",
            section=SECTION,
            inputs=lambda: {"x": uniform(1, n)},
            flops=1.0 * n,
            bytes=4.0 * n,
            torch=lambda t, x: x.sum(),
            jax=lambda j, x: x.sum(),
            tinygrad=lambda tg, x: x.sum(),
            numpy=lambda x: x.sum(),
            numexpr="sum(x)",
        ),
        Workload(
            name="dot",
            section=SECTION,
            inputs=lambda: {"a": uniform(1, n), "b": uniform(2, n)},
            flops=2.0 * n,
            bytes=8.0 * n,
            torch=lambda t, a, b: t.torch.dot(a, b),
            jax=lambda j, a, b: j.np.dot(a, b),
            tinygrad=lambda tg, a, b: (a * b).sum(),
            numpy=np.dot,
            numexpr="sum(a * b)",
            tolerance=ACCUMULATED,
        ),
        Workload(
            name="norm",
            section=SECTION,
            inputs=lambda: {"x": normal(1, n)},
            flops=2.0 * n,
            bytes=4.0 * n,
            torch=lambda t, x: t.torch.linalg.vector_norm(x),
            jax=lambda j, x: j.np.linalg.norm(x),
            tinygrad=lambda tg, x: (x * x).sum().sqrt(),
            numpy=np.linalg.norm,
            tolerance=ACCUMULATED,
        ),
        Workload(
            name="dropout",
            section=SECTION,
            inputs=lambda: {"x": uniform(1, n) + np.float32(0.1), "key": np.array([1, 2])},
            flops=2.0 * n,
            bytes=8.0 * n,
            torch=lambda t, x, key: t.F.dropout(x, 1 - KEPT),
            jax=_jax_dropout,
            tinygrad=lambda tg, x, key: x.dropout(1 - KEPT),
            numpy=_numpy_dropout,
            tolerance=0.1 if tiny else 0.01,
            random=True,
        ),
    ]
