"""Where modules keep their hooks, hooks of all modules, and the older backward hooks, against PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from tests.differential.modules import same as same_warnings
from tests.differential.side_by_side import Say, attempt, same

TABLES = [
    *("_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook", "_forward_hooks"),
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks"),
    *("_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"),
]


def sizes(module: Any) -> list[Any]:
    held = [getattr(module, name) for name in TABLES]
    return [h if h is None or isinstance(h, bool) else len(h) for h in held]


def nothing(*args: Any) -> None:
    return None


REGISTER: dict[str, Callable[[Any], Any]] = {
    "forward": lambda m: m.register_forward_hook(nothing),
    "forward_all": lambda m: m.register_forward_hook(nothing, with_kwargs=True, always_call=True, prepend=True),
    "forward_pre": lambda m: m.register_forward_pre_hook(nothing, with_kwargs=True),
    "full": lambda m: m.register_full_backward_hook(nothing),
    "pre": lambda m: m.register_full_backward_pre_hook(nothing),
    "regular": lambda m: m.register_backward_hook(nothing),
    "save": lambda m: m.register_state_dict_post_hook(lambda *a: None),
    "save_pre": lambda m: m.register_state_dict_pre_hook(nothing),
    "load": lambda m: m.register_load_state_dict_post_hook(nothing),
    "load_pre": lambda m: m.register_load_state_dict_pre_hook(nothing),
}


@pytest.mark.parametrize("name", REGISTER)
def test_tables(name: str) -> None:
    def program(t: Any, say: Say) -> None:
        module = t.nn.Tanh()
        handle = REGISTER[name](module)
        say(sizes(module), [n for n in module.__dict__ if n in TABLES])
        twin = copy.deepcopy(module)
        handle.remove()
        handle.remove()
        say(sizes(module), sizes(twin))
        with REGISTER[name](module):
            say(sizes(module))
        say(sizes(module))

    same(program)


def test_users_change_the_tables() -> None:
    def program(t: Any, say: Say) -> None:
        net = t.nn.Linear(2, 2)
        net.register_forward_hook(lambda m, a, out: out * 0 + 1)
        say(net(t.ones(2)))
        kept = dict(net._forward_hooks)
        net._forward_hooks.clear()
        say((net(t.ones(2)) == 1).all())
        net._forward_hooks.update(kept)
        say(net(t.ones(2)))
        net._forward_hooks.popitem()
        say(len(net._forward_hooks))
        handle = copy.deepcopy(net.register_forward_hook(nothing))
        handle.remove()
        say(len(net._forward_hooks))

    same(program)


def test_one_kind_of_backward_hooks() -> None:
    def program(t: Any, say: Say) -> None:
        a, b = t.nn.Tanh(), t.nn.Tanh()
        a.register_backward_hook(nothing)
        attempt(say, lambda: a.register_full_backward_hook(nothing))
        b.register_full_backward_hook(nothing)
        attempt(say, lambda: b.register_backward_hook(nothing))
        say(a._is_full_backward_hook, b._is_full_backward_hook)

    same(program)


@pytest.mark.parametrize("change", [False, True])
def test_regular_backward_hooks(change: bool) -> None:
    def program(t: Any, say: Say) -> None:
        layer = t.nn.Sigmoid()

        def hook(module: Any, inputs: Any, outputs: Any) -> Any:
            say(module, inputs, outputs)
            return (inputs[0] * 2,) if change else None

        layer.register_backward_hook(hook)
        x = t.tensor([0.5, -1.0], requires_grad=True)
        (layer(x) * 3).sum().backward()
        say(x.grad)

    same(program)


def test_regular_backward_hooks_warn() -> None:
    class Both:
        def __init__(self, t: Any, result: Any) -> None:
            self.module = type("M", (t.nn.Module,), {"forward": lambda self, *a: result(*a)})()
            self.module.register_backward_hook(nothing)

    def function(t: Any) -> Any:
        x = t.ones(2, requires_grad=True)
        Both(t, lambda x: {"a": x.exp()}).module(x)
        Both(t, lambda x, y: x.exp()).module(x, 3)
        Both(t, lambda x: (x.exp(), x.sin())).module(x)
        Both(t, lambda x: x.exp().sin()).module(x.cos())
        Both(t, lambda x: x.exp()).module(x.cos())
        return None

    assert "deprecated" in same_warnings(function)


def test_hooks_of_all_modules() -> None:
    def program(t: Any, say: Say) -> None:
        register = t.nn.modules.module
        net = t.nn.Sequential(t.nn.Linear(2, 2), t.nn.Tanh())
        t.nn.init.constant_(net[0].weight, 0.5)
        t.nn.init.constant_(net[0].bias, 0.25)

        def tell(what: str, result: Any = None) -> Any:
            def hook(module: Any, *args: Any) -> Any:
                say(what, type(module).__name__, *[a for a in args if not isinstance(a, dict)])
                return result

            return hook

        handles = [
            register.register_module_forward_pre_hook(tell("all before")),
            register.register_module_forward_hook(tell("all after")),
            register.register_module_forward_hook(tell("all after with"), with_kwargs=True, always_call=True),
            register.register_module_full_backward_pre_hook(tell("all pre")),
            register.register_module_full_backward_hook(tell("all back")),
        ]
        net[1].register_forward_pre_hook(tell("before"))
        net[1].register_forward_hook(tell("after"))
        net[1].register_full_backward_pre_hook(tell("pre"))
        net[1].register_full_backward_hook(tell("back"))
        x = t.tensor([[1.0, -2.0]], requires_grad=True)
        net(x).sum().backward()
        say(x.grad)
        attempt(say, lambda: t.nn.Unflatten(0, (2, 2)).requires_grad_(True)(None))
        attempt(say, lambda: register.register_module_backward_hook(nothing))
        for handle in handles:
            handle.remove()
        say("removed")
        t.nn.Tanh()(x)

    same(program)


def test_registrations() -> None:
    def program(t: Any, say: Say) -> None:
        register = t.nn.modules.module
        doubled = register.register_module_parameter_registration_hook(
            lambda m, name, p: t.nn.Parameter(p.detach() * 2) if name == "weight" else say(name)
        )
        buffers = register.register_module_buffer_registration_hook(lambda m, name, b: b + 1)
        children = register.register_module_module_registration_hook(
            lambda m, name, child: say(type(m).__name__, name, type(child).__name__)
        )
        try:
            module = t.nn.Module()
            module.weight = t.nn.Parameter(t.ones(2))
            module.register_parameter("bias", t.nn.Parameter(t.ones(2)))
            module.register_parameter("none", None)
            module.register_buffer("seen", t.zeros(1))
            module.child = t.nn.Tanh()
            module.child = None
            module.add_module("other", t.nn.ReLU())
            t.nn.Sequential(t.nn.ELU())
            say(module.weight, module.bias, module.seen)
        finally:
            for handle in (doubled, buffers, children):
                handle.remove()

    same(program)


def test_state_hooks() -> None:
    def program(t: Any, say: Say) -> None:
        module = t.nn.Linear(1, 1)

        def post(*args: Any) -> None:
            say("post", list(args[1]))

        module.register_state_dict_post_hook(post)
        attempt(say, lambda: module._register_state_dict_hook(post))
        module._register_state_dict_hook(lambda m, state, prefix, local: {"other": state})
        module.register_load_state_dict_pre_hook(lambda m, state, *others: say(m is module, list(state)))
        module._register_load_state_dict_pre_hook(lambda state, *others: say(list(state), len(others)))
        say(list(module.state_dict()))
        module.load_state_dict(t.nn.Linear(1, 1).state_dict())

    same(program)


def test_compiled_calls_see_them() -> None:
    net = graphc.nn.Linear(2, 2)
    step = graphc.compile(lambda x: net(x))
    x = graphc.ones(2)
    plain = step(x).tolist()
    assert step(x).tolist() == plain
    with net.register_forward_hook(lambda m, a, out: out * 0):
        assert step(x).tolist() == [0, 0]
        net._forward_hooks.clear()
        assert step(x).tolist() == plain
    with graphc.nn.modules.module.register_module_forward_hook(lambda m, a, out: out * 0 + 7):
        assert step(x).tolist() == [7, 7]
    assert step(x).tolist() == plain
