"""Updates are computed apart from gradients that are never the same program again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc import apart, programs
from graphc.apart import AGAIN, MOST_NEW
from graphc.options import scope
from graphc.recording import Recorder, current, using
from tests.frontend.test_stored_parts import counted


@pytest.fixture(autouse=True)
def fresh(native: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(programs, "_variants", {})
    with scope(interpret=True):
        yield


def stepping() -> tuple[nn.Module, Callable[[int, int], float]]:
    """A small network, and what takes a step of it over x [rows, columns]."""
    graphc.manual_seed(3)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = graphc.optim.Adam(net.parameters(), 1e-2)

    def step(rows: int, columns: int) -> float:
        x = graphc.from_numpy(np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns, 1))
        loss = (net(x) - x * x).square().mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return net, step


def sizes(count: int) -> list[tuple[int, int]]:
    return [(3 + n % 7, 5 + n // 7) for n in range(count)]


def test_updates_are_the_same_program_where_gradients_never_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained() -> tuple[list[float], list[np.ndarray]]:
        with using(Recorder()):
            net, step = stepping()
            losses = [step(*size) for size in sizes(30)]
            done = counted(lambda: losses.extend(step(*size) for size in sizes(40)[30:]))
            assert (done["program_hits"] >= 10) is current().apart.is_now
            return losses, [p.detach().numpy() for p in net.parameters()]

    losses, parameters = trained()
    monkeypatch.setattr(apart, "MOST_NEW", 1 << 30)
    wanted, others = trained()
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    for p, q in zip(parameters, others, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-6)


def test_steps_of_one_size_are_one_program() -> None:
    _, step = stepping()
    for _ in range(2 * MOST_NEW):
        step(3, 5)
    assert not current().apart.is_now
    assert counted(lambda: step(3, 5))["flushes"] == 1


def test_steps_that_are_all_alike_again_become_one_program() -> None:
    _, step = stepping()
    for size in sizes(2 * MOST_NEW):
        step(*size)
    assert current().apart.is_now
    for _ in range(4):
        step(3, 5)
    assert counted(lambda: step(3, 5))["flushes"] == 2
    for _ in range(2 * AGAIN):  # its gradients become a program of their own first
        step(3, 5)
    assert not current().apart.is_now
    step(3, 5)
    assert counted(lambda: step(3, 5))["flushes"] == 1
