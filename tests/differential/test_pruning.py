"""Pruning against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from tests.differential.compare import floats, to
from tests.differential.side_by_side import Say, attempt, same

METHODS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "identity": lambda t, p, m: p.identity(m, "weight"),
    "l1": lambda t, p, m: p.l1_unstructured(m, "weight", 0.3),
    "l1 number": lambda t, p, m: p.l1_unstructured(m, "weight", 2),
    "l1 none": lambda t, p, m: p.l1_unstructured(m, "weight", 0),
    "l1 scores": lambda t, p, m: p.l1_unstructured(m, "weight", 3, importance_scores=-m.weight.detach().abs() + 9),
    "ln": lambda t, p, m: p.ln_structured(m, "weight", 1, 2, 0),
    "ln columns": lambda t, p, m: p.ln_structured(m, "weight", 0.5, float("inf"), -1),
    "mask": lambda t, p, m: p.custom_from_mask(m, "weight", t.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]])),
    "bias": lambda t, p, m: p.l1_unstructured(m, "bias", 1),
    "twice": lambda t, p, m: p.l1_unstructured(p.ln_structured(m, "weight", 1, 1, 1), "weight", 0.5),
    "structured twice": lambda t, p, m: p.ln_structured(p.l1_unstructured(m, "weight", 0.4), "weight", 1, 2, 0),
    "three": lambda t, p, m: p.l1_unstructured(p.identity(p.identity(m, "weight"), "weight"), "weight", 0.25),
}


def pruning(t: Any) -> Any:
    return import_module(f"{t.__name__}.nn.utils.prune")  # PyTorch does not load it by itself


def layer(t: Any, seed: int = 0) -> Any:
    made = t.nn.Linear(4, 3)
    made.weight.data = to(t, floats(3, 4, seed=seed))
    made.bias.data = to(t, floats(3, seed=seed + 1))
    return made


def tell(say: Say, module: Any) -> None:
    say(dict(module.state_dict()), [name for name, _ in module.named_parameters()])
    say(module.weight.detach(), module.bias.detach(), [type(h).__name__ for h in module._forward_pre_hooks.values()])


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    def program(t: Any, say: Say) -> None:
        prune = pruning(t)
        module = METHODS[name](t, prune, layer(t))
        tell(say, module)
        say(prune.is_pruned(t.nn.Sequential(module)))
        x = to(t, floats(2, 4, seed=5))
        module(x).sum().backward()
        say({n: p.grad for n, p in module.named_parameters()})
        with t.no_grad():
            for parameter in module.parameters():
                parameter.add_(1)
        say(module(x).detach())
        pruned = "bias" if name == "bias" else "weight"
        say(prune.remove(module, pruned) is module, prune.is_pruned(module))
        tell(say, module)
        attempt(say, lambda: prune.remove(module, pruned))

    same(program)


def test_over_several_modules() -> None:
    def program(t: Any, say: Say) -> None:
        prune = pruning(t)
        modules = [layer(t), layer(t, 3)]
        pairs = [(modules[0], "weight"), (modules[1], "weight"), (modules[1], "bias")]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=0.4)
        for module in modules:
            tell(say, module)
        prune.global_unstructured(pairs, prune.L1Unstructured, {pairs[0]: t.arange(12.0).reshape(3, 4) / 100}, amount=3)
        for module in modules:
            tell(say, module)
        attempt(say, lambda: prune.global_unstructured(3, prune.L1Unstructured, amount=1))
        attempt(say, lambda: prune.global_unstructured(pairs, prune.L1Unstructured, 3, amount=1))
        try:
            prune.global_unstructured(pairs, prune.LnStructured, amount=1, n=2)
        except TypeError as error:
            say(str(error)[:60])

    same(program)


def test_random_methods() -> None:
    def program(t: Any, say: Say) -> None:
        prune = pruning(t)
        module = prune.random_unstructured(layer(t), "weight", 0.5)
        say((module.weight_mask == 0).sum())
        module = prune.random_structured(layer(t), "weight", 1, 1)
        say((module.weight_mask == 0).sum(), (module.weight_mask.sum(0) == 0).sum())
        container = prune.random_unstructured(prune.random_structured(layer(t), "weight", 1, 0), "weight", 2)
        say((container.weight_mask == 0).sum())
        hook = next(iter(container._forward_pre_hooks.values()))
        say(len(hook), [type(m).__name__ for m in hook], type(hook[0]).__name__)

    same(program)


def test_own_methods_and_errors() -> None:
    def program(t: Any, say: Say) -> None:
        prune = pruning(t)

        class Third(prune.BasePruningMethod):
            PRUNING_TYPE = "unstructured"

            def compute_mask(self, t: Any, default_mask: Any) -> Any:
                mask = default_mask.clone()
                mask.view(-1)[::3] = 0
                return mask

        module = layer(t)
        Third.apply(module, "weight")
        Third.apply(module, "weight")
        tell(say, module)
        values = t.arange(6.0)
        say(prune.L1Unstructured(2).prune(values), prune.L1Unstructured(2).prune(values, importance_scores=-values - 1))
        attempt(say, lambda: prune.L1Unstructured(2).prune(values, importance_scores=t.ones(2)))
        for amount in ("1", -1, 1.5, 13):
            attempt(say, lambda amount=amount: prune.l1_unstructured(layer(t), "weight", amount) and None)
        attempt(say, lambda: prune.ln_structured(layer(t), "bias", 1, 2, 0) and None)
        attempt(say, lambda: prune.ln_structured(layer(t), "weight", 1, 2, 2) and None)
        attempt(say, lambda: prune.PruningContainer().add_pruning_method(3))
        refused = layer(t)
        attempt(say, lambda: prune.l1_unstructured(refused, "weight", 13))
        tell(say, refused)

    same(program)
