"""Random functions, compiled and plain: arguments that share memory, views, writes, results that are views.

Both run the same calls on tensors of their own; afterwards all memory and all results must be the same, and results
must share memory with the same tensors.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as torch
from tests.frontend.histories import check_history

WIDTH = 6
Step = Callable[[list[Any]], None]


def _steps(draw: random.Random, count: int) -> list[Step]:
    """Statements over a list of variables of two dimensions; each adds a variable, or writes to one."""
    made: list[Step] = []
    for _ in range(count):
        i, j, kind = draw.randrange(64), draw.randrange(64), draw.randrange(13)
        start, size = draw.randrange(3), draw.randrange(1, 4)
        number = draw.choice([0.5, 2.0, -1.0])

        def step(
            v: list[Any],
            i: int = i,
            j: int = j,
            kind: int = kind,
            start: int = start,
            size: int = size,
            number: float = number,
        ) -> None:
            x, y = v[i % len(v)], v[j % len(v)]
            if kind == 0:
                v.append(x * number + 1)
            elif kind == 1:
                v.append(x.t())
            elif kind in (2, 3):
                v.append(x[start : start + size])
            elif kind == 4:
                v.append(x[:, start : start + size])
            elif kind == 5:
                v.append(x.reshape(-1, 1))
            elif kind == 6:
                v.append(x.sum(1, keepdim=True) - y.mean())
            elif kind == 7:
                x.add_(number)
            elif kind == 8:
                x.mul_(y.sum().tanh())
            elif kind == 9:
                x[start % max(1, len(x)) : start + 1] = number
            elif kind == 10:
                v.append(x.clone())
            elif kind == 11:
                x.sum().item()  # a look: such a call is not captured
            else:
                v.append(x.unsqueeze(0)[0])

        made.append(step)
    return made


def _tensors(draw: random.Random, bases: Sequence[Any]) -> list[Any]:
    """Arguments: tensors and views of them."""
    made: list[Any] = []
    count = draw.randrange(1, 4)
    chosen = draw.choices(bases, k=count) if draw.random() < 0.3 else draw.sample(bases, count)
    for base in chosen:
        kind, start = draw.randrange(12), draw.randrange(3)
        if kind < 9:
            made.append(base)
        elif kind == 9:
            made.append(base[start : start + 3])
        elif kind == 10:
            made.append(base.chunk(3, dim=1)[start])
        else:
            made.append(base.t())
    return made


def _memory(tensor: Any, bases: Sequence[Any]) -> list[bool]:
    """Which tensors a result shares memory with."""
    array = tensor.numpy()
    return [np.shares_memory(array, base.numpy()) for base in bases]


def _history(seed: int, compiled: bool) -> list[Any]:
    """What a random function leaves behind in some calls."""
    draw = random.Random(seed)
    bases = [torch.arange(float(WIDTH * WIDTH)).reshape(WIDTH, WIDTH).clone() + 100 * i for i in range(3)]
    reached = bases[2] if draw.random() < 0.3 else None  # the function reads it besides its arguments
    steps, picks = _steps(draw, draw.randrange(1, 7)), [draw.randrange(64) for _ in range(draw.randrange(1, 4))]

    def function(*args: Any) -> tuple[Any, ...]:
        v = list(args) if reached is None else [*args, reached]
        for step in steps:
            step(v)
        return tuple(v[p % len(v)] for p in picks)

    patterns = [draw.randrange(1 << 30) for _ in range(2)]
    call = torch.compile(function) if compiled else function
    seen: list[Any] = []
    for turn in range(7):
        args = _tensors(random.Random(patterns[turn // 4]), bases)  # three calls of one kind are replayed natively
        try:
            results = call(*args)
        except RuntimeError as error:
            seen.append(type(error))
            continue
        for result in results:
            seen.append((result.shape, result.stride(), _memory(result, bases), [any(result is a for a in args)]))
            seen.append(result.numpy().copy())
            result.mul_(0.5)
        seen += [base.numpy().copy() for base in bases]
        del results, args
    return seen


@pytest.mark.parametrize("part", range(4))
def test_compiled_functions_do_what_plain_ones_do(part: int) -> None:
    for seed in range(part * 12, part * 12 + 12):
        check_history(_history, seed, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_compiled_functions_do_what_plain_ones_do(part: int) -> None:
    for seed in range(1000 + part * 100, 1100 + part * 100):
        check_history(_history, seed, 1e-5)
