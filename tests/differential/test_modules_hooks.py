"""Backward hooks of modules against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.compare import floats, to
from tests.differential.modules import same


def listed(gradients: Any) -> Any:
    return [None if g is None else [round(v, 4) for v in g.reshape(-1).tolist()] for g in gradients]


class Seen:
    """What hooks were called with, in order."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def full(self, change: Callable[..., Any] = lambda *given: None) -> Any:
        def hook(module: Any, inputs: Any, outputs: Any) -> Any:
            self.calls.append((type(module).__name__, listed(inputs), listed(outputs)))
            return change(inputs, outputs)

        return hook

    def pre(self, change: Callable[..., Any] = lambda *given: None) -> Any:
        def hook(module: Any, outputs: Any) -> Any:
            self.calls.append((type(module).__name__, listed(outputs)))
            return change(outputs)

        return hook


def run(register: Callable[[Any, Seen], Any], requires_grad: bool = True) -> Callable[[Any], Any]:
    def function(t: Any) -> Any:
        net = t.nn.Sequential(t.nn.Linear(2, 2), t.nn.Tanh())
        t.nn.init.constant_(net[0].weight, 0.5)
        t.nn.init.constant_(net[0].bias, 0.25)
        seen = Seen()
        register(net, seen)
        x = to(t, floats(3, 2), requires_grad)
        net(x).sum().backward()
        return seen.calls, listed([x.grad] if requires_grad else []), listed([net[0].weight.grad])

    return function


CASES: dict[str, Any] = {
    "full": lambda net, seen: net.register_full_backward_hook(seen.full()),
    "inner": lambda net, seen: [m.register_full_backward_hook(seen.full()) for m in net],
    "changed": lambda net, seen: net.register_full_backward_hook(seen.full(lambda i, o: (i[0] * 2,))),
    "pre": lambda net, seen: net[1].register_full_backward_pre_hook(seen.pre(lambda o: (o[0] * 3,))),
    "both": lambda net, seen: (net.register_full_backward_hook(seen.full()),
                               net.register_full_backward_pre_hook(seen.pre(lambda o: (o[0] * 3,)))),
    "prepend": lambda net, seen: (net.register_full_backward_hook(seen.full(lambda i, o: (i[0] + 1,))),
                                  net.register_full_backward_hook(seen.full(lambda i, o: (i[0] * 2,)), prepend=True)),
    "removed": lambda net, seen: net.register_full_backward_hook(seen.full()).remove(),
    "number": lambda net, seen: net.register_full_backward_hook(seen.full(lambda i, o: (i[0], i[0]))),
    "pre_number": lambda net, seen: net.register_full_backward_pre_hook(seen.pre(lambda o: (o[0], o[0]))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_backward_hooks(name: str) -> None:
    same(run(CASES[name]))


@pytest.mark.parametrize("name", ["full", "pre"])
def test_inputs_without_gradients(name: str) -> None:
    same(run(CASES[name], requires_grad=False))


def test_several_inputs_and_outputs() -> None:
    def function(t: Any) -> Any:
        class Pair(t.nn.Module):
            def forward(self, x: Any, y: Any, factor: Any) -> Any:
                return x * y * factor, x + y

        net, seen = Pair(), Seen()
        net.register_full_backward_hook(seen.full())
        x, y = to(t, floats(2), True), to(t, floats(2, seed=1))
        a, b = net(x, y, 3)
        (a.sum() + 2 * b.sum()).backward()
        return seen.calls, listed([x.grad])

    same(function)
