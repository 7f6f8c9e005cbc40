"""Hooks of optimizers against PyTorch."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import graphc
from tests.differential.side_by_side import Say, attempt, same


def optimizer(t: Any) -> Any:
    parameter = t.nn.Parameter(t.ones(2))
    parameter.grad = t.ones(2)
    return t.optim.SGD([parameter], lr=0.5, momentum=0.5)


def test_steps() -> None:
    def program(t: Any, say: Say) -> None:
        made = optimizer(t)
        of_all = import_module(f"{t.__name__}.optim.optimizer")

        def tell(what: str) -> Any:
            def hook(held: Any, args: Any, kwargs: Any) -> None:
                say(what, args[0] is held, held is made, len(args), list(kwargs), held.param_groups[0]["params"])

            return hook

        handles = [
            of_all.register_optimizer_step_pre_hook(tell("all")),
            of_all.register_optimizer_step_post_hook(tell("all after")),
            made.register_step_pre_hook(tell("before")),
            made.register_step_post_hook(tell("after")),
        ]
        try:
            made.step()
            made.step(closure=lambda: say("closure"))
            with made.register_step_pre_hook(lambda o, args, kw: (args, {"closure": lambda: say("other")})):
                made.step()
            twin = copy.deepcopy(made)
            twin.register_step_post_hook(lambda o, args, kw: say("copy"))
            twin.step()
            made.step()
        finally:
            for handle in handles:
                handle.remove()
        made.step()
        made.register_step_pre_hook(lambda o, args, kw: 3)
        try:
            made.step()
        except RuntimeError as error:
            say(str(error).partition(" must ")[2].splitlines()[0])

    same(program)


def test_states() -> None:
    def program(t: Any, say: Say) -> None:
        made = optimizer(t)
        made.step()
        made.register_state_dict_pre_hook(lambda o: say("saving", o is made))
        made.register_state_dict_post_hook(lambda o, state: {**state, "more": 1})
        made.register_state_dict_post_hook(lambda o, state: say(sorted(state)), prepend=True)
        made.register_load_state_dict_pre_hook(lambda o, state: say("loading", sorted(state)))
        made.register_load_state_dict_pre_hook(lambda o, state: {k: v for k, v in state.items() if k != "more"})
        made.register_load_state_dict_post_hook(lambda o: say("loaded"))
        state = made.state_dict()
        say(sorted(state))
        made.load_state_dict(state)
        say(sorted(state))

    same(program)


def test_own_optimizers() -> None:
    def program(t: Any, say: Say) -> None:
        class Half(t.optim.Optimizer):
            def __init__(self, params: Any) -> None:
                super().__init__(params, {})

            def step(self, closure: Any = None) -> str:
                return "stepped"

        made = Half([t.nn.Parameter(t.ones(1))])
        made.register_step_post_hook(lambda o, args, kw: say("after"))
        say(made.step())
        attempt(say, lambda: made.register_step_post_hook(print) and None)

    same(program)


def test_compiled_steps_see_new_hooks() -> None:
    made = optimizer(graphc)
    parameter = made.param_groups[0]["params"][0]
    step = graphc.compile(made.step)
    for _ in range(3):
        step()
    calls: list[int] = []
    with made.register_step_post_hook(lambda o, args, kw: calls.append(1)):
        step()
    assert calls == [1]
    before = parameter.tolist()
    step()
    assert parameter.tolist() != before
