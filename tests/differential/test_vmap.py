"""`vmap`, in PyTorch and here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.side_by_side import Program, Say, attempt, same


def matrix(torch: Any, *shape: int) -> Any:
    return torch.arange(float(np.prod(shape))).reshape(shape) / 5 - 0.7


def dimensions(torch: Any, say: Say) -> None:
    x, w = matrix(torch, 2, 3), matrix(torch, 3, 4)
    vmap = torch.vmap
    say(vmap(lambda a, b: a @ b, in_dims=(0, None))(x, w))
    say(vmap(lambda a, b: a @ b, in_dims=(0, None), out_dims=1)(x, w))
    say(vmap(lambda a: a * 2, in_dims=-1, out_dims=-1)(x))
    say(vmap(vmap(lambda a, b: a * b, in_dims=(None, 0)), in_dims=(0, None))(x[0], x[1]))
    say(vmap(lambda a: torch.ones(2))(x))
    say(vmap(lambda a: a.sum())(torch.ones(0, 3)))
    say(vmap(lambda a: a * 2, chunk_size=1)(x))
    tree = {"a": x, "b": w}
    say(vmap(lambda d: {"s": d["a"].sum(), "t": (d["a"], d["b"])}, in_dims=({"a": 0, "b": None},))(tree))


OPERATORS: dict[str, Any] = {
    "sin": lambda torch, a: a.sin(),
    "softmax": lambda torch, a: torch.softmax(a, 0),
    "sort": lambda torch, a: a.sort().values,
    "index": lambda torch, a: a[torch.tensor([2, 0])],
    "cumsum": lambda torch, a: a.cumsum(0),
    "max": lambda torch, a: a.max(0),
    "argmax": lambda torch, a: a.argmax(),
    "layer_norm": lambda torch, a: torch.nn.functional.layer_norm(a, (3,)),
    "cat_reshape_transpose": lambda torch, a: torch.cat([a, a * 2]).reshape(2, 3).T,
    "expand": lambda torch, a: a.expand(2, 3) + a[:, None].expand(3, 3)[:2],
    "pad": lambda torch, a: torch.nn.functional.pad(a, (1, 2)),
    "flip": lambda torch, a: a.flip(0),
    "where": lambda torch, a: torch.where(a > 0, a, a * 2),
    "outer": lambda torch, a: a[:, None] @ a[None, :],
    "prod": lambda torch, a: a.prod(),
    "std": lambda torch, a: a.std(),
    "embedding": lambda torch, a: torch.nn.functional.embedding(torch.tensor([0, 1]), a.reshape(3, 1)),
    "cross_entropy": lambda torch, a: torch.nn.functional.cross_entropy(a, torch.tensor(1)),
}


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_operators(name: str) -> None:
    def program(torch: Any, say: Say) -> None:
        x = matrix(torch, 2, 3)
        function = OPERATORS[name]
        say(torch.vmap(lambda a: function(torch, a))(x))
        if name not in ("argmax", "max", "sort", "layer_norm"):
            say(torch.vmap(torch.func.grad(lambda a: (function(torch, a) ** 2).sum()))(x))

    same(program)


def two_batched_operands(torch: Any, say: Say) -> None:
    x, w, i = matrix(torch, 2, 3), matrix(torch, 3, 4), torch.tensor([[2, 0], [1, 1]])
    vmap, F = torch.vmap, torch.nn.functional
    say(vmap(lambda a, i: a[i])(x, i[0]))
    say(vmap(lambda a, i: a[i])(x, i))
    say(vmap(lambda a, i: a[i], in_dims=(None, 0))(w, i))
    say(vmap(lambda a, i: a[:, i], in_dims=(None, 0))(w, i))
    say(vmap(lambda a, i: a[:, i])(matrix(torch, 2, 3, 4), i))
    say(vmap(lambda a, i: a.gather(0, i))(x, i))
    say(vmap(torch.func.grad(lambda a, i: (a[i] ** 2).sum()))(x, i))
    say(vmap(torch.func.grad(lambda a, i: (a[:, i] ** 2).sum()))(matrix(torch, 2, 3, 4), i))
    say(vmap(lambda a, b: a @ b)(matrix(torch, 2, 3, 4), matrix(torch, 2, 4, 2)))
    images, kernels = matrix(torch, 2, 1, 1, 3, 3), matrix(torch, 2, 2, 1, 2, 2)
    say(vmap(lambda a: F.conv2d(a, kernels[0]))(images))
    say(vmap(F.conv2d)(images, kernels))
    say(vmap(lambda a: F.max_pool2d(a, 2, 1))(images))


def gradients(torch: Any, say: Say) -> None:
    x = matrix(torch, 2, 3)
    say(torch.func.grad(lambda y: torch.vmap(lambda a: (a * y).sin().sum())(x).sum())(torch.tensor(2.0)))
    q, p = torch.ones(3, requires_grad=True), x.clone().requires_grad_()
    torch.vmap(lambda a: (a * q * a).sum())(p).sum().backward()
    say(q.grad, p.grad)
    net = torch.nn.Linear(3, 2)
    with torch.no_grad():
        net.weight.fill_(0.5)
        net.bias.fill_(1)
    parameters = {k: v.detach() for k, v in net.named_parameters()}
    call = torch.func.functional_call
    loss = torch.func.grad(lambda p, a: (call(net, p, (a,)) ** 2).sum())
    say(torch.vmap(loss, in_dims=(None, 0))(parameters, x))
    stacked = torch.func.stack_module_state([net, net])[0]
    say([(k, v.shape, v.requires_grad) for k, v in stacked.items()])
    say(torch.vmap(lambda p, a: call(net, p, (a,)), in_dims=(0, None))(stacked, x))


def writes(torch: Any, say: Say) -> None:
    def written(v: Any) -> Any:
        z = v.clone()
        z[0] = 5
        z.mul_(2)
        return z

    say(torch.vmap(written)(matrix(torch, 2, 3)))


def randomness(torch: Any, say: Say) -> None:
    x = matrix(torch, 2, 3)
    for kind in ("same", "different"):
        made = torch.vmap(lambda a: torch.rand(3) + a * 0, randomness=kind)(x)
        say((made[0] == made[1]).all())
    attempt(say, lambda: torch.vmap(lambda a: torch.rand(3))(x))
    attempt(say, lambda: torch.vmap(torch.sin, randomness="x"))


def mistakes(torch: Any, say: Say) -> None:
    x, vmap = matrix(torch, 2, 3), torch.vmap
    attempt(say, lambda: vmap(torch.sin, in_dims="a")(x))
    attempt(say, lambda: vmap(torch.sin)())
    attempt(say, lambda: vmap(torch.sin, in_dims=(0, 0))(x))
    attempt(say, lambda: vmap(torch.sin, in_dims=(2,))(x))
    attempt(say, lambda: vmap(torch.sin, in_dims=(None,))(x))
    attempt(say, lambda: vmap(torch.sin, in_dims=("q",))(x))
    attempt(say, lambda: vmap(lambda a, b: a, in_dims=(0, 0))(x, 3))
    attempt(say, lambda: vmap(lambda a, b: a)(x, torch.ones(4)))
    attempt(say, lambda: vmap(lambda a: 3)(x))
    attempt(say, lambda: vmap(lambda a: (a, a), out_dims=(0, 0, 0))(x))
    attempt(say, lambda: vmap(lambda a: a, out_dims=5)(x))
    attempt(say, lambda: vmap(lambda a: a, out_dims="q")(x))


PROGRAMS = [dimensions, two_batched_operands, gradients, writes, randomness, mistakes]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_vmap(program: Program) -> None:
    same(program)


def test_values_cannot_be_looked_at() -> None:
    outer = graphc.arange(3.0) + 1
    for look in (lambda a: a.item(), lambda a: a if a > 0 else -a, lambda a: graphc.tensor(a.tolist())):
        with pytest.raises(RuntimeError, match="vmap: It looks like you're calling"):
            graphc.vmap(look)(graphc.ones(3))
    assert graphc.vmap(lambda a: a * outer[0].item())(graphc.ones(2)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="inplace arithmetic"):
        graphc.vmap(lambda a: outer[0].add_(a))(graphc.ones(2))
