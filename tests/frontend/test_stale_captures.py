"""What compiled functions read is read at every call: arguments of all kinds, parameter groups, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from graphc import nn, optim
from graphc.counting import FRONT
from graphc.errors import UsageError


def test_slices_and_ranges_are_arguments_by_value() -> None:
    x = torch.arange(10)
    picked = torch.compile(lambda x, s: x[s])
    assert [picked(x, slice(k, k + 2)).tolist() for k in range(8)] == [[k, k + 1] for k in range(8)]
    summed = torch.compile(lambda x, numbers: x * sum(numbers))
    assert [summed(torch.ones(1), range(k)).item() for k in range(6)] == [0, 0, 1, 3, 6, 10]
    within = torch.compile(lambda x, numbers: x * sum(numbers[0]))
    assert [within(torch.ones(1), [range(k)]).item() for k in range(6)] == [0, 0, 1, 3, 6, 10]
    named = torch.compile(lambda x, s: x * len(s.start))
    assert [named(torch.ones(1), slice("a" * k, None)).item() for k in range(1, 6)] == [1, 2, 3, 4, 5]


def test_kinds_of_keys_are_told_apart() -> None:
    f = torch.compile(lambda x, table: x * (2 if any(isinstance(key, bool) for key in table) else 3))
    assert [f(torch.ones(1), {key: 0}).item() for key in (1, True, 1.0, 1, True)] == [3, 2, 3, 3, 2]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_arguments_and_gradients_may_be_left_at_a_number(shape: tuple[int, ...]) -> None:
    zeroed = torch.compile(lambda total: total.zero_())
    filled = torch.compile(lambda x, total: (total.fill_(1.5), x * 2)[1])
    weight = torch.full(shape, 2.0, requires_grad=True)

    @torch.compile
    def step(x: Any) -> Any:
        (x * weight).sum().backward()
        weight.grad.zero_()  # type: ignore[union-attr]
        return x * 3

    for value in (3.0, 4.0, 5.0):
        total = torch.full(shape, value)
        zeroed(total)
        assert (total == 0).all()
        assert filled(torch.ones(2), total).tolist() == [2, 2] and (total == 1.5).all()
        step(torch.ones(shape))
        assert (weight.grad == 0).all()


class Plain(optim.Optimizer):
    """An optimizer of the user, which reads its groups."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=-group["lr"])


def _trained(wrap: Callable[[Any], Any]) -> list[float]:
    weight = nn.Parameter(torch.ones(2))
    optimizer = Plain([weight], 1.0)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    seen = []

    @wrap
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(4):
        step(torch.ones(2))
        seen.append(weight[0].item())
        schedule.step()
    return seen


def test_an_optimizer_of_the_user_sees_its_rate() -> None:
    assert _trained(torch.compile) == _trained(lambda f: f) == pytest.approx([0, -0.1, -0.11, -0.111])


def test_numbers_of_groups_are_read_by_the_user() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    group = optimizer.param_groups[0]
    direct = torch.compile(lambda x: x * optimizer.param_groups[0]["lr"])
    state = torch.compile(lambda x: (x * 1, optimizer.state_dict()["param_groups"][0]["lr"]))
    for rate in (1.0, 2.0, 3.0):
        group["lr"] = rate
        assert direct(torch.ones(1)).item() == rate
        assert state(torch.ones(1))[1] == rate


def test_rates_that_only_graphc_reads_capture_nothing_again() -> None:
    weight = nn.Parameter(torch.ones(2))

    class Trainer:
        def __init__(self) -> None:
            self.optimizer = optim.SGD([weight], lr=1.0)

        def log(self) -> float:  # is not called by `step`
            return self.optimizer.param_groups[0]["lr"]

        def step(self, x: Any) -> Any:
            self.optimizer.zero_grad()
            loss = (weight * x).sum()
            loss.backward()
            self.optimizer.step()
            return loss

    trainer = Trainer()
    schedule = optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.9)
    step = torch.compile(trainer.step)
    for number in range(8):
        if number == 3:
            captures = FRONT.captures
        step(torch.ones(2))
        schedule.step()
    assert FRONT.captures == captures


