"""Matrix products of all shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Workload, normal

SECTION = "Matrix products"
CLOSE = {"f32": 1e-4, "f64": 1e-10, "bf16": 3e-2}


def _pair(a: tuple[int, ...], b: tuple[int, ...], dtype: Any = np.float32) -> Callable[[], Arrays]:
    return lambda: {"a": normal(1, *a, dtype=dtype), "b": normal(2, *b, dtype=dtype)}


def _product(name: str, a: tuple[int, ...], b: tuple[int, ...], dtype: str = "f32", form: str = "nn") -> Workload:
    """A product of operands with those shapes; `form` says which of them are transposed ("t")."""
    type_ = np.float64 if dtype == "f64" else np.float32
    itemsize = 2 if dtype == "bf16" else type_().itemsize
    left, right = (axis == "t" for axis in form)
    rows, inner = a[-2:] if not left else a[:-3:-1]
    columns = b[-2] if right else b[-1]
    count = int(np.prod(a[:-2], dtype=np.int64))

    def compute(_: Any, x: Any, y: Any) -> Any:
        return (x.T if left else x) @ (y.T if right else y)

    return Workload(
        name=name,
        section=SECTION,
        inputs=_pair(a, b, type_),
        flops=2.0 * count * rows * inner * columns,
        bytes=itemsize * float(count) * (rows * inner + inner * columns + rows * columns),
        torch=compute,
        jax=compute,
        tinygrad=None if dtype == "bf16" else compute,
        numpy=None if dtype == "bf16" else lambda x, y: compute(None, x, y),
        reference=lambda x, y: compute(None, x, y),
        dtype=dtype,
        tolerance=CLOSE[dtype],
    )


def _epilogue(n: int) -> Workload:
    def inputs() -> Arrays:
        return {"x": normal(1, n, n), "w": normal(2, n, n) * np.float32(n**-0.5), "b": normal(3, n)}

    def reference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        y = x @ w.T + b
        return 0.5 * y * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))

    return Workload(
        name="matmul-bias-gelu",
        section=SECTION,
        inputs=inputs,
        flops=2.0 * n**3 + 10.0 * n * n,
        bytes=4.0 * (3 * n * n + n),
        torch=lambda t, x, w, b: t.F.gelu(t.F.linear(x, w, b), approximate="tanh"),
        jax=lambda j, x, w, b: j.nn.gelu(x @ w.T + b, approximate=True),
        tinygrad=lambda tg, x, w, b: x.linear(w.transpose(), b).gelu(),
        numpy=reference,
    )


def workloads(tiny: bool) -> list[Workload]:
    """Square products in all precisions, then the other shapes and forms."""
    sizes = (4,) if tiny else (16, 32, 64, 128, 256, 512, 1024, 2048)
    long, short, deep, n = (16, 4, 4, 8) if tiny else (4096, 64, 128, 512)
    made = [_product(f"matmul-{dtype}-n{m}", (m, m), (m, m), dtype) for dtype in CLOSE for m in sizes]
    return [
        *made,
        _product("matmul-tall", (long, short), (short, short)),
        _product("matmul-flat", (short, long), (long, short)),
        _product("matmul-batched", (2 if tiny else 32, deep, deep), (2 if tiny else 32, deep, deep)),
        _epilogue(n),
        _product("matmul-tn", (n, n), (n, n), form="tn"),
        _product("matmul-nt", (n, n), (n, n), form="nt"),
        _product("matmul-tt", (n, n), (n, n), form="tt"),
    ]
