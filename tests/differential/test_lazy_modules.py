"""Lazy layers against PyTorch: before, at and after the first call."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import graphc
from tests.differential.compare import kind_of, message
from tests.differential.side_by_side import Say, attempt, same


def small(t: Any) -> Any:
    return t.nn.Sequential(
        t.nn.LazyConv2d(4, 3), t.nn.LazyBatchNorm2d(), t.nn.ReLU(), t.nn.Flatten(), t.nn.LazyLinear(5)
    )


def facts(model: Any) -> list[Any]:
    shapes = {
        name: repr(value) if type(value).__name__.startswith("Uninit") else list(value.shape)
        for name, value in model.state_dict().items()
    }
    hooks = [len(m._forward_pre_hooks) + len(m._load_state_dict_pre_hooks) for m in model.modules()]
    return [repr(model), [type(p).__name__ for p in model.parameters()], shapes, hooks, list(model.__dict__)]


@pytest.mark.parametrize("name", ["LazyConv", "LazyConvTranspose", "LazyBatchNorm", "LazyInstanceNorm"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_each(name: str, rank: int) -> None:
    def program(t: Any, say: Say) -> None:
        make = getattr(t.nn, f"{name}{rank}d")
        cases: list[tuple[Any, ...]] = [(), (1e-3, None, False), (1e-3, 0.1, True, False)]
        if "Conv" in name:
            cases = [(4, 2), (4, 2, 1, 0, 0, 1, False) if "Transpose" in name else (4, 2, 1, 0, 1, 1, False)]
        for args in cases:
            layer = make(*args)
            say(facts(layer))
            say(list(layer(t.ones(2, 3, *[4] * rank)).shape), facts(layer))

    same(program)


def test_errors() -> None:
    def program(t: Any, say: Say) -> None:
        layer = t.nn.LazyLinear(4)
        attempt(say, lambda: layer.weight.shape)
        attempt(say, lambda: layer.weight.share_memory_())
        attempt(say, lambda: layer.weight.no_such_name)
        for function in (lambda: layer.weight + 1, lambda: t.relu(layer.weight), lambda: layer.weight.numel()):
            try:
                function()
            except ValueError as error:
                say(kind_of(error), message(error).split(". ")[1:])
        say(layer.weight.dtype, layer.weight.size(), layer.weight.grad, layer.weight.is_leaf, repr(layer.weight))
        attempt(say, lambda: t.nn.LazyConv1d(4, 3)(t.ones(3)))
        attempt(say, lambda: t.nn.LazyConv1d(4, 3, groups=2)(t.ones(1, 3, 9)))
        attempt(say, lambda: t.nn.LazyLinear(3)())

    same(program)


def test_training_begins_before_the_shapes_are_known() -> None:
    def program(t: Any, say: Say) -> None:
        model = small(t)
        model[4].weight.requires_grad = False
        optimizer = t.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
        result = model(t.ones(2, 3, 5, 5))
        result.sum().backward()
        say([p.grad is None for p in model.parameters()], model[4].bias.grad)
        before = model[4].bias.detach().clone()
        optimizer.step()
        say(model[4].bias.detach() - before)

    same(program)


def test_copies_and_conversions() -> None:
    def program(t: Any, say: Say) -> None:
        model = small(t)
        model[1] = t.nn.LazyBatchNorm2d(track_running_stats=False)
        double = copy.deepcopy(model).double()
        say(facts(double), double[0].weight.dtype)
        say(double(t.ones(2, 3, 5, 5, dtype=t.float64)).dtype, facts(double))
        say(facts(model), model[0].weight.dtype)

    same(program)


def test_loading() -> None:
    def program(t: Any, say: Say) -> None:
        ready, lazy, other = small(t), small(t), small(t)
        ready(t.ones(2, 3, 5, 5))
        say(lazy.load_state_dict(ready.state_dict()), facts(lazy))
        say(all(t.equal(a, b) for a, b in zip(lazy.parameters(), ready.parameters(), strict=True)))
        say(list(lazy(t.ones(2, 3, 5, 5)).shape), facts(lazy))
        say(small(t).load_state_dict(other.state_dict()))
        attempt(say, lambda: ready.load_state_dict(other.state_dict()))
        attempt(say, lambda: small(t).load_state_dict({"0.weight": t.ones(4, 3, 3, 3)}, strict=False))

    same(program)


def test_a_module_of_ones_own() -> None:
    def program(t: Any, say: Say) -> None:
        class Scale(t.nn.modules.lazy.LazyModuleMixin, t.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor = t.nn.UninitializedParameter()
                self.seen = t.nn.UninitializedBuffer(dtype=t.int64)

            def initialize_parameters(self, x: Any, ready: bool = True) -> None:
                with t.no_grad():
                    self.factor.materialize(x.shape[-1:])
                    self.factor.fill_(2)
                    if ready:
                        self.seen.materialize(())

            def forward(self, x: Any, ready: bool = True) -> Any:
                return x * self.factor

        scale = Scale()
        attempt(say, lambda: scale(t.ones(2, 3)))
        say(list(scale.state_dict()), isinstance(scale.seen, t.nn.Buffer), type(scale.seen).__name__)
        attempt(say, lambda: Scale()(t.ones(2, 3), ready=False))
        bare = t.nn.modules.lazy.LazyModuleMixin
        say(type("Bare", (bare, t.nn.Module), {"forward": lambda self, x: x})().has_uninitialized_params())
        attempt(say, lambda: type("Bare", (bare, t.nn.Module), {"forward": lambda self, x: x})()(1))

    same(program)


def test_compiled_from_the_second_call_on() -> None:
    model = graphc.nn.LazyLinear(2)
    step = graphc.compile(lambda x: model(x))
    x = graphc.ones(4, 3)
    results = [step(x).tolist() for _ in range(3)]
    assert results[0] == results[1] == results[2]
    assert type(model) is graphc.nn.Linear
