"""Small programs as people write them with PyTorch, without compiling: numbers that change in every turn, looks that
decide what comes next, parts that are read and written, sizes that are always others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workload import Arrays, Workload, normal, uniform
from benchmarks.workloads.program import program
from benchmarks.workloads.settings import annealing, sweep
from benchmarks.workloads.sizes import experts, graphs, lengths


def _suppression(count: int) -> Workload:
    """Boxes that overlap one with a better score are dropped, one after the other."""

    def inputs() -> Arrays:
        corners = uniform(1, count, 2)
        high = corners + 0.1 + 0.1 * uniform(2, count, 2)
        return {"boxes": np.concatenate([corners, high], 1).astype(np.float32)}

    def torch(t: Any, boxes: Any) -> Any:
        low, high = t.torch.maximum(boxes[:, None, :2], boxes[:, :2]), t.torch.minimum(boxes[:, None, 2:], boxes[:, 2:])
        shared = (high - low).clamp(min=0).prod(2)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        overlaps = shared > 0.5 * (area[:, None] + area - shared)
        keep = t.torch.ones(count, dtype=t.torch.bool)
        for i in range(count):
            if keep[i]:
                keep[i + 1 :] &= ~overlaps[i, i + 1 :]
        return keep.float()

    def numpy(boxes: np.ndarray) -> np.ndarray:
        low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
        shared = np.maximum(high - low, 0).prod(2)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        overlaps = shared > 0.5 * (area[:, None] + area - shared)
        keep = np.ones(count, bool)
        for i in range(count):
            if keep[i]:
                keep[i + 1 :] &= ~overlaps[i, i + 1 :]
        return keep.astype(np.float32)

    return program("suppression", inputs, torch, numpy, 12.0 * count**2, 20.0 * count)


def _q_learning(states: int, actions: int, turns: int) -> Workload:
    """A table of values is learnt from rewards: what is best is looked for in each turn."""
    rng = np.random.default_rng(3)
    ways, rewards = rng.integers(states, size=turns).tolist(), rng.random(turns).tolist()
    explores = [
        int(a) if r < 0.1 else -1 for r, a in zip(rng.random(turns), rng.integers(actions, size=turns), strict=True)
    ]

    def learn(table: Any) -> Any:
        state = 0
        for way, reward, explored in zip(ways, rewards, explores, strict=True):
            action = explored if explored >= 0 else int(table[state].argmax())
            table[state, action] += 0.1 * (reward + 0.9 * table[way].max() - table[state, action])
            state = way
        return table

    return program(
        "q-learning",
        lambda: {"table": np.zeros((states, actions), np.float32)},
        lambda t, table: learn(table.clone()),
        lambda table: learn(table.copy()),
        (2.0 * actions + 4) * turns,
        8.0 * states * actions,
    )


def _bandit(arms: int, turns: int) -> Workload:
    """The arm with the highest bound is pulled (P. Auer et al., 2002)."""
    rewards = np.random.default_rng(4).random((turns, arms)).tolist()

    def pull(means: Any, root: Any) -> Any:
        counts, sums = means * 0 + 1, means * 1
        for turn in range(turns):
            bounds = sums / counts + root(2 * math.log(turn + 1) / counts)
            arm = int(bounds.argmax())
            counts[arm] += 1
            sums[arm] += 0.1 * rewards[turn][arm]
        return counts

    return program(
        "bandit",
        lambda: {"means": uniform(5, arms)},
        lambda t, means: pull(means, t.torch.sqrt),
        lambda means: pull(means, np.sqrt),
        4.0 * arms * turns,
        8.0 * arms,
    )


def _oscillator(size: int, turns: int) -> Workload:
    """A driven linear system by Runge and Kutta's method."""

    def integrate(a: Any, y: Any) -> Any:
        def slope(time: float, y: Any) -> Any:
            return a @ y + math.sin(time)

        time, step = 0.0, 0.01
        for _ in range(turns):
            k1 = slope(time, y)
            k2 = slope(time + step / 2, y + step / 2 * k1)
            k3 = slope(time + step / 2, y + step / 2 * k2)
            k4 = slope(time + step, y + step * k3)
            y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            time += step
        return y

    return program(
        "oscillator",
        lambda: {"a": normal(6, size, size) * np.float32(0.1), "y": normal(7, size)},
        lambda t, a, y: integrate(a, y),
        integrate,
        turns * (8.0 * size**2 + 16 * size),
        4.0 * size**2,
    )


