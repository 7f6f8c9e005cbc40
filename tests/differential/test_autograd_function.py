"""Custom `autograd.Function`s, in PyTorch and here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.side_by_side import Program, Say, attempt, same


def leaf(torch: Any) -> Any:
    return torch.tensor([1.0, 2.0, 3.0], requires_grad=True)


def square(torch: Any) -> Any:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    return Square


def exponential(torch: Any) -> Any:
    class Exponential(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return y * g

    return Exponential


def giving(torch: Any, result: Callable[[Any], Any]) -> Any:
    class Giving(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *args):
            return args[0] * 2

        @staticmethod
        def backward(ctx, g):
            return result(g)

    return Giving


def plain(torch: Any, say: Say) -> None:
    x = leaf(torch)
    y = square(torch).apply(x)
    say(y.grad_fn.name(), y.requires_grad, y.is_leaf, repr(y))
    y.sum().backward()
    say(x.grad)
    with torch.no_grad():
        say(square(torch).apply(x).requires_grad)
    attempt(say, lambda: square(torch)()(x))


def many_times(torch: Any, say: Say) -> None:
    x = leaf(torch)
    apply = square(torch).apply
    for function in (exponential(torch).apply, lambda x: apply(apply(x)), lambda x: apply(x) * x):
        (g,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        (g2,) = torch.autograd.grad(g.sum(), x, create_graph=True)
        (g3,) = torch.autograd.grad(g2.sum(), x)
        say(g, g2, g3)


def twice_without_keeping(torch: Any, say: Say) -> None:
    y = square(torch).apply(leaf(torch)).sum()
    y.backward()
    attempt(say, y.backward)
    y = giving(torch, lambda g: g * 2).apply(leaf(torch)).sum()
    y.backward()
    attempt(say, y.backward)


def saved_and_overwritten(torch: Any, say: Say) -> None:
    def output() -> None:
        y = exponential(torch).apply(leaf(torch))
        y.add_(1)
        y.sum().backward()

    def operand() -> None:
        y = leaf(torch) * 2
        z = square(torch).apply(y)
        y.mul_(3)
        z.sum().backward()

    attempt(say, output)
    attempt(say, operand)


def several_outputs(torch: Any, say: Say) -> None:
    class Several(torch.autograd.Function):
        @staticmethod
        def forward(x, n, y):
            return x * n, x + y, x > 1, "text"

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.n = inputs[1]
            ctx.mark_non_differentiable(output[2])
            say(len(inputs), len(output), ctx.needs_input_grad)

        @staticmethod
        def backward(ctx, a, b, c, d):
            say("backward", a, b, c, d)
            return a * ctx.n + b, None, b

    x, w = leaf(torch), torch.ones(3)
    out = Several.apply(x, 5, w)
    say([getattr(v, "requires_grad", v) for v in out], out[0].output_nr, out[1].output_nr)
    say(out[1].grad_fn is out[0].grad_fn, [n for _, n in out[0].grad_fn.next_functions])
    out[1].sum().backward()
    say(x.grad)
    out = Several.apply(x, 5, w)
    (out[0] * out[1]).sum().backward()
    say(x.grad)


def without_materialized_gradients(torch: Any, say: Say) -> None:
    class Pair(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, a, b):
            say(a, b)
            return a * 2

    x = leaf(torch)
    Pair.apply(x)[0].sum().backward()
    say(x.grad)


def in_place(torch: Any, say: Say) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.mark_dirty(x)
            x.mul_(2)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = leaf(torch)
    attempt(say, lambda: Doubled.apply(x))
    x = leaf(torch)
    y = x * 1
    out = Doubled.apply(y)
    say(out is y, out.grad_fn.name(), y._version)
    (y * y).sum().backward()
    say(x.grad)


def identity(torch: Any, say: Say) -> None:
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 5

    x = leaf(torch)
    out = Scaled.apply(x)
    say(out is x, out.grad_fn.name(), x.grad_fn)
    (out + x).sum().backward()
    say(x.grad)
    attempt(say, lambda: torch.autograd.gradcheck(Scaled.apply, leaf(torch).detach().double().requires_grad_()))


def wrong_gradients(torch: Any, say: Say) -> None:
    x = leaf(torch)
    attempt(say, lambda: giving(torch, lambda g: g).apply(x, x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: (g, g, g)).apply(x, x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: g[:2]).apply(x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: g.sum()).apply(x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: 3).apply(x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: (g, g)).apply(x, 3).sum().backward())
    say(x.grad)
    attempt(say, lambda: giving(torch, lambda g: (g, None, None)).apply(x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: g.expand(2, 3)).apply(x).sum().backward())
    attempt(say, lambda: giving(torch, lambda g: g.double()).apply(x).sum().backward())
    say(x.grad)


def missing_parts(torch: Any, say: Say) -> None:
    class NoBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    class NoForward(torch.autograd.Function):
        @staticmethod
        def backward(ctx, x):
            return x * 2

    class SavesNumber(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x, 3)
            return x * 2

    x = leaf(torch)
    attempt(say, lambda: NoBackward.apply(x).sum().backward())
    attempt(say, lambda: NoForward.apply(x))
    attempt(say, lambda: SavesNumber.apply(x))


def once(torch: Any, say: Say) -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * 5

    x, w = leaf(torch), torch.ones((), requires_grad=True)
    (g,) = torch.autograd.grad((Once.apply(x) * w).sum(), x, create_graph=True)
    say(g.requires_grad, g.tolist())
    attempt(say, lambda: g.sum().backward())
    Once.apply(x).sum().backward()
    say(x.grad)


def among_hooks_views_and_writes(torch: Any, say: Say) -> None:
    x, apply = leaf(torch), square(torch).apply
    y = apply(x)
    y.register_hook(lambda g: g * 2)
    y.retain_grad()
    (y * 3).sum().backward()
    say(x.grad, y.grad)
    (apply(x)[1:] * x[1:]).sum().backward()
    say(x.grad)
    y = apply(x)
    y.mul_(2)
    y.sum().backward()
    say(x.grad)
    y = apply(x)
    y[0] = 7
    (y * y).sum().backward()
    say(x.grad)
    y = apply(x)
    say(y.detach())
    (y * y).sum().backward()
    say(x.grad)


def checked(torch: Any, say: Say) -> None:
    x = leaf(torch).detach().double().requires_grad_()
    apply = square(torch).apply
    check, check_twice = torch.autograd.gradcheck, torch.autograd.gradgradcheck
    attempt(say, lambda: [check(apply, x), check_twice(apply, x)])
    attempt(say, lambda: check(lambda x: (x * apply(x), x.exp()), x))
    attempt(say, lambda: check_twice(lambda x: (x * apply(x), x.exp()), x))
    attempt(say, lambda: check(apply, x.detach()))
    wrong = giving(torch, lambda g: g * 3).apply
    attempt(say, lambda: check(wrong, x, raise_exception=False))
    attempt(say, lambda: check(lambda x: x.detach() * 2 + 0 * x, x))


PROGRAMS = [
    plain,
    many_times,
    twice_without_keeping,
    saved_and_overwritten,
    several_outputs,
    without_materialized_gradients,
    in_place,
    identity,
    wrong_gradients,
    missing_parts,
    once,
    among_hooks_views_and_writes,
    checked,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_functions(program: Program) -> None:
    same(program)
