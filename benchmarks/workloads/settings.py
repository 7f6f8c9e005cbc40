"""Small programs whose settings change: numbers that decay from turn to turn, widths of networks that are searched."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Workload, normal
from benchmarks.workloads.program import program


def annealing(rows: int, width: int, turns: int) -> Workload:
    """Noise and dropout get weaker, at rates that never come again. What is not drawn is the same in every run."""
    count: dict[str, int] = {}

    def torch(t: Any, x: Any, w: Any) -> Any:
        lib = t.torch
        functional = lib.nn.functional
        for _ in range(turns):
            turn = count[lib.__name__] = count.get(lib.__name__, 0) + 1
            rate = 0.05 + 0.9 * (turn * 0.618033988749895 % 1)
            noise = lib.empty_like(x).normal_(0.0, rate)
            kept = functional.dropout(functional.elu((x + noise) @ w, rate), rate)
            assert abs(kept.mean().item()) < 100
        return functional.elu(x @ w, 0.5)

    def numpy(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        y = x @ w
        return np.where(y > 0, y, 0.5 * np.expm1(y))

    def inputs() -> Arrays:
        return {"x": normal(70, rows, width), "w": normal(71, width, width) / np.float32(width**0.5)}

    return program("annealing", inputs, torch, numpy, 2.0 * turns * rows * width**2, 12.0 * turns * rows * width)


def sweep(widths: tuple[int, ...], rows: int, inner: int, steps: int) -> Workload:
    """Networks of several widths learn one after the other, with Adam, in the same lines."""
    x, y = normal(72, rows, inner), normal(73, rows, 1)
    first = {width: 0.3 * normal(74 + width, inner, width) for width in widths}
    second = {width: 0.3 * normal(174 + width, width, 1) for width in widths}
    rate, decay, spread, eps = 0.01, 0.9, 0.999, 1e-8

    def torch(t: Any, x: Any, y: Any) -> Any:
        lib, losses = t.torch, []
        with lib.inference_mode(False), lib.enable_grad():
            x, y = x.clone(), y.clone()
            for width in widths:
                weights = [lib.tensor(w[width]).requires_grad_() for w in (first, second)]
                optimizer = lib.optim.Adam(weights, lr=rate, betas=(decay, spread), eps=eps)
                for _ in range(steps):
                    loss = ((lib.tanh(x @ weights[0]) @ weights[1] - y) ** 2).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
        return lib.tensor(losses)

    def numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        losses: list[float] = []
        for width in widths:
            weights = [w[width].astype(np.float64) for w in (first, second)]
            means, squares = ([np.zeros_like(w) for w in weights] for _ in range(2))
            for step in range(1, steps + 1):
                hidden = np.tanh(x @ weights[0])
                rest = hidden @ weights[1] - y
                losses.append(float((rest**2).mean()))
                slope = 2 * rest / rest.size
                slopes = [x.T @ (slope @ weights[1].T * (1 - hidden**2)), hidden.T @ slope]
                for w, mean, square, g in zip(weights, means, squares, slopes, strict=True):
                    mean += (1 - decay) * (g - mean)
                    square += (1 - spread) * (g * g - square)
                    w -= rate / (1 - decay**step) * mean / (np.sqrt(square / (1 - spread**step)) + eps)
        return np.array(losses, np.float32)

    flops = 6.0 * steps * rows * (inner + 1) * sum(widths)
    return program("sweep", lambda: {"x": x, "y": y}, torch, numpy, flops, 4.0 * rows * inner)