def _adam(size: int, turns: int) -> Workload:
    """Adam's steps written by hand, with a look at the loss of each."""

    def descend(x: Any, root: Any) -> Any:
        w, m, v = x * 0, x * 0, x * 0
        for turn in range(1, turns + 1):
            g = 2 * (w - x)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.01 * (m / (1 - 0.9**turn)) / (root(v / (1 - 0.999**turn)) + 1e-8)
            if float(((w - x) ** 2).sum()) < 1e-6:
                break
        return w

    return program(
        "adam",
        lambda: {"x": normal(8, size)},
        lambda t, x: descend(x, t.torch.sqrt),
        lambda x: descend(x, np.sqrt),
        20.0 * size * turns,
        8.0 * size,
    )


def _denoising(count: int, width: int, turns: int) -> Workload:
    """Points are denoised step by step by a small network that knows the time (J. Song et al., 2021)."""
    kept = np.cumprod(1 - np.linspace(1e-4, 2e-2, turns)).tolist()

    def denoise(x: Any, w1: Any, w2: Any, full: Any, join: Any, tanh: Any) -> Any:
        for turn in reversed(range(turns)):
            time = full((count, 1), turn / turns)
            noise = tanh(join([x, time], 1) @ w1) @ w2
            before = kept[turn - 1] if turn else 1.0
            clean = (x - math.sqrt(1 - kept[turn]) * noise) / math.sqrt(kept[turn])
            x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
        return x

    return program(
        "denoising",
        lambda: {"x": normal(9, count, 2), "w1": normal(10, 3, width), "w2": normal(11, width, 2) / np.float32(width)},
        lambda t, x, w1, w2: denoise(x, w1, w2, t.torch.full, t.torch.cat, t.torch.tanh),
        lambda x, w1, w2: denoise(
            x, w1, w2, lambda shape, value: np.full(shape, value, np.float32), np.concatenate, np.tanh
        ),
        turns * count * (10.0 * width + 12),
        8.0 * count,
    )


def _conjugate_gradients(size: int) -> Workload:
    """A system is solved until the rest is small, which is looked at in each turn."""

    def inputs() -> Arrays:
        a = normal(12, size, size)
        return {"a": a @ a.T + size * np.eye(size, dtype=np.float32), "b": np.ones(size, np.float32)}

    def solve(a: Any, b: Any) -> Any:
        x, r = b * 0, b * 1
        p, rest = r * 1, r @ r
        for _ in range(size):
            ap = a @ p
            step = rest / (p @ ap)
            x, r = x + step * p, r - step * ap
            new = r @ r
            if new < 1e-8:
                break
            p, rest = r + (new / rest) * p, new
        return x

    return program("conjugate-gradients", inputs, lambda t, a, b: solve(a, b), solve, 26.0 * size**2, 4.0 * size**2)


def _perceptron(count: int, width: int) -> Workload:
    """Weights move where a sample is on the wrong side."""

    def learn(x: Any, y: Any) -> Any:
        w, b = x[0] * 0, y[0] * 0
        for i in range(count):
            if y[i] * (x[i] @ w + b) <= 0:
                w, b = w + y[i] * x[i], b + y[i]
        return w

    return program(
        "perceptron",
        lambda: {"x": normal(13, count, width), "y": np.sign(normal(14, count))},
        lambda t, x, y: learn(x, y),
        learn,
        4.0 * count * width,
        4.0 * count * width,
    )


