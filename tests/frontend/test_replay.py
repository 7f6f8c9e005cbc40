"""Replays: what a step may do again (nothing but run), and memory that somebody still looks at."""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc import optim, recorder
from graphc.options import NATIVE_CALLS

FACTOR = 2.0  # a global that a compiled function reads

MAKERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.01),
    "adadelta": lambda p: optim.Adadelta(p, lr=0.01),
    "rprop": lambda p: optim.Rprop(p, lr=0.01),
    "asgd": lambda p: optim.ASGD(p, lr=0.01),
    "adafactor": lambda p: optim.Adafactor(p, lr=0.01),
}


def counted(run: Callable[[], Any]) -> dict[str, int]:
    before = torch.counters()
    run()
    return {name: value - before[name] for name, value in torch.counters().items()}


def training(make: Any) -> tuple[nn.Module, Callable[..., Any], tuple[Any, Any]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer, criterion = make(net.parameters()), nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    data = torch.tensor(np.ones((5, 4), np.float32)), torch.tensor(np.arange(5) % 3)
    for parameter in net.parameters():
        parameter.data_ptr()  # they are drawn when somebody looks
    return net, step, data


@pytest.mark.parametrize("name", MAKERS)
def test_a_replayed_step_only_runs(name: str, native: None) -> None:
    _, step, data = training(MAKERS[name])
    run = torch.compile(step)

    def steps() -> None:
        for _ in range(20):
            run(*data)

    steps()
    seen = counted(steps)
    assert seen["replays"] == seen["runs"] == 20
    for nothing in ("records", "flushes", "program_hits", "structure_hits", "programs_built", "autodiff", "captures"):
        assert seen[nothing] == 0, nothing
    assert seen["allocations"] == 0, "all memory is used again"


@pytest.mark.parametrize("name", MAKERS)
def test_the_first_step_is_captured(name: str) -> None:
    _, step, data = training(MAKERS[name])
    run = torch.compile(step, fullgraph=True)
    seen = counted(lambda: [run(*data) for _ in range(5)])
    assert (seen["captures"], seen["replays"], seen["programs_built"]) == (1, 4, 1)


@pytest.mark.parametrize("name", MAKERS)
def test_plain_steps_are_one_program(name: str) -> None:
    net, step, data = training(MAKERS[name])

    def observed() -> None:
        step(*data)
        net[0].weight.data_ptr()

    seen = counted(lambda: [observed() for _ in range(6)])
    assert seen["programs_built"] <= 2, "the first step has a program of its own at most"
    assert counted(observed)["program_hits"] == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_replayed_step_asks_nothing_of_each_parameter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choices of an optimizer and its numbers are looked up once for all parameters."""
    asked: list[str] = []

    def watched(what: str, given: Any) -> Any:
        def ask(compute: Callable[[], Any], *rest: Any) -> Any:
            def counting() -> Any:
                asked.append(what)
                return compute()

            return given(counting, *rest)

        return ask

    for where, what in (("graphc.optim.optimizer", "runtime_choice"), ("graphc.recorder", "runtime_scalar")):
        monkeypatch.setattr(f"{where}.{what}", watched(what, getattr(recorder, what)))

    def asked_for(count: int) -> int:
        parameters = [torch.ones(2).requires_grad_() for _ in range(count)]
        for parameter in parameters:
            parameter.data_ptr()
        optimizer = MAKERS[name](parameters)

        def step() -> None:
            optimizer.zero_grad()
            torch.stack([(p * p).sum() for p in parameters]).sum().backward()
            optimizer.step()

        run = torch.compile(step)
        for _ in range(3):
            run()
        asked.clear()
        seen = counted(run)
        assert seen["replays"] == 1
        return len(asked)

    assert 0 < asked_for(2) == asked_for(7)


@pytest.mark.parametrize("name", MAKERS)
def test_what_somebody_looks_at_is_not_overwritten(name: str, native: None) -> None:
    """Every way to hold an old parameter or gradient; expected values from plain steps."""

    def follow(compiled: bool) -> list[Any]:
        net, step, data = training(MAKERS[name])
        run = torch.compile(step) if compiled else step
        weight = net[0].weight
        held: list[Any] = []
        for turn in range(8):
            run(*data)
            held.append(weight.grad if turn % 2 else weight.grad.detach())
            held.append(weight.detach().clone())
            held.append(weight * 1.0)
            held.append(weight.grad.numpy())
            if turn == 3:
                shared = weight.detach().numpy()
            if turn >= 3:
                np.testing.assert_array_equal(shared, weight.tolist())
        return [h.tolist() for h in held]

    for found, expected in zip(follow(True), follow(False), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_native_code", [True, False])
def test_what_a_written_tensor_held_before_is_handed_on(in_native_code: bool, native_replays: None) -> None:
    """As a result, and as what another tensor holds: the program may not write where it read that."""
    NATIVE_CALLS.set(in_native_code)

    def follow(compiled: bool) -> list[Any]:
        state, other, kept = (torch.arange(12.0).reshape(3, 4).clone() + i for i in range(3))

        def turn(x: Any) -> Any:
            before = state.clone()
            state.mul_(-1.0)
            return x.t(), before, state

        def part(x: Any) -> Any:
            kept.copy_(other)
            other[1:2] = -2.0
            return x.t(), other, kept

        seen: list[Any] = []
        for function in (turn, part):
            call = torch.compile(function) if compiled else function
            for _ in range(5):
                for result in call(torch.ones(2, 3)):
                    seen.append(result.numpy().copy())
                    result.mul_(0.5)
        return seen

    np.testing.assert_equal(follow(True), follow(False))


def test_history_of_a_plain_step_survives_replays() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    before = (w * w).sum()

    @torch.compile
    def f(x: Any) -> Any:
        with torch.no_grad():
            w.mul_(x)
            return w * 1.0

    for _ in range(3):
        f(torch.tensor([2.0, 2.0]))
    assert counted(lambda: f(torch.tensor([2.0, 2.0])))["replays"] == 1
    assert w.tolist() == [16, 32] and before.item() == 5
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        before.backward()


def test_arguments_that_share_memory() -> None:
    w = torch.tensor([1.0, 2.0])
    a, b = torch.tensor([10.0, 20.0]), torch.tensor([3.0, 4.0])

    @torch.compile
    def f(x: Any, y: Any) -> Any:
        return x * y + w

    expected = [(a, a), (a, b), (w, b), (a, w), (w, w), (b, a), (a, a), (w, b)]
    for _ in range(3):
        for x, y in expected:
            assert f(x, y).tolist() == (x * y + w).tolist()


def test_views_as_arguments_see_what_is_written_before_and_after_a_look() -> None:
    whole = torch.zeros(3)

    @torch.compile
    def own(view: Any) -> Any:
        view.add_(1)
        view.sum().item()
        return view * 2

    @torch.compile
    def otherwise(view: Any) -> Any:
        whole.add_(1)
        return view * 2

    @torch.compile
    def after_a_look(view: Any) -> Any:
        whole.add_(1)
        whole.sum().item()
        return view * 2

    written = 0
    for _ in range(3):
        for function in (own, otherwise, after_a_look):
            written += 1
            assert function(whole[1:]).tolist() == [2 * written] * 2, function


def test_gradients_of_the_users_own_are_written_in_place() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)

    @torch.compile
    def f(x: Any) -> None:
        (w * x).sum().backward()

    x = torch.tensor([1.0, 3.0])
    w.grad = torch.zeros(2)
    f(x), f(x)
    mine = w.grad = torch.tensor([10.0, 10.0])
    f(x), f(x)
    assert w.grad is mine and mine.tolist() == [12, 16]
    wide = torch.zeros(2, 2)
    w.grad = wide[1]
    f(x), f(x)
    assert wide.tolist() == [[0, 0], [2, 6]]


def test_batches_cut_from_memory_that_numpy_lent_are_replayed() -> None:
    array = np.arange(12, dtype=np.float32).reshape(6, 2)
    data = torch.from_numpy(array)
    run = torch.compile(lambda x: (x * 2).sum())
    seen = counted(lambda: [run(data[i : i + 2]).item() for i in (0, 2)])
    array[4:] = 1
    assert run(data[4:6]).item() == 8
    assert seen["captures"] == 1 and seen["replays"] == 1


def test_views_that_need_gradients_as_arguments() -> None:
    w = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    run = torch.compile(lambda x: (x * x).sum())
    for i in (0, 1, 0, 1):
        w.grad = None
        run(w[i]).backward()
        assert w.grad is not None
        assert w.grad.tolist() == [[0, 0] if j != i else [2 * v for v in w[i].tolist()] for j in (0, 1)]


def test_a_check_fails_at_a_replay_too() -> None:
    run = torch.compile(lambda x, y: nn.functional.cross_entropy(x, y))
    x = torch.zeros(2, 3)
    for _ in range(2):
        run(x, torch.tensor([0, 2]))
    with pytest.raises(IndexError, match="out of bounds"):
        run(x, torch.tensor([0, 3]))
    assert run(x, torch.tensor([0, 1])).item() == pytest.approx(np.log(3), rel=1e-5)


def test_a_number_that_an_optimizer_reads_is_new_at_each_replay() -> None:
    w = torch.tensor([8.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=1.0)

    @torch.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    for i, rate in enumerate((1, 0.5, 2, 0.25)):
        optimizer.param_groups[0]["lr"] = rate
        assert counted(step)["replays"] == (i > 0)
    assert w.tolist() == [8 - 3.75]


@pytest.mark.parametrize("name", ["global", "attribute", "item", "cell", "gradient", "mode", "length", "storage"])
def test_a_changed_guard_is_noticed_where_calls_repeat(name: str) -> None:
    """The call before was replayed by the shortest way there is; the next must not be."""
    weight = torch.tensor([2.0, 3.0])
    state = types.SimpleNamespace(scale=3.0)
    table, values, cell = {"shift": 1.0}, [1.0], 5.0

    def body(x: Any) -> Any:
        y = x * weight * FACTOR * state.scale + table["shift"] + cell
        for value in values:
            y = y + value
        return y

    function = types.FunctionType(body.__code__, dict(globals()), "body", None, body.__closure__)
    run = torch.compile(function)
    x = torch.tensor([1.0, 2.0])
    for _ in range(4):
        run(x)
    assert counted(lambda: run(x))["replays"] == 1
    if name == "global":
        function.__globals__["FACTOR"] = 7.0
    elif name == "attribute":
        state.scale = 4.0
    elif name == "item":
        table["shift"] = 2.0
    elif name == "cell":
        cell = 6.0
    elif name == "gradient":
        weight.requires_grad_()
    elif name == "mode":
        weight.requires_grad_()
        for _ in range(3):
            with torch.no_grad():
                run(x)
        assert run(x).grad_fn is not None
        return
    elif name == "length":
        values.append(3.0)
    else:
        weight.data = torch.tensor([5.0, 7.0])
    seen = counted(lambda: np.testing.assert_allclose(run(x).tolist(), function(x).tolist()))
    assert seen["replays"] == 0
    assert seen["captures"] == 1


def test_what_is_equal_but_another_object_is_no_change() -> None:
    state = types.SimpleNamespace(scale=float("3.5"))
    run = torch.compile(lambda x: x * state.scale)
    x = torch.tensor([1.0, 2.0])
    for _ in range(3):
        run(x)
    state.scale = float("3.5")
    assert counted(lambda: run(x))["replays"] == 1


def test_a_missing_entry_of_a_default_dictionary_is_not_made_by_looking() -> None:
    table: defaultdict[str, float] = defaultdict(float, {"a": 2.0})
    run = torch.compile(lambda x: x * table.get("a", 9.0))
    x = torch.tensor([1.0, 2.0])
    for _ in range(3):
        run(x)
    del table["a"]
    assert run(x).tolist() == [9.0, 18.0]
    assert not table


def test_arguments_of_another_kind_leave_the_shortest_way() -> None:
    run = torch.compile(lambda a, b: a + b)
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    for _ in range(3):
        run(a, b)
    assert run(a, a).tolist() == [2.0, 4.0]
    assert run(a, torch.tensor([1, 2])).dtype is torch.float32
    assert run(a, torch.tensor([1.0, 2.0, 3.0])[1:]).tolist() == [3.0, 5.0]
    assert run(a, torch.tensor([[1.0], [2.0]])).tolist() == [[2.0, 3.0], [3.0, 4.0]]
    assert run(a.requires_grad_(), b).requires_grad
    assert run(a.detach(), b).tolist() == [4.0, 6.0]


def test_constants_among_arguments_are_compared() -> None:
    run = torch.compile(lambda x, k, name, flag: x * k + (1 if name == "one" else 2) + (10 if flag else 0))
    x = torch.tensor([1.0, 2.0])
    for _ in range(3):
        run(x, 2, "one", False)
    assert counted(lambda: run(x, 2, "one", False))["replays"] == 1
    assert run(x, 3, "one", False).tolist() == [4.0, 7.0]
    assert run(x, 3, "two", False).tolist() == [5.0, 8.0]
    assert run(x, 3, "two", True).tolist() == [15.0, 18.0]
    assert run(x, True, "two", True).tolist() == [13.0, 14.0]
    assert run(x, 1, "two", True).tolist() == [13.0, 14.0]
    assert (run(x, 1, "two", 0).tolist(), run(x, 1, "two", 1).tolist()) == ([3.0, 4.0], [13.0, 14.0])
    kinds = torch.compile(lambda x, k: x if k is True else x + k)
    for k in (1, 1, 1, True, 1, 2.5, 2.5, 3.5, 1):
        assert kinds(x, k).tolist() == ([1.0, 2.0] if k is True else [1.0 + k, 2.0 + k])


def test_named_arguments_are_compared_by_name() -> None:
    run = torch.compile(lambda a, b=None, k=1: a * k if b is None else a * k - b)
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    for _ in range(3):
        assert run(a, b=b, k=2).tolist() == [-1.0, -1.0]
    assert counted(lambda: run(a, b=b, k=2))["replays"] == 1
    assert run(a, k=2, b=b).tolist() == [-1.0, -1.0]
    assert run(b=a, a=b).tolist() == [2.0, 3.0]
    assert run(a=a, b=b).tolist() == [-2.0, -3.0]
    assert run(a, b).tolist() == [-2.0, -3.0]
    assert run(a, b=b, k=3).tolist() == [0.0, 1.0]
    assert run(a, k=3).tolist() == [3.0, 6.0]
    assert run(a, b=a, k=3).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_gradients_of_a_replayed_step_are_those_of_a_plain_one(name: str, native: None) -> None:
    """Also those that lie in memory that a parameter of the same size had."""

    def run(compiled: bool, held: bool) -> list[np.ndarray]:
        torch.manual_seed(0)
        net = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(4, 4), nn.ReLU())))
        optimizer = MAKERS[name](net.parameters())

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        call = torch.compile(step) if compiled else step
        seen: list[np.ndarray] = []
        kept: list[Any] = []
        for i in range(6):
            call(torch.full((2, 4), 1.0 + i))
            if held:
                kept += [p.grad for p in net.parameters()]
            seen += [p.grad.numpy().copy() for p in net.parameters()]
            seen += [p.detach().numpy().copy() for p in net.parameters()]
        return seen + [gradient.numpy() for gradient in kept]

    for held in (False, True):
        for ours, plain in zip(run(True, held), run(False, held), strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)
