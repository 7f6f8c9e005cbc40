"""Loops that nobody looks at are computed in rounds, which are few programs; what has gradients is left whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.recording import current
from graphc.rounds import LATE, MARGIN, OFTEN, ROUND
from graphc_runtime.counters import COUNTERS
from tests.frontend.native_cases import both

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")


def compiled(run: Callable[[], object]) -> int:
    """How many programs were compiled or interpreted as one that is new."""
    before = COUNTERS.snapshot()["compiles"], COUNTERS.snapshot()["cache_hits"], FRONT.interpreted
    run()
    after = COUNTERS.snapshot()["compiles"], COUNTERS.snapshot()["cache_hits"], FRONT.interpreted
    return sum(after) - sum(before)


def iterated(turns: int) -> list[float]:
    x = torch.arange(1.0, 5.0)
    for _ in range(turns):
        f = x**3 - 2 * x - 5
        x = x - f / (3 * x**2 - 2)
    return x.tolist()


def test_a_loop_of_any_length_is_few_programs() -> None:
    for turns in (300, 500, 1000):
        found: list[float] = []
        assert compiled(lambda turns=turns, found=found: found.extend(iterated(turns))) <= 4  # type: ignore[misc]
        np.testing.assert_allclose(found, np.full(4, 2.0945515), rtol=1e-6)
    assert len(current().pending) < ROUND


def test_rounds_are_the_same_with_native_recording_and_without() -> None:
    ours, theirs = both(lambda: iterated(400))
    assert ours == theirs


def test_the_rarest_instruction_ends_rounds_of_loops_in_loops() -> None:
    """23 turns inside of 7 operations: rounds that end inside would begin at another turn each time."""

    def outer(x: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            for step in range(23):
                x = (x * 0.5 + step).sin() + x.cos() * 2
            x = x - x.mean()
        return x

    x = outer(torch.ones(4), 60)
    x.tolist()
    assert compiled(lambda: outer(x, 40)) <= 1
    want = torch.ones(4)
    for _ in range(100):
        want = outer(want, 1)
        want.tolist()
    assert outer(x, 40).tolist() == want.tolist()


def test_what_is_looked_at_stays_one_program() -> None:
    """A network without gradients is called by one instruction."""
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(2 * ROUND)))
    x = torch.ones(2, 4)
    with torch.no_grad():
        for _ in range(4):
            net(x).relu().tolist()
        before = FRONT.flushes
        net(x).relu().tolist()
    assert FRONT.flushes == before + 1


def test_training_steps_stay_one_program() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(ROUND)))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    x = torch.ones(2, 4)
    for turn in range(4):
        before = FRONT.flushes
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), x)
        loss.backward()
        optimizer.step()
        loss.item()
        assert FRONT.flushes == before + 1 or not turn


def test_another_loop_has_rounds_of_its_own() -> None:
    iterated(200)
    x = torch.zeros(3)
    for _ in range(LATE + 5 * ROUND):
        y = x + 3
        x = y - 2
    assert len(current().pending) < 2 * ROUND
    assert x.tolist() == [float(LATE + 5 * ROUND)] * 3


def test_a_state_from_the_step_before_is_read_as_it_was_computed() -> None:
    """Parameters that an optimizer wrote are read after it; so is what the step kept besides."""
    cell, head = nn.LSTMCell(3, 5), nn.Linear(5, 2)
    optimizer = torch.optim.SGD([*cell.parameters(), *head.parameters()], 0.1)
    x, y = torch.ones(4, 2, 3), torch.zeros(4, 2, 2)
    state = torch.zeros(2, 5), torch.zeros(2, 5)

    def step(state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        h, c = (part.detach() for part in state)
        loss = torch.zeros(())
        for t in range(4):
            h, c = cell(x[t], (h, c))
            loss = loss + F.mse_loss(head(h), y[t])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return h, c

    for _ in range(20):  # the numbers of leaves settle
        state = step(state)

    differentiated, compiles = FRONT.autodiff, COUNTERS.snapshot()["compiles"]
    for _ in range(5):
        state = step(state)
    state[0].tolist()
    assert FRONT.autodiff == differentiated
    assert COUNTERS.snapshot()["compiles"] <= compiles + 1  # the last one computes less


def spread(turns: int) -> list[float]:
    """9 operations a turn."""
    u = torch.arange(20.0) % 7
    for _ in range(turns):
        u[1:-1] += 0.25 * (u[2:] + u[:-2] - 2.0 * u[1:-1])
    return u.tolist()


def kept_by_hand(turns: int) -> np.ndarray:
    u = np.arange(20, dtype=np.float32) % 7
    for _ in range(turns):
        u[1:-1] += np.float32(0.25) * (u[2:] + u[:-2] - np.float32(2) * u[1:-1])
    return u


def test_a_loop_that_runs_again_has_the_same_rounds() -> None:
    for _ in range(4):
        spread(200)
    before = FRONT.flushes
    assert compiled(lambda: [spread(200) for _ in range(20)]) == 0
    assert (FRONT.flushes - before) % 20 == 0
    np.testing.assert_allclose(spread(200), kept_by_hand(200), rtol=1e-5)


def test_a_short_loop_that_runs_again_and_again_becomes_one_program() -> None:
    for _ in range(OFTEN + 4):
        spread(40)
    before = FRONT.flushes
    spread(40)
    assert FRONT.flushes == before + 1
    for turns in (40, 300, 40, 37, 300):
        np.testing.assert_allclose(spread(turns), kept_by_hand(turns), rtol=1e-5)
    assert len(current().pending) < ROUND


def test_a_loop_with_more_turns_each_time_is_few_programs() -> None:
    """All turns but the last few of each run are rounds that were there before."""
    spread(100)
    spread(120)
    assert compiled(lambda: [spread(turns) for turns in range(140, 640, 20)]) <= 50
    np.testing.assert_allclose(spread(700), kept_by_hand(700), rtol=1e-5)


def test_columns_that_are_read_twice_are_one_leaf() -> None:
    a = torch.arange(400.0).reshape(20, 20)

    def projected() -> list[float]:
        total = torch.zeros(20)
        for j in range(20):
            v = a[:, j]
            total = total + v * (v @ v)
        return total.tolist()

    for _ in range(6):
        projected()
    before = FRONT.records, FRONT.native_records
    assert compiled(projected) == 0
    assert FRONT.records - before[0] - (FRONT.native_records - before[1]) <= MARGIN
    columns = np.arange(400, dtype=np.float32).reshape(20, 20)
    np.testing.assert_allclose(projected(), (columns * (columns * columns).sum(0)).sum(1), rtol=1e-5)