def _windows(size: int, count: int) -> Workload:
    """Variances of windows of ever other lengths."""

    def measure(x: Any) -> list[float]:
        found = []
        for i in range(count):
            part = x[i * 7 : i * 7 + 10 + i]
            found.append(float(((part - part.mean()) ** 2).mean()))
        return found

    return program(
        "windows",
        lambda: {"x": normal(15, size)},
        lambda t, x: t.torch.tensor(measure(x)),
        lambda x: np.array(measure(x), np.float32),
        2.0 * count**2,
        4.0 * size,
    )


def _thresholds(size: int, count: int) -> Workload:
    """Sums of what masks pick."""

    def add(x: Any) -> list[float]:
        return [float(x[x > (i - count / 2) * 0.1].sum()) for i in range(count)]

    return program(
        "thresholds",
        lambda: {"x": normal(16, size)},
        lambda t, x: t.torch.tensor(add(x)),
        lambda x: np.array(add(x), np.float32),
        2.0 * size * count,
        4.0 * size,
    )


def _blanking(batch: int, size: int, square: int) -> Workload:
    """A square of each image is blanked, at another place in each call."""
    places = np.random.default_rng(17).integers(size - square + 1, size=(64, batch, 2)).tolist()
    turn = [0]

    def blank(y: Any, here: list[list[int]]) -> Any:
        for image, (i, j) in enumerate(here):
            y[image, :, i : i + square, j : j + square] = 0
        return y.mean()

    def torch(t: Any, x: Any) -> Any:
        turn[0] = (turn[0] + 1) % len(places)
        return blank(x.clone(), places[turn[0]])

    return program(
        "blanking",
        lambda: {"x": np.ones((batch, 3, size, size), np.float32)},
        torch,
        lambda x: blank(x.copy(), places[0]),
        3.0 * batch * size**2,
        24.0 * batch * size**2,
    )


def _average(size: int, turns: int) -> Workload:
    """An average of weights is kept in place, at a rate that changes."""

    def keep(average: Any, w: Any, mix: Callable[[Any, Any, float], None]) -> Any:
        for turn in range(turns):
            mix(average, w, min(0.99, (1 + turn) / (10 + turn)))
        return average

    def torch(t: Any, average: Any, w: Any) -> Any:
        return keep(average.clone(), w, lambda a, b, rate: a.mul_(rate).add_(b, alpha=1 - rate))

    def numpy(average: np.ndarray, w: np.ndarray) -> np.ndarray:
        def mix(a: np.ndarray, b: np.ndarray, rate: float) -> None:
            a *= np.float32(rate)
            a += np.float32(1 - rate) * b

        return keep(average.copy(), w, mix)

    return program(
        "average",
        lambda: {"average": normal(18, size, size), "w": normal(19, size, size)},
        torch,
        numpy,
        3.0 * size**2 * turns,
        12.0 * size**2,
    )


def workloads(tiny: bool) -> list[Workload]:
    """Programs that nobody compiles."""
    if tiny:
        return [
            *(_suppression(12), _q_learning(5, 3, 9), _bandit(4, 9), _oscillator(3, 3), _adam(5, 4)),
            *(_denoising(4, 5, 3), _conjugate_gradients(6), _perceptron(9, 3), _windows(60, 4), _thresholds(9, 4)),
            *(
                _blanking(2, 8, 3),
                _average(4, 5),
                lengths(4, 2, 7, 4, 3),
                graphs(3, 9, 15, 4, 3),
                experts(9, 4, 3, 2),
                annealing(4, 5, 3),
                sweep((2, 3), 4, 3, 3),
            ),
        ]
    return [
        *(_suppression(200), _q_learning(50, 4, 50), _bandit(10, 100), _oscillator(4, 100), _adam(50, 50)),
        *(_denoising(128, 64, 50), _conjugate_gradients(100), _perceptron(200, 10), _windows(2000, 100)),
        *(_thresholds(500, 30), _blanking(8, 32, 8), _average(64, 50), lengths(64, 16, 200, 64, 8)),
        *(graphs(32, 60, 200, 32, 4), experts(256, 64, 8, 8)),
        *(annealing(64, 64, 20), sweep(tuple(range(8, 68, 6)), 64, 20, 20)),
    ]
