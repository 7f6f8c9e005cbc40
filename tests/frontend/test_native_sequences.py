"""Whatever users do between calls, in whatever order, native replays give what replays in Python give."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import graphc as torch
from graphc.options import NATIVE_CALLS
from tests.frontend.native_cases import MAKERS, batch, natively, numbers, training

pytestmark = pytest.mark.usefixtures("native_replays")


class User:
    """A network in training, and things that are done with it. What it sees goes to `seen`."""

    def __init__(self, name: str, seed: int) -> None:
        self.net, self.optimizer, self.step = training(MAKERS[name], dropout=0.25)
        self.forward = torch.compile(lambda x: (self.net(x) * 2).detach())
        self.random = random.Random(seed)
        self.held: list[Any] = []
        self.seen: list[Any] = []
        self.deeds: tuple[Callable[[], Any], ...] = (
            *[self.train] * 12,
            *[self.look] * 3,
            self.hold_gradients,
            self.hold_arrays,
            self.hold_results,
            *[self.let_go] * 4,
            self.clear_gradients,
            self.write_a_parameter,
            self.write_a_gradient,
            self.other_rate,
            self.other_mode,
            self.pending_batch,
        )

    def parameter(self) -> Any:
        return self.random.choice(list(self.net.parameters()))

    def train(self) -> None:
        loss = self.step(*batch(self.random.randrange(100)))
        if self.random.random() < 0.5:
            self.seen.append(loss.item())

    def look(self) -> None:
        self.seen.append(numbers(self.forward(batch(self.random.randrange(100))[0])))
        self.seen.extend(None if p.grad is None else numbers(p.grad) for p in self.net.parameters())
        self.seen.extend(numbers(p) for p in self.net.parameters())
        self.seen.extend(map(numbers, self.held))

    def hold_gradients(self) -> None:
        self.held += [p.grad for p in self.net.parameters() if p.grad is not None]

    def hold_arrays(self) -> None:
        self.held += [self.parameter().detach().numpy(), self.parameter().detach()]

    def hold_results(self) -> None:
        self.held += [self.forward(batch(1)[0]), self.step(*batch(2))]

    def let_go(self) -> None:
        self.held.clear()

    def clear_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=self.random.random() < 0.5)

    def write_a_parameter(self) -> None:
        with torch.no_grad():
            self.parameter().mul_(0.5)

    def write_a_gradient(self) -> None:
        gradient = self.parameter().grad
        if gradient is not None:
            gradient.add_(1)

    def other_rate(self) -> None:
        self.optimizer.param_groups[0]["lr"] = self.random.choice((0.01, 0.02, 0.05))

    def other_mode(self) -> None:
        self.net.train(self.random.random() < 0.7)

    def pending_batch(self) -> None:
        x, y = batch(self.random.randrange(100))
        self.seen.append(self.step(x * 0.5 + 1, y).item())


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_sequences_of_deeds(name: str, seed: int) -> None:
    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        torch.manual_seed(seed)
        user = User(name, seed)

        def deeds() -> None:
            for _ in range(150):
                user.random.choice(user.deeds)()
            user.look()

        assert (natively(deeds) > 0) is native
        return user.seen

    for ours, theirs in zip(run(True), run(False), strict=True):
        assert repr(ours) == repr(theirs)
