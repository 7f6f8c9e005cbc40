"""Long loops keep memory flat: training steps, plain and compiled, and a metric that is never looked at."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import psutil
import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.native.library import library

ALLOWED_BYTES = 1 << 20


@pytest.fixture(autouse=True)
def native_code_is_there() -> None:
    """It is made once for each cache, in the background, and takes some megabytes: not while a loop is watched."""
    library()


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def growth(step: Callable[[], object], warm: int, count: int) -> int:
    """How many bytes the process grew by over `count` steps, after `warm` steps have filled pools and caches."""
    for _ in range(warm):
        step()
    before = resident()
    for _ in range(count):
        step()
    return resident() - before


def training_step(compiled: bool) -> Callable[[], object]:
    """One step of a small convolutional network, its loss observed every time."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    optimizer = optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((16, 1, 8, 8)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 10, 16))

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step) if compiled else step
    return lambda: run().item()


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_training_steps(compiled: bool) -> None:
    assert growth(training_step(compiled), 300, 700) <= ALLOWED_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_ten_thousand_training_steps(compiled: bool) -> None:
    assert growth(training_step(compiled), 1_000, 10_000) <= ALLOWED_BYTES


WARM = 60_000  # turns until every call of the longest round has its place in the table of calls


def accumulate(turns: int) -> tuple[int, float]:
    """`total = total + x` for so many turns with nothing observed until the end; the growth and the sum."""
    x = torch.ones(8)
    total = torch.zeros(8)

    def turn() -> None:
        nonlocal total
        total = total + x

    grown = growth(turn, WARM, turns)
    return grown, total.sum().item()


def test_an_unobserved_sum() -> None:
    grown, total = accumulate(40_000)
    assert total == 8 * (WARM + 40_000)
    assert grown <= 4 * ALLOWED_BYTES  # a part of the recorded operations is always waiting


@pytest.mark.slow
def test_a_million_turns() -> None:
    grown, total = accumulate(1_000_000)
    assert total == 8 * (WARM + 1_000_000)
    assert grown <= 4 * ALLOWED_BYTES
