"""Networks that are trained one after the other in the same lines, as in a search: each has shapes of its own, which
do not change. A step of the last is one program, as one of the first is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

import graphc
from graphc import nn, optim
from graphc.counting import FRONT
from graphc.nn import functional
from graphc.options import scope
from graphc.tensors.changing import APART, MOST_CHANGES


def network(number: int) -> nn.Module:
    """One whose layers have other widths than those before it."""
    width = 5 + 3 * number
    return nn.Sequential(
        nn.Linear(7, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width + 1), nn.Linear(width + 1, 4)
    )


@pytest.fixture(autouse=True)
def interpreting() -> Iterator[None]:
    """Calls that change may be computed at once."""
    with scope(interpret=True):
        yield


X, Y = graphc.arange(42.0).reshape(6, 7).sin(), graphc.arange(6) % 4


def step(model: nn.Module, optimizer: optim.Optimizer) -> graphc.Tensor:
    """The loss before the step."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(X), Y)
    loss.backward()
    optimizer.step()
    return loss


def clipped_step(model: nn.Module, means: nn.Module, optimizer: optim.Optimizer) -> graphc.Tensor:
    """The loss before a step that clips gradients, and keeps the mean of the parameters in another network."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(X), Y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with graphc.no_grad():
        for mean, parameter in zip(means.parameters(), model.parameters(), strict=True):
            mean.copy_(mean * 0.5 + parameter * 0.5)
    return loss


@pytest.mark.parametrize("kind", [optim.AdamW, optim.NAdam])
def test_updates_of_many_networks_stay_part_of_their_steps(kind: type[optim.Optimizer]) -> None:
    for number in range(3 * MOST_CHANGES):
        model = network(number)
        optimizer = kind(model.parameters(), lr=0.01)
        losses = [float(step(model, optimizer)) for _ in range(20)]
    before = FRONT.flushes
    losses += [float(step(model, optimizer)) for _ in range(10)]
    assert losses[-1] < losses[20] < losses[0]
    assert FRONT.flushes == before + 10


def test_calls_with_the_parameters_of_many_networks_are_not_taken_for_changing_ones() -> None:
    for number in range(3 * MOST_CHANGES):
        model = network(number)
        means = copy.deepcopy(model)
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        for _ in range(APART + 10):
            float(clipped_step(model, means, optimizer))
    before = FRONT.flushes
    for _ in range(10):
        float(clipped_step(model, means, optimizer))
    assert FRONT.flushes == before + 10
