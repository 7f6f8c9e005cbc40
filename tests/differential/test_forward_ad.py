"""Dual tensors, `func.linearize` and the other late names of autograd and func, against PyTorch."""

from __future__ import annotations

from typing import Any

from tests.differential.side_by_side import Say, attempt, same


def pair(t: Any) -> tuple[Any, Any]:
    return t.tensor([1.0, 2.0]), t.tensor([1.0, -1.0])


def test_tangents() -> None:
    def program(t: Any, say: Say) -> None:
        fw = t.autograd.forward_ad
        x, direction = pair(t)
        with fw.dual_level() as level:
            dual = fw.make_dual(x, direction)
            found = fw.unpack_dual(dual.sin() * dual)
            say(level, type(found).__name__, found._fields, found.primal, found.tangent)
            say(found.primal.requires_grad, found.tangent.requires_grad)
            say(fw.unpack_dual(dual), fw.unpack_dual(x))
            other = fw.make_dual(direction, x)
            say(fw.unpack_dual(dual * other + t.exp(dual).sum()).tangent)
            say(fw.unpack_dual(dual.view(2, 1).expand(2, 2).mean(0)).tangent)
        say(fw.unpack_dual(x))

    same(program)


def test_reverse_over_forward() -> None:
    def program(t: Any, say: Say) -> None:
        fw = t.autograd.forward_ad
        x, direction = pair(t)
        with fw.dual_level():
            leaf = x.clone().requires_grad_()
            found = fw.unpack_dual((fw.make_dual(leaf, direction) ** 3).sum())
            found.tangent.backward()
            say(leaf.grad, found.primal.requires_grad)
            factor = t.tensor(2.0, requires_grad=True)
            found = fw.unpack_dual(fw.make_dual(x, direction) * factor)
            found.tangent.sum().backward()
            say(factor.grad, found.primal.requires_grad)

    same(program)


def test_errors() -> None:
    def program(t: Any, say: Say) -> None:
        fw = t.autograd.forward_ad
        x, direction = pair(t)
        with fw.dual_level():
            attempt(say, lambda: fw.make_dual(x, t.ones(3)))
            attempt(say, lambda: fw.make_dual(x.int(), direction))
            attempt(say, lambda: fw.make_dual(x, direction.int()))
            attempt(say, fw.enter_dual_level)
        attempt(say, lambda: fw.make_dual(x, direction))
        fw.enter_dual_level()
        fw.exit_dual_level()
        attempt(say, fw.exit_dual_level)

    same(program)


def test_linearize() -> None:
    def program(t: Any, say: Say) -> None:
        x, direction = pair(t)
        output, push = t.func.linearize(lambda x: (x**3).sum(), x)
        say(output, push(direction), push(direction * 2))
        output, push = t.func.linearize(lambda x, y: {"a": x * y, "b": x.sin()}, x, direction)
        say(output, push(direction, x))
        attempt(say, lambda: push(direction, x[:1]))
        attempt(say, lambda: push(direction, x.double()))
        try:
            push(direction)
        except RuntimeError as error:
            say(str(error)[:22])

    same(program)


def test_functionalize_and_batch_norms() -> None:
    def program(t: Any, say: Say) -> None:
        x, _ = pair(t)
        say(t.func.functionalize(lambda x: x.clone().add_(1))(x))
        attempt(say, lambda: t.func.functionalize(lambda x: x, remove="all")(x))
        net = t.nn.Sequential(t.nn.BatchNorm1d(2), t.nn.Linear(2, 2), t.nn.InstanceNorm1d(2, track_running_stats=True))
        say(t.func.replace_all_batch_norm_modules_(net) is net, net, list(net.state_dict()))

    same(program)


def test_switches() -> None:
    def program(t: Any, say: Say) -> None:
        for name in ("no_grad", "enable_grad", "set_grad_enabled", "inference_mode"):
            say(getattr(t.autograd.grad_mode, name) is getattr(t, name))
        with t.autograd.set_multithreading_enabled(False):
            say(t.autograd.set_multithreading_enabled(True).prev)
        say(t.autograd.grad_mode.set_multithreading_enabled(True).prev)
        say(t.autograd.set_multithreading_enabled(False)(lambda x: x + 1)(1))

    same(program)
