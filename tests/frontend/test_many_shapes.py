"""Compiled functions that are called with tensors of ever other sizes are not captured for each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
from graphc import many_shapes
from graphc.counting import FRONT
from graphc.many_shapes import MOST_SHAPES

pytestmark = pytest.mark.usefixtures("native")


def captures(call: Callable[[], object]) -> int:
    before = FRONT.captures
    call()
    return FRONT.captures - before


def double(x: Any) -> Any:
    return x * 2 + 1


def call(function: Callable[[Any], Any], sizes: range | list[int], dtype: Any = torch.float32) -> None:
    for n in sizes:
        assert function(torch.ones(n, dtype=dtype)).tolist() == [3] * n


def test_the_first_shapes_are_captured_and_others_run_as_ordinary_code() -> None:
    function = torch.compile(double)
    assert captures(lambda: call(function, range(3, 3 + MOST_SHAPES))) == MOST_SHAPES
    assert captures(lambda: call(function, range(20, 60))) == 0
    replays = FRONT.replays
    call(function, range(3, 3 + MOST_SHAPES))
    assert FRONT.replays == replays + MOST_SHAPES


def test_a_shape_that_comes_often_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_shapes, "PLAIN_CALLS", 5)
    function = torch.compile(double)
    call(function, range(3, 3 + MOST_SHAPES))
    assert [captures(lambda n=n: call(function, [30, n])) for n in range(40, 47)] == [0, 0, 0, 0, 0, 1, 0]


def test_other_dtypes_and_ranks_are_other_kinds_of_calls() -> None:
    function = torch.compile(double)
    call(function, range(3, 3 + MOST_SHAPES))
    assert captures(lambda: call(function, [30], torch.float64)) == 1
    assert captures(lambda: function(torch.ones(2, 3))) == 1
    assert captures(lambda: call(function, [30])) == 0


@pytest.mark.parametrize(("dynamic", "most"), [(None, MOST_SHAPES), (True, 1), (False, 20)])
def test_dynamic_says_how_many(dynamic: bool | None, most: int) -> None:
    for function in (torch.compile(double, dynamic=dynamic), torch.compile(dynamic=dynamic)(double)):
        for each in (function, copy.copy(function)):
            assert captures(lambda each=each: call(each, range(3, 23))) == most


def test_modules_and_methods_too() -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return double(x)

        @torch.compile(dynamic=True)
        def other(self, x: Any) -> Any:
            return double(x)

    net = Net()
    assert captures(lambda: call(torch.compile(net, dynamic=True), range(3, 9))) == 1
    assert captures(lambda: call(copy.deepcopy(torch.compile(net, dynamic=True)), range(3, 9))) == 1
    assert captures(lambda: call(net.other, range(3, 9))) == 1


def test_training_steps_of_new_shapes_learn_as_captured_ones_do() -> None:
    def learn(dynamic: bool | None) -> list[float]:
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        @torch.compile(dynamic=dynamic)
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (net(x).tanh() ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        losses = [step(torch.ones(n, 3) * n / 10).item() for n in range(2, 12)]
        return [*losses, *net.weight.flatten().tolist()]

    assert learn(None) == pytest.approx(learn(False), rel=1e-5)
