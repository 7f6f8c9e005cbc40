"""Kernels over the rows of a matrix, sorting, and rows picked by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.networks.parts import jax_layer_norm
from benchmarks.workload import Arrays, Workload, normal

SECTION = "Rows of 4096x1024, sorting, embedding"


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _layer_norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w + b


def _simple(rows: int, width: int) -> list[Workload]:
    """Those that take the matrix alone: name, arithmetic and written elements an element, then the forms."""

    def inputs() -> Arrays:
        return {"x": normal(1, rows, width)}

    row, column = 1 / width, 1 / rows
    forms: list[tuple[str, float, float, Any, Any, Any, Any]] = [
        (
            "softmax", 5, 1,
            lambda t, x: t.F.softmax(x, -1), lambda j, x: j.nn.softmax(x), lambda tg, x: x.softmax(), _softmax,
        ),
        (
            "log-softmax", 5, 1,
            lambda t, x: t.F.log_softmax(x, -1), lambda j, x: j.nn.log_softmax(x), lambda tg, x: x.log_softmax(),
            _log_softmax,
        ),
        (
            "column-sum", 1, column,
            lambda t, x: x.sum(0), lambda j, x: x.sum(0), lambda tg, x: x.sum(axis=0), lambda x: x.sum(0),
        ),
        (
            "transpose", 0, 1,
            lambda t, x: x.t().contiguous(), lambda j, x: x.T, lambda tg, x: x.transpose().contiguous(),
            lambda x: np.ascontiguousarray(x.T),
        ),
        (
            "cumsum", 1, 1,
            lambda t, x: x.cumsum(1), lambda j, x: x.cumsum(1), lambda tg, x: x.cumsum(1), lambda x: x.cumsum(1),
        ),
        (
            "argmax", 1, 2 * row,
            lambda t, x: x.argmax(1), lambda j, x: x.argmax(1), lambda tg, x: x.argmax(1), lambda x: x.argmax(1),
        ),
    ]  # fmt: skip
    count = rows * width
    return [
        Workload(
            name=name,
            section=SECTION,
            inputs=inputs,
            flops=float(work * count),
            bytes=4.0 * count * (1 + written),
            torch=torch,
            jax=jax,
            tinygrad=tinygrad,
            numpy=numpy,
            tolerance=1e-9 if name in ("argmax", "transpose") else 1e-4,
        )
        for name, work, written, torch, jax, tinygrad, numpy in forms
    ]


def _layer_norms(rows: int, width: int) -> list[Workload]:
    def inputs() -> Arrays:
        return {"x": normal(1, rows, width), "w": normal(2, width), "b": normal(3, width)}

    def torch(t: Any, x: Any, w: Any, b: Any) -> Any:
        return t.F.layer_norm(x, (width,), w, b)

    def tinygrad(tg: Any, x: Any, w: Any, b: Any) -> Any:
        return x.layernorm(eps=1e-5) * w + b

    count = float(rows * width)
    forward = Workload(
        name="layer-norm",
        section=SECTION,
        inputs=inputs,
        flops=8 * count,
        bytes=8 * count,
        torch=torch,
        jax=jax_layer_norm,
        tinygrad=tinygrad,
        numpy=_layer_norm,
    )
    gradient = Workload(
        name="layer-norm-grad",
        section=SECTION,
        inputs=lambda: {**inputs(), "g": normal(4, rows, width)},
        flops=24 * count,
        bytes=16 * count,
        torch=torch,
        jax=jax_layer_norm,
        tinygrad=tinygrad,
        numpy=_layer_norm,
        gradients=("x", "w", "b"),
        tolerance=1e-3,
    )
    return [forward, gradient]


def _embeddings(words: int, width: int, tokens: int) -> list[Workload]:
    def inputs() -> Arrays:
        return {"table": normal(1, words, width), "places": np.random.default_rng(2).integers(0, words, tokens)}

    def torch(t: Any, table: Any, places: Any) -> Any:
        return t.F.embedding(places, table)

    picked = 4.0 * tokens * width
    forms: dict[str, Any] = {
        "section": SECTION,
        "torch": torch,
        "jax": lambda j, table, places: table[places],
        "tinygrad": lambda tg, table, places: table[places],
        "numpy": lambda table, places: table[places],
    }
    return [
        Workload(name="embedding", inputs=inputs, flops=0.0, bytes=2 * picked + 8.0 * tokens, **forms),
        Workload(
            name="embedding-grad",
            inputs=lambda: {**inputs(), "g": normal(3, tokens, width)},
            flops=float(tokens * width),
            # Rows picked and written, the cotangent read, and a whole table written.
            bytes=3 * picked + 8.0 * tokens + 4.0 * words * width,
            gradients=("table",),
            **forms,
        ),
    ]


def workloads(tiny: bool) -> list[Workload]:
    """Row kernels, a sort, embeddings."""
    rows, width = (8, 16) if tiny else (4096, 1024)
    n = 100 if tiny else 1_000_000
    sort = Workload(
        name="sort",
        section=SECTION,
        inputs=lambda: {"x": normal(1, n)},
        flops=n * float(np.log2(n)),
        # PyTorch's sort also gives the places, as int64.
        bytes=16.0 * n,
        torch=lambda t, x: t.torch.sort(x).values,
        jax=lambda j, x: j.np.sort(x),
        tinygrad=lambda tg, x: x.sort()[0],
        numpy=np.sort,
        tolerance=1e-9,
    )
    embeddings = _embeddings(*((11, 4, 6) if tiny else (32768, 256, 8192)))
    return [*_simple(rows, width), *_layer_norms(rows, width), sort, *embeddings]
