"""Calls of which native code learns nothing, such as those with a number that is always another one, are let be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
from graphc.counting import FRONT
from graphc.recording import Recorder, using
from graphc.repeats import MOST_FAILED, TRIED_AGAIN
from graphc.tensors import learning

pytestmark = pytest.mark.usefixtures("native_replays", "native_recording")

TURNS = 300


def test_a_number_that_always_changes_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []
    trace = learning.trace
    monkeypatch.setattr(learning, "trace", lambda *args: looks.append(args[1]) or trace(*args))

    def step(x: torch.Tensor, number: float) -> float:
        return (x * number).sum().item()

    with using(Recorder()):
        x = torch.ones(8)
        x.tolist()
        for turn in range(TURNS):
            assert step(x, 1.0 + turn) == 8 * (1.0 + turn)
        assert 0 < len(looks) < 2 * MOST_FAILED + TURNS // TRIED_AGAIN + 8


@pytest.mark.parametrize("place", [0, 1])
def test_joins_are_native_after_one_that_left_out_an_empty_vector(place: int) -> None:
    x, y, empty = torch.ones(3), torch.ones(3) * 2, torch.zeros(0)
    (x + y).sum().item()
    empty.tolist()
    for _ in range(4):
        assert torch.cat([x, empty] if place else [empty, x]).tolist() == [1, 1, 1]

    def join() -> None:
        for _ in range(8):
            assert torch.cat([x, y]).tolist() == [1, 1, 1, 2, 2, 2]

    join()
    before = FRONT.native_records
    join()
    assert FRONT.native_records == before + 8
    assert torch.cat([x, empty] if place else [empty, x]).tolist() == [1, 1, 1]


def test_a_call_of_which_nothing_is_learned_leaves_others_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """What native code cannot repeat does not tell which tensors a function reads."""
    x = torch.ones(3)
    (x + x).sum().item()

    def zero(clear: Callable[[Any], Any]) -> int:
        made = x + 1
        before = FRONT.records, FRONT.native_records
        clear(made)
        missed = FRONT.records - before[0] - (FRONT.native_records - before[1])
        assert made.tolist() == [0, 0, 0]
        return missed

    assert [zero(lambda made: made.zero_()) for _ in range(8)][-1] == 0
    with monkeypatch.context() as patched:
        patched.setattr(learning, "trace", lambda *_: None)
        assert [zero(lambda made: made.zero_()) for _ in range(8)][-1] > 0
    assert [zero(lambda made: made.zero_()) for _ in range(8)][-1] == 0
