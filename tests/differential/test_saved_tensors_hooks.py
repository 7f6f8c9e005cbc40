"""Hooks of saved tensors and of several tensors, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.side_by_side import Say, attempt, same

OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mul": lambda t, a, b: a * b,
    "number": lambda t, a, b: a.exp() * 2,
    "dot": lambda t, a, b: a @ b,
    "relu": lambda t, a, b: a.relu() + b,
    "div": lambda t, a, b: a / b,
    "divisor": lambda t, a, b: a.detach() / b,
    "divided": lambda t, a, b: a / b.detach(),
    "chain": lambda t, a, b: a.sin().cos(),
    "sigmoid": lambda t, a, b: a.sigmoid(),
    "pow": lambda t, a, b: a**2,
    "softmax": lambda t, a, b: t.softmax(a, 0) * b,
    "square": lambda t, a, b: a * a,
    "nothing": lambda t, a, b: (a + b).sum(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_saved(name: str) -> None:
    def program(t: Any, say: Say) -> None:
        a = t.tensor([1.0, 2.0], requires_grad=True)
        b = t.tensor([3.0, -1.0], requires_grad=True)

        def pack(x: Any) -> Any:
            say("pack", x, x.requires_grad)
            return x.clone()

        def unpack(x: Any) -> Any:
            say("unpack", x)
            return x

        with t.autograd.graph.saved_tensors_hooks(pack, unpack):
            made = OPERATIONS[name](t, a, b)
        made.sum().backward(retain_graph=True)
        made.sum().backward()
        say(a.grad, b.grad)
        try:
            made.sum().backward()
        except RuntimeError as error:
            say(str(error)[:40])

    same(program)


def test_gradients_read_what_unpack_gives() -> None:
    def program(t: Any, say: Say) -> None:
        hooks = t.autograd.graph.saved_tensors_hooks
        a = t.tensor([1.0, 2.0], requires_grad=True)
        with hooks(lambda x: x * 10, lambda x: x):
            made = (a * a).sum()
        say(t.autograd.grad(made, a, create_graph=True)[0].detach())
        with hooks(lambda x: x, lambda x: x):
            made = (a**3).sum()
        (slope,) = t.autograd.grad(made, a, create_graph=True)
        say(t.autograd.grad(slope.sum(), a))
        with hooks(lambda x: x * 10, lambda x: x), hooks(lambda x: x.detach().numpy(), lambda x: t.from_numpy(x)):
            inner = (a.exp() * a).sum()
        inner.backward()
        say(a.grad)
        with t.autograd.graph.save_on_cpu():
            made = (a.exp() * a).sum()
        made.backward()
        say(a.grad)

    same(program)


def test_custom_functions() -> None:
    def program(t: Any, say: Say) -> None:
        class Square(t.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                result = x * x
                ctx.save_for_backward(x, result, None)
                return result

            @staticmethod
            def backward(ctx: Any, gradient: Any) -> Any:
                x, result, _ = ctx.saved_tensors
                say(x.detach(), result.detach())
                return 2 * x * gradient + 0 * result

        a = t.tensor([1.0, 2.0], requires_grad=True)
        with t.autograd.graph.saved_tensors_hooks(lambda x: x * 2, lambda x: x):
            made = Square.apply(a).sum()
        (slope,) = t.autograd.grad(made, a, create_graph=True)
        say(slope.detach(), t.autograd.grad(slope.sum(), a))
        say(isinstance(made.grad_fn, t.autograd.graph.Node), isinstance(Square.apply(a).grad_fn, t.autograd.graph.Node))

    same(program)


def test_errors() -> None:
    def program(t: Any, say: Say) -> None:
        graph = t.autograd.graph
        a = t.tensor([1.0, 2.0], requires_grad=True)

        def refused() -> None:
            with graph.disable_saved_tensors_hooks("no hooks"), graph.save_on_cpu():
                pass

        def number() -> None:
            with graph.saved_tensors_hooks(lambda x: x, lambda x: 3):
                made = a * a
            made.sum().backward()

        def written() -> None:
            with graph.saved_tensors_hooks(lambda x: x.add_(1), lambda x: x):
                a * a

        for function in (refused, number, written):
            attempt(say, function)
        with graph.save_on_cpu():
            say((a * a).detach())

    same(program)


def test_mutation_of_what_was_saved() -> None:
    def program(t: Any, say: Say) -> None:
        def step() -> Any:
            x = t.ones(2, requires_grad=True)
            y = x * 1
            z = y.sin()
            y.mul_(3)
            z.sum().backward()
            return x.grad

        with t.autograd.graph.allow_mutation_on_saved_tensors():
            say(step())
        try:
            step()
        except RuntimeError as error:
            say(str(error)[:80])
        numbers = t.ones(1)
        version = numbers._version
        t.autograd.graph.increment_version(numbers)
        t.autograd.graph.increment_version([numbers, numbers])
        say(numbers._version - version)

    same(program)


def test_the_quotient_may_be_overwritten() -> None:
    def program(t: Any, say: Say) -> None:
        a, b = t.ones(2, requires_grad=True), t.full((2,), 2.0, requires_grad=True)
        y = a / b
        y.add_(1)
        y.sum().backward()
        say(a.grad, b.grad)

    same(program)


def test_hooks_of_several_tensors() -> None:
    def program(t: Any, say: Say) -> None:
        x, w, u = (t.ones(2, requires_grad=True) for _ in range(3))
        register = t.autograd.graph.register_multi_grad_hook
        handle = register([x, w, u], lambda grads: say("all", [g if g is None else g.tolist() for g in grads]))
        other = register([x * 1, u], lambda grad: say("any", grad), mode="any")
        (x * w * 2).sum().backward()
        (x * w * u).sum().backward()
        handle.remove()
        with other:
            (x * w).sum().backward()
        (x * w).sum().backward()
        attempt(say, lambda: register([x], print, mode="some"))

    same(program)
