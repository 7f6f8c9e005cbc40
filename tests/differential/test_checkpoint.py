"""`utils.checkpoint`: the same values and gradients as PyTorch, by calling the function again in backward."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
import graphc.utils.checkpoint
from tests.differential.compare import torch
from tests.differential.side_by_side import Say, attempt, same

__import__("torch.utils.checkpoint")


def leaves(torch: Any) -> tuple[Any, Any]:
    return torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.full((3,), 2.0, requires_grad=True)


@pytest.mark.parametrize("reentrant", [True, False])
def test_values_gradients_and_calls(reentrant: bool) -> None:
    def program(torch: Any, say: Say) -> None:
        checkpoint = torch.utils.checkpoint.checkpoint
        x, w = leaves(torch)
        calls: list[bool] = []

        def function(a: Any) -> Any:
            calls.append(torch.is_grad_enabled())
            return (a * w).sin() * a

        y = checkpoint(function, x, use_reentrant=reentrant)
        say(y, y.requires_grad, calls)
        (y * y).sum().backward()
        say(x.grad, w.grad, calls)
        attempt(say, lambda: torch.autograd.grad(checkpoint(function, x, use_reentrant=reentrant).sum(), x))
        y = checkpoint(lambda a, b, flag: a * b if flag else a + b, x, w, True, use_reentrant=reentrant)
        y.sum().backward()
        say(x.grad, w.grad)
        attempt(say, lambda: checkpoint(lambda a, b: a + b, x, b=w, use_reentrant=reentrant))
        with torch.no_grad():
            say(checkpoint(function, x, use_reentrant=reentrant).requires_grad)
        say(checkpoint(function, torch.ones(3), use_reentrant=reentrant).requires_grad)

    same(program)


@pytest.mark.parametrize("reentrant", [True, False])
def test_random_numbers_are_the_same(reentrant: bool) -> None:
    def program(torch: Any, say: Say) -> None:
        x, _ = leaves(torch)

        def function(a: Any) -> Any:
            mask = torch.rand(3)
            return a * mask, mask

        y, mask = torch.utils.checkpoint.checkpoint(function, x, use_reentrant=reentrant)
        torch.rand(5)
        y.sum().backward()
        say((x.grad == mask).all())

    same(program)


@pytest.mark.parametrize("reentrant", [True, False])
def test_sequential(reentrant: bool) -> None:
    def program(torch: Any, say: Say) -> None:
        nn = torch.nn
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
        with torch.no_grad():
            for i, p in enumerate(net.parameters()):
                p.copy_(torch.arange(p.numel()).float().reshape(p.shape) / 7 - i * 0.3)
        x, _ = leaves(torch)
        out = torch.utils.checkpoint.checkpoint_sequential(net, 2, x, use_reentrant=reentrant)
        out.sum().backward()
        say(out, x.grad, [p.grad for p in net.parameters()])

    same(program)


def test_second_gradients_nesting_and_hooks() -> None:
    def program(torch: Any, say: Say) -> None:
        def checkpoint(f: Any, a: Any) -> Any:
            return torch.utils.checkpoint.checkpoint(f, a, use_reentrant=False)

        x, w = leaves(torch)
        (g,) = torch.autograd.grad(checkpoint(lambda a: (a * w).sin(), x).sum(), x, create_graph=True)
        say(g, torch.autograd.grad(g.sum(), (x, w)))
        checkpoint(lambda a: checkpoint(lambda b: (b * w).sin(), a) * a, x).sum().backward()
        say(x.grad, w.grad)

        def hooked(a: Any) -> Any:
            b = a * 2
            b.register_hook(lambda g: say("hook", g))
            return b * b

        checkpoint(hooked, x).sum().backward()
        say(x.grad)

    same(program)


def test_a_captured_step_repeats_its_random_numbers() -> None:
    x = graphc.ones(4, requires_grad=True)

    @graphc.compile
    def step(a: Any) -> Any:
        def masked(b: Any) -> Any:
            return b * graphc.rand(4)

        y = graphc.utils.checkpoint.checkpoint(masked, x * a, use_reentrant=False)
        x.grad = None
        y.sum().backward()
        return y.detach()

    for _ in range(3):
        y = step(graphc.ones(4))
        assert x.grad is not None and x.grad.tolist() == pytest.approx(y.tolist())
    assert torch is not None
