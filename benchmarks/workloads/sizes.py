"""Small programs of which each turn has other sizes: texts of any length, graphs, rows that go to experts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Workload, normal
from benchmarks.workloads.program import program


def lengths(texts: int, batch: int, words: int, width: int, classes: int) -> Workload:
    """A classifier of texts with attention learns from batches that all have other lengths."""
    rng = np.random.default_rng(20)
    lengths = [int(n) for n in rng.permutation(texts)]
    data = [rng.integers(words, size=(batch, 20 + n)) for n in lengths]
    labels = rng.integers(classes, size=(texts, batch))
    held: dict[str, list[tuple[Any, Any]]] = {}  # of each library
    rate = 0.1

    def torch(t: Any, *weights: Any) -> Any:
        lib, losses = t.torch, []
        functional = lib.nn.functional
        with lib.inference_mode(False), lib.enable_grad():
            if lib.__name__ not in held:
                pairs = zip(data, labels, strict=True)
                held[lib.__name__] = [(lib.tensor(x.tolist()), lib.tensor(y.tolist())) for x, y in pairs]
            learnt = [w.clone().requires_grad_() for w in weights]
            table, inner, score, outer = learnt
            optimizer = lib.optim.SGD(learnt, lr=rate)
            for x, y in held[lib.__name__]:
                seen = table[x]
                shares = ((seen @ inner).tanh() @ score).softmax(1)
                loss = functional.cross_entropy((shares[..., None] * seen).sum(1) @ outer, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return lib.tensor(losses)

    def numpy(*weights: np.ndarray) -> np.ndarray:
        table, inner, score, outer = (w.astype(np.float64) for w in weights)
        losses: list[float] = []
        for x, y in zip(data, labels, strict=True):
            seen = table[x]
            hidden = np.tanh(seen @ inner)
            shares = np.exp(hidden @ score)
            shares /= shares.sum(1, keepdims=True)
            mean = (shares[..., None] * seen).sum(1)
            slope = np.exp(mean @ outer)
            slope /= slope.sum(1, keepdims=True)
            losses.append(float(-np.log(slope[np.arange(batch), y]).mean()))
            slope[np.arange(batch), y] -= 1
            slope /= batch
            d_mean = slope @ outer.T
            d_shares = (d_mean[:, None] * seen).sum(2)
            d_score = shares * (d_shares - (shares * d_shares).sum(1, keepdims=True))
            d_inner = d_score[..., None] * score * (1 - hidden**2)
            d_seen = shares[..., None] * d_mean[:, None] + d_inner @ inner.T
            outer -= rate * mean.T @ slope
            score -= rate * (d_score[..., None] * hidden).sum((0, 1))
            inner -= rate * np.einsum("btd,bte->de", seen, d_inner)
            np.add.at(table, x, -rate * d_seen)
        return np.array(losses, np.float32)

    def inputs() -> Arrays:
        shapes = {"table": (words, width), "inner": (width, width), "score": (width,), "outer": (width, classes)}
        return {name: 0.3 * normal(21 + i, *shape) for i, (name, shape) in enumerate(shapes.items())}

    elements = sum(x.size for x in data)
    return program("lengths", inputs, torch, numpy, 6.0 * elements * width * (width + 3), 4.0 * words * width)


def graphs(count: int, nodes: int, edges: int, width: int, classes: int) -> Workload:
    """A network over graphs learns from graphs of ever other sizes, and is then told the same few as in every run."""
    made: dict[str, np.random.Generator] = {}  # of each library: all see the same sizes
    rate = 0.05

    def graph(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        n, e = int(rng.integers(nodes // 3, nodes)), int(rng.integers(edges // 3, edges))
        x = rng.standard_normal((n, width)).astype(np.float32)
        return x, rng.integers(n, size=(2, e)), rng.integers(classes, size=n)

    fixed = [graph(np.random.default_rng(40 + i)) for i in range(4)]

    def torch(t: Any, *weights: Any) -> Any:
        lib = t.torch
        functional = lib.nn.functional
        rng = made.setdefault(lib.__name__, np.random.default_rng(50))

        def trained(graphs: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
            learnt = [w.clone().requires_grad_() for w in weights]
            inner, outer = learnt
            optimizer, losses = lib.optim.SGD(learnt, lr=rate), []
            for arrays in graphs:
                x, (source, target), y = (lib.from_numpy(a) for a in arrays)
                hidden = (x @ inner).relu()
                hidden = hidden.index_add(0, target, hidden[source])
                loss = functional.cross_entropy(hidden @ outer, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return losses

        with lib.inference_mode(False), lib.enable_grad():
            trained([graph(rng) for _ in range(count)])
            return lib.tensor(trained(fixed))

    def numpy(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
        inner, outer = inner.astype(np.float64), outer.astype(np.float64)
        losses: list[float] = []
        for x, (source, target), y in fixed:
            before = x @ inner
            hidden = np.maximum(before, 0)
            summed = hidden.copy()
            np.add.at(summed, target, hidden[source])
            slope = np.exp(summed @ outer)
            slope /= slope.sum(1, keepdims=True)
            losses.append(float(-np.log(slope[np.arange(len(y)), y]).mean()))
            slope[np.arange(len(y)), y] -= 1
            d_summed = slope / len(y) @ outer.T
            d_hidden = d_summed.copy()
            np.add.at(d_hidden, source, d_summed[target])
            outer -= rate * summed.T @ (slope / len(y))
            inner -= rate * x.T @ (d_hidden * (before > 0))
        return np.array(losses, np.float32)

    def inputs() -> Arrays:
        return {"inner": 0.2 * normal(41, width, width), "outer": 0.2 * normal(42, width, classes)}

    steps = count + len(fixed)
    return program("graphs", inputs, torch, numpy, 4.0 * steps * nodes * width * (width + classes), 4.0 * width**2)


def experts(rows: int, width: int, experts: int, turns: int) -> Workload:
    """Each row goes through the expert that a gate gives it to: how many rows each one gets is always another number.
    The rows of the last turn are the same in every run.
    """
    made: dict[str, np.random.Generator] = {}
    last = normal(60, rows, width)

    def torch(t: Any, gate: Any, first: Any, second: Any) -> Any:
        lib = t.torch
        rng = made.setdefault(lib.__name__, np.random.default_rng(61))

        def given_out(given: np.ndarray) -> Any:
            x = lib.from_numpy(given)
            shares, which = (x @ gate).softmax(-1).max(-1)
            out = lib.zeros_like(x)
            for i in range(experts):
                mine = (which == i).nonzero().squeeze(1)
                if mine.numel():
                    made_by = (x[mine] @ first[i]).relu() @ second[i]
                    out.index_add_(0, mine, made_by * shares[mine, None])
            return out

        for _ in range(turns - 1):
            total = given_out(rng.standard_normal((rows, width)).astype(np.float32)).sum().item()
            assert math.isfinite(total)
        return given_out(last)

    def numpy(gate: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        x = last
        shares = np.exp(x @ gate)
        shares /= shares.sum(1, keepdims=True)
        which = shares.argmax(1)
        each = np.stack([np.maximum(x @ first[i], 0) @ second[i] for i in range(experts)])
        return each[which, np.arange(rows)] * shares.max(1)[:, None]

    def inputs() -> Arrays:
        return {
            "gate": normal(62, width, experts),
            "first": 0.1 * normal(63, experts, width, 4 * width),
            "second": 0.1 * normal(64, experts, 4 * width, width),
        }

    return program("experts", inputs, torch, numpy, 16.0 * turns * rows * width**2, 32.0 * experts * width**2)
