"""Random training steps give what they give in PyTorch, plain and compiled, whatever is changed between their calls."""

from __future__ import annotations

import pytest

import graphc

training = pytest.importorskip("tests.differential.training", reason="PyTorch is not installed")


@pytest.mark.parametrize("seed", range(60))
def test_random_steps(seed: int) -> None:
    training.check(graphc, seed)


def test_every_statement_and_every_change_is_used() -> None:
    plans = [training.plan(seed) for seed in range(60)]
    assert {choice.statement for p in plans for choice in p.statements} == set(training.NAMES)
    assert {(p.change + after) % 14 for p in plans for after in training.CHANGED_AFTER} == set(range(14))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3000, 100))
def test_many_random_steps(start: int) -> None:
    for seed in range(start, start + 100):
        training.check(graphc, seed)
