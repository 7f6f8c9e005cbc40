"""Modules and methods that are compiled stand wherever modules and methods stand."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

import graphc as torch
from graphc import nn


def _net(scale: float = 1.0) -> Any:
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0))
    with torch.no_grad():
        net[0].weight.copy_(torch.arange(6.0).reshape(2, 3) * scale)
        net[0].bias.fill_(scale)
    return net


def test_a_compiled_module_is_a_module() -> None:
    net = _net()
    compiled = torch.compile(net)
    assert isinstance(compiled, nn.Module)
    assert [n for n, _ in compiled.named_parameters()] == ["_orig_mod.0.weight", "_orig_mod.0.bias"]
    assert compiled._orig_mod is net
    assert len(compiled) == 2
    assert compiled[0].weight is net[0].weight
    compiled.eval()
    assert not net.training and not compiled.training and not net[1].training
    net.train()
    assert compiled.training
    compiled.extra = 3
    assert net.extra == 3
    with pytest.raises(AttributeError):
        _ = compiled.missing
    restored = torch.compile(_net(5.0))
    restored.load_state_dict(compiled.state_dict())
    assert restored[0].weight.tolist() == net[0].weight.tolist()


def test_a_compiled_module_is_a_child_whose_parameters_are_trained() -> None:
    class Net(nn.Module):
        def __init__(self, wrap: Any) -> None:
            super().__init__()
            self.body = _net(0.1)
            self.body = wrap(self.body)
            self.head = nn.Sequential(wrap(nn.ReLU()), nn.Linear(2, 1))
            with torch.no_grad():
                for p in self.head.parameters():
                    p.fill_(0.5)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x)).sum()

    seen: list[Any] = []
    for wrap in (lambda m: m, torch.compile):
        net = Net(wrap)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        for turn in range(6):
            optimizer.zero_grad()
            loss = net(torch.ones(2, 3) * (turn + 1))
            loss.backward()
            optimizer.step()
        seen.append([loss.item(), [p.tolist() for p in net.parameters()]])
    assert seen[0] == seen[1]


def test_copies_of_compiled_modules_are_compiled_and_apart() -> None:
    compiled = torch.compile(_net())
    x = torch.ones(1, 3)
    with torch.no_grad():
        expected = [compiled(x).tolist() for _ in range(3)][-1]
        for made in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):  # noqa: S301
            made[0].weight.zero_()
            assert [made(x).tolist() for _ in range(3)] == [[[1.0, 1.0]]] * 3
            assert compiled(x).tolist() == expected
            assert type(made) is type(compiled)


def test_hooks_of_compiled_modules() -> None:
    compiled = torch.compile(_net())
    with torch.no_grad():
        plain = compiled(torch.ones(1, 3))
        handle = compiled.register_forward_hook(lambda module, args, out: out * 2)
        for _ in range(3):
            assert compiled(torch.ones(1, 3)).tolist() == (plain * 2).tolist()
        handle.remove()
        assert compiled(torch.ones(1, 3)).tolist() == plain.tolist()


class Scaled(nn.Module):
    factor = 2.0

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), weight))
        self.calls = 0

    @torch.compile
    def forward(self, x: Any) -> Any:
        return x * self.weight.detach() * self.factor

    @torch.compile(fullgraph=True)
    def shifted(self, x: Any, *, by: float = 1.0) -> Any:
        return x + self.weight.detach() + by

    @classmethod
    @torch.compile
    def doubled(cls, x: Any) -> Any:
        return x * cls.factor

    @staticmethod
    @torch.compile
    def negated(x: Any) -> Any:
        return -x

    @property
    @torch.compile
    def inverse(self) -> Any:
        return 1 / self.weight.detach()


def test_methods_are_compiled_for_each_instance() -> None:
    a, b, x = Scaled(1.0), Scaled(4.0), torch.ones(2)
    for turn in range(6):
        if turn == 4:
            a.factor = 3.0
        scale = 3.0 if turn >= 4 else 2.0
        assert a(x).tolist() == [scale, scale]
        assert b(x).tolist() == [8.0, 8.0]
        assert b.shifted(x, by=2.0).tolist() == [7.0, 7.0]
        assert Scaled.forward(b, x).tolist() == [8.0, 8.0]
        assert a.doubled(x).tolist() == Scaled.doubled(x).tolist() == [2.0, 2.0]
        assert a.negated(x).tolist() == [-1.0, -1.0]
        assert b.inverse.tolist() == [0.25, 0.25]
    before = torch.counters()["replays"]
    for _ in range(3):
        a(x), b(x)
    assert torch.counters()["replays"] == before + 6
    c = copy.deepcopy(a)
    with torch.no_grad():
        c.weight.fill_(10.0)
    for _ in range(3):
        assert c(x).tolist() == [30.0, 30.0]
        assert a(x).tolist() == [3.0, 3.0]
    made = [Scaled(float(k)) for k in range(40)]
    for _ in range(2):
        assert [m(x).tolist()[0] for m in made] == [2.0 * k for k in range(40)]


def test_copies_of_what_holds_a_compiled_method_use_their_own() -> None:
    class Holder:
        def __init__(self) -> None:
            self.k = 2.0
            self.run = torch.compile(self.scaled)

        def scaled(self, x: Any) -> Any:
            return x * self.k

    first, x = Holder(), torch.ones(2)
    for _ in range(3):
        assert first.run(x).tolist() == [2.0, 2.0]
    second = copy.deepcopy(first)
    second.k = 5.0
    for _ in range(3):
        assert second.run(x).tolist() == [5.0, 5.0]
        assert first.run(x).tolist() == [2.0, 2.0]
