"""`torch.func` and `autograd.functional`, in PyTorch and here."""

from __future__ import annotations

from typing import Any

import pytest

import graphc.func
from tests.differential.side_by_side import Program, Say, attempt, same

assert graphc.func


def matrix(torch: Any) -> Any:
    return torch.arange(6.0).reshape(2, 3)


def reverse(torch: Any, say: Say) -> None:
    x, f = matrix(torch), torch.func
    say(f.grad_and_value(lambda x: (x**2).sum())(x))
    say(f.grad(lambda x: ((x**2).sum(), x), has_aux=True)(x))
    say(f.grad(lambda x, y: (x * y).sum(), argnums=(0, 1))(x, x + 1))
    say(f.vjp(lambda x: x.sin(), x)[1](x))
    say(f.vjp(lambda x: (x.sin(), 3 * x), x, has_aux=True)[2])
    attempt(say, lambda: f.grad(lambda x: x * 2)(x))
    attempt(say, lambda: f.grad(lambda x: 3.0)(x))
    attempt(say, lambda: f.grad(lambda x: (x.sum(), x))(x))
    attempt(say, lambda: f.grad(lambda x: x.sum(), argnums=3)(x))
    attempt(say, lambda: f.grad(lambda x: x.sum(), argnums="s")(x))
    attempt(say, lambda: f.grad(lambda x: x.sum())(3.0))
    attempt(say, lambda: f.grad(lambda x: x.sum())(torch.tensor([1])))
    attempt(say, lambda: f.grad(lambda x: x.sum(), has_aux=True)(x))
    attempt(say, lambda: f.vjp(lambda x: x * 2, x)[1](torch.ones(3)))
    attempt(say, lambda: f.vjp(lambda x: 3, x))


def forward(torch: Any, say: Say) -> None:
    x, ones, f = matrix(torch), torch.ones(2, 3), torch.func
    say(f.jvp(lambda x: x.exp(), (x,), (ones,)))
    say(f.jvp(lambda x, y: (x * y, x.sum()), (x, x), (x, 0 * ones)))
    say(f.jvp(lambda x: x.relu() * 2, (x,), (ones,)))
    say(f.jvp(f.grad(lambda x: (x**3).sum()), (x,), (ones,)))
    say(f.grad(lambda t: f.jvp(lambda x: x**3, (t,), (torch.ones(()),))[1])(torch.tensor(2.0)))
    attempt(say, lambda: f.jvp(lambda x: x * 2, (x,), (torch.ones(3),)))
    attempt(say, lambda: f.jvp(lambda x: x * 2, x, x))
    attempt(say, lambda: f.jvp(lambda x: x * 2, (), ()))
    attempt(say, lambda: f.jvp(lambda x: x * 2, (x,), (x, x)))
    attempt(say, lambda: f.jvp(lambda x: 3, (x,), (x,)))


def jacobians(torch: Any, say: Say) -> None:
    two, f = torch.tensor([1.0, 2.0]), torch.func
    for jac in (f.jacrev, f.jacfwd):
        say(jac(lambda x: x.sin())(two))
        say(jac(lambda x: (x, {"a": x.sum()}))(two))
        say(jac(lambda x, y: x * y, argnums=(0, 1))(two, two + 1))
        say(jac(lambda d: d["a"] * d["b"])({"a": two, "b": two + 1}))
    say(f.jacfwd(f.jacrev(lambda x: (x**3).sum()))(two), f.jacrev(f.jacfwd(lambda x: (x**3).sum()))(two))
    say(f.hessian(lambda x, y: (x * y * y).sum(), argnums=(0, 1))(two, two + 1))
    say(torch.vmap(f.jacrev(lambda x: x**2))(matrix(torch)))
    attempt(say, lambda: f.jacrev(lambda x: 3)(two))
    attempt(say, lambda: f.jacrev(lambda x: x, has_aux=True)(two))


def modules(torch: Any, say: Say) -> None:
    net, x, call = torch.nn.Linear(3, 2), matrix(torch), torch.func.functional_call
    with torch.no_grad():
        net.weight.fill_(0.5)
        net.bias.fill_(1)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    say(call(net, parameters, (x,)), call(net, {"weight": parameters["weight"] * 2}, x))
    say(torch.func.grad(lambda p, a: call(net, p, (a,)).sum())(parameters, x), net.weight)


def custom_functions(torch: Any, say: Say) -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])

        @staticmethod
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    x, grad = matrix(torch), torch.func.grad
    say(grad(lambda x: Square.apply(x).sum())(x))
    say(grad(lambda x: grad(lambda y: Square.apply(y).sum())(x).sum())(x))
    say(grad(lambda x: (grad(lambda y: (Square.apply(y) * y).sum())(x) * x).sum())(x))
    say(torch.func.vjp(Square.apply, x)[1](x))
    p = x.clone().requires_grad_()
    grad(lambda y: (Square.apply(y) * p).sum())(x).sum().backward()
    say(p.grad)


def functional(torch: Any, say: Say) -> None:
    F, two = torch.autograd.functional, torch.tensor([1.0, 2.0])
    say(F.jacobian(lambda x: x**2, two), F.jacobian(lambda x, y: (x * y, x.sum()), (two, two)))
    say(F.jacobian(lambda x: x**2, two.clone().requires_grad_(), create_graph=True).requires_grad)
    say(F.hessian(lambda x: x.sum(), two), F.hessian(lambda x, y: (x * y).sum(), (two, two)))
    say(F.vjp(lambda x: x**2, two, two), F.jvp(lambda x: x**2, two, two))
    say(F.vhp(lambda x: (x**3).sum(), two, two), F.hvp(lambda x: (x**3).sum(), two, two))
    attempt(say, lambda: F.jacobian(lambda x: 3, two))
    attempt(say, lambda: F.jacobian(lambda x: x.detach(), two, strict=True))
    attempt(say, lambda: F.jacobian(lambda x: x.detach(), two))
    attempt(say, lambda: F.jacobian(lambda x: x, 3))
    attempt(say, lambda: F.hessian(lambda x: x, two))
    attempt(say, lambda: F.vjp(lambda x: x**2, two))
    attempt(say, lambda: F.vjp(lambda x: x**2, two, torch.ones(3)))
    attempt(say, lambda: F.jvp(lambda x: x**2, two))
    attempt(say, lambda: F.hvp(lambda x: x**3, two, two))
    attempt(say, lambda: F.vhp(lambda x: (x**3).sum(), two))


def batched_gradients(torch: Any, say: Say) -> None:
    w, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    grad = torch.autograd.grad
    say(grad(w * 2, w, torch.ones(2, 3), is_grads_batched=True))
    attempt(say, lambda: grad(w * 2, w, torch.ones(2), is_grads_batched=True))
    attempt(say, lambda: grad(w * 2, w, is_grads_batched=True))
    attempt(say, lambda: grad(w.sum(), [w, unused]))
    say(grad(w.sum(), [w, unused], allow_unused=True), grad(w.sum(), [w, unused], materialize_grads=True))
    attempt(say, lambda: grad(w.sum(), w, materialize_grads=True, allow_unused=False))
    attempt(say, lambda: grad(w.sum(), []))
    attempt(say, lambda: w.sum().backward(inputs=[]))
    attempt(say, lambda: grad(w * 2, w))
    attempt(say, lambda: grad(w * 2, w, torch.ones(2)))
    attempt(say, lambda: torch.autograd.backward([w.sum()], [torch.ones(()), torch.ones(())]))


PROGRAMS = [reverse, forward, jacobians, modules, custom_functions, functional, batched_gradients]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_transformations(program: Program) -> None:
    same(program)