def test_a_gradient_that_is_returned_is_that_of_now() -> None:
    weight = torch.tensor([1.0, 2.0], requires_grad=True)

    @torch.compile
    def step(x: Any) -> Any:
        (x * weight).sum().backward()
        return weight.grad

    for number in range(7):
        assert step(torch.ones(2)) is weight.grad
        if number == 2:
            weight.grad = None
    assert weight.grad.tolist() == [4, 4]  # type: ignore[union-attr]


def test_numpys_random_functions_run_each_time() -> None:
    draw = np.random.default_rng(0).random
    f = torch.compile(lambda x: x * float(draw()))
    assert len({f(torch.ones(1)).item() for _ in range(4)}) == 4


def test_gradients_that_are_views_are_zeroed() -> None:
    whole = torch.ones(4)
    weight = nn.Parameter(torch.ones(2))
    weight.grad = whole[:2]
    optim.SGD([weight], lr=0.1).zero_grad(set_to_none=False)
    assert whole.tolist() == [0, 0, 1, 1]


def test_floor_divide_has_no_gradient() -> None:
    weight = torch.tensor([5.0, 7.0], requires_grad=True)
    with pytest.raises(UsageError, match="derivative for aten::floor_divide is not implemented"):
        (weight // 2).sum().backward()


LOOKS: dict[str, Callable[[Any, float], Any]] = {
    "returned": lambda x, k: (x * k, k)[1],
    "as a tensor": lambda x, k: torch.as_tensor(k, dtype=torch.float64),
    "its type": lambda x, k: x * 2 if isinstance(k, float) else x * 3,
    "a key": lambda x, k: x * {2.0: 5}.get(k, 7),
    "in a list": lambda x, k: torch.tensor([k]),
    "rounded": lambda x, k: x * round(k),
    "a text": lambda x, k: x * len(f"{k:{'3.1' if k > 2 else '5.3'}f}"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_floats_that_python_looks_at_stay_floats(name: str) -> None:
    function, x = LOOKS[name], torch.ones(2)
    compiled = torch.compile(function)
    for k in (1.0, 2.0, 3.0, 4.0, 2.0, *np.linspace(5, 9, 12)):
        got, expected = compiled(x, float(k)), function(x, float(k))
        assert type(got) is type(expected)
        if isinstance(got, float):
            assert got == expected
        else:
            assert got.dtype == expected.dtype and got.tolist() == expected.tolist()


def test_a_float_of_many_values_is_not_captured_for_each() -> None:
    f = torch.compile(LOOKS["rounded"])
    before = FRONT.captures
    for k in range(40):
        assert f(torch.ones(1), k + 0.25).item() == k
    assert FRONT.captures - before <= 10


def test_a_float_that_tensors_take_is_read_at_run_time() -> None:
    f = torch.compile(lambda x, k: x * k + k)
    before = FRONT.captures
    assert [f(torch.ones(1), float(k)).item() for k in range(6)] == [0, 2, 4, 6, 8, 10]
    assert FRONT.captures - before <= 2


def test_vmap_of_a_compiled_function() -> None:
    f = torch.compile(lambda x: x * 2 + 1)
    x = torch.arange(6.0).reshape(2, 3)
    assert torch.func.vmap(f)(x).tolist() == (x * 2 + 1).tolist()
    assert f(x[0]).tolist() == [1, 3, 5]
    assert f(x[0]).tolist() == [1, 3, 5]  # replayed
    assert torch.func.vmap(f)(x).tolist() == (x * 2 + 1).tolist()


def test_attributes_of_tensors_that_are_held() -> None:
    scale = torch.ones(1)
    scale.flag = 1  # type: ignore[attr-defined]
    f = torch.compile(lambda x: x * (2 if scale.flag == 1 else 3))  # type: ignore[attr-defined]
    seen = []
    for flag in (1, 1, 2, 2):
        scale.flag = flag  # type: ignore[attr-defined]
        seen.append(f(torch.ones(1)).item())
    assert seen == [2, 2, 3, 3]


def test_tensors_over_the_same_memory_are_told_apart() -> None:
    a = torch.ones(1)
    for first in (a, a.detach()):
        f = torch.compile(lambda x: x * 2 if x is a else x * 3)
        for x in (first, a, a.detach(), a, a.detach(), torch.ones(1)):
            assert f(x).item() == (2 if x is a else 3)
