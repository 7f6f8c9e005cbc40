"""Replays in native code: they do what replays in Python do, hold no reference too many, leave the rest to Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc import optim
from graphc.options import NATIVE_CALLS, scope
from tests.frontend.native_cases import (
    FUNCTIONS,
    MAKERS,
    Scaled,
    batch,
    natively,
    numbers,
    training,
    warm,
)

pytestmark = pytest.mark.usefixtures("native_replays")

SCALE = 2.0  # a global that a compiled function reads


# what runs natively


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_call_is_native_and_gives_what_python_gives(name: str) -> None:
    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        torch.manual_seed(1)
        compiled = torch.compile(FUNCTIONS[name])
        x, y = torch.randn(4, 4), torch.randn(4, 4)
        results: list[Any] = []
        seen = natively(lambda: results.extend(numbers(compiled(x, y)) for _ in range(10)))
        assert seen == (7 if native else 0)
        return [*results, numbers(x)]

    for ours, theirs in zip(run(True), run(False), strict=True):
        assert type(ours) is type(theirs) and repr(ours) == repr(theirs)


def test_results_have_the_types_that_python_gives() -> None:
    compiled = torch.compile(lambda x: {"max": x.max(0), "all": [x + 1, (x - 1,)]})
    x = torch.randn(3, 2)
    warm(compiled, x)
    results: list[Any] = []
    assert natively(lambda: results.append(compiled(x))) == 1
    made, expected = results[0], x.max(0)
    assert type(made) is dict and type(made["all"]) is list and type(made["all"][1]) is tuple
    assert type(made["max"]) is type(expected) and made["max"].indices.tolist() == expected.indices.tolist()


def test_parts_of_a_data_set_are_arguments() -> None:
    compiled = torch.compile(lambda x, y: (x * 2).sum(1) + y)
    data, labels = torch.randn(12, 3), torch.arange(12)
    data.data_ptr(), labels.data_ptr()

    def at(i: int) -> None:
        made = compiled(data[i : i + 2], labels[i : i + 2])
        x, y = data.numpy()[i : i + 2], labels.numpy()[i : i + 2]
        np.testing.assert_allclose(made.numpy(), x.sum(1) * 2 + y, rtol=1e-5)

    for i in range(4):
        at(i)
    assert natively(lambda: [at(i) for i in range(4, 10)]) == 6
    x, y = data[2:8:3], labels[:2]
    expected = (data.numpy()[2:8:3] * 2).sum(1) + labels.numpy()[:2]
    np.testing.assert_allclose(compiled(x, y).numpy(), expected, rtol=1e-5)
    assert natively(lambda: compiled(x, y)) == 0, "its elements do not lie in one piece"


def test_float_constants_are_native_until_they_change() -> None:
    compiled = torch.compile(lambda x, scale: x / scale)
    x = torch.ones(2)
    for _ in range(3):
        assert compiled(x, 2.0).tolist() == [0.5, 0.5]
    assert natively(lambda: compiled(x, 2.0)) == 1
    assert compiled(x, 4.0).tolist() == [0.25, 0.25] and compiled(x, 2.0).tolist() == [0.5, 0.5]
    for zero in (0.0, -0.0, 0.0):
        assert compiled(x, zero).tolist() == [float("inf") if str(zero) == "0.0" else float("-inf")] * 2


def test_the_argument_itself_is_returned() -> None:
    compiled = torch.compile(lambda x: (x, x + 1))
    x = torch.ones(3)
    warm(compiled, x)
    assert natively(lambda: compiled(x)) == 1 and compiled(x)[0] is x


def test_views_of_arguments_are_returned_anew() -> None:
    compiled = torch.compile(lambda x, y: [x.t(), y + 1, x[1:]])
    x, y = torch.zeros(2, 2), torch.zeros(2)
    warm(compiled, x, y)
    other = torch.ones(2, 2)
    results: list[Any] = []
    assert natively(lambda: results.extend(compiled(other, y))) == 1
    results[0].add_(1)
    assert other.tolist() == [[2, 2], [2, 2]] and results[2].tolist() == [[2, 2]] and x.tolist() == [[0, 0], [0, 0]]
    assert results[2]._base is other and results[1].tolist() == [1, 1]


def test_one_tensor_may_be_several_arguments() -> None:
    compiled = torch.compile(lambda x, y, z: x * y + z)
    a, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0, 7.0])
    for args in ((a, a, b), (a, b, a), (b, a, a), (a, a, a)):
        warm(compiled, *args)
        assert natively(lambda args=args: compiled(*args)) == 1
        assert compiled(*args).tolist() == (args[0] * args[1] + args[2]).tolist()
    assert natively(lambda: compiled(a, a, b)) == 0, "they share memory in another way than the last time"


def test_named_arguments_and_constants_are_native() -> None:
    compiled = torch.compile(lambda x, y, power=1, label="": (x + y) * power)
    x, y = torch.ones(3), torch.ones(3)
    warm(compiled, x, y=y, power=3, label="a")
    assert natively(lambda: compiled(x, y=y, power=3, label="a")) == 1
    assert natively(lambda: compiled(x, y=y, power=2, label="a")) == 0
    assert compiled(x, power=2, y=y, label="a").tolist() == [4, 4, 4]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", MAKERS)
def test_steps_are_native_and_train_as_in_python(name: str, dropout: float) -> None:
    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        net, optimizer, step = training(MAKERS[name], dropout=dropout)
        results: list[Any] = []

        def steps() -> None:
            for i in range(12):
                if i == 8:
                    optimizer.param_groups[0]["lr"] *= 0.5
                results.append(numbers(step(*batch(i))))
                results.extend(numbers(p.grad) for p in net.parameters())
                results.extend(numbers(p) for p in net.parameters())

        seen = natively(steps)
        assert seen >= 6 if native else seen == 0
        return results

    for ours, theirs in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ending", [False, True], ids=["begin", "end"])
def test_gradients_over_one_value_and_gradients_that_are_cleared(ending: bool) -> None:
    """Biases that are added have the same gradient, which each holds for itself; at the end none may be left."""

    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        torch.manual_seed(0)
        weight, first, second = (torch.randn(4, requires_grad=True) for _ in range(3))
        optimizer = optim.SGD([weight, first, second], lr=0.1)

        def step(x: Any) -> Any:
            if not ending:
                optimizer.zero_grad()
            loss = ((x * weight + first + second) ** 2).mean()
            loss.backward()
            optimizer.step()
            if ending:
                optimizer.zero_grad()
            return loss

        compiled = torch.compile(step)
        results: list[Any] = []

        def steps() -> None:
            for i in range(8):
                results.append(numbers(compiled(batch(i)[0])))
                results.extend(numbers(p) for p in (weight, first, second))
                results.extend(numbers(p.grad) for p in (weight, first, second))
            if not ending:
                first.grad.zero_()
                results.append(numbers(second.grad))

        assert (natively(steps) > 2) is native
        return results

    for ours, theirs in zip(run(True), run(False), strict=True):
        assert repr(ours) == repr(theirs)


def test_accumulated_gradients_are_native() -> None:
    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        torch.manual_seed(0)
        net = nn.Linear(4, 2)

        def step(x: Any) -> Any:
            loss = (net(x) ** 2).mean()
            loss.backward()
            return loss

        compiled = torch.compile(step)
        results: list[Any] = []

        def steps() -> None:
            for i in range(8):
                results.append(numbers(compiled(batch(i)[0])))
                results.extend(numbers(p.grad) for p in net.parameters())

        assert (natively(steps) > 0) is native
        return results

    for ours, theirs in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# what somebody still looks at


def test_results_that_are_kept_stay_as_they_were() -> None:
    compiled = torch.compile(lambda x, y: x + y)
    x = torch.zeros(5)
    warm(compiled, x, x + 1)
    results = [compiled(x, torch.full((5,), float(i))) for i in range(20)]
    assert [r.tolist() for r in results] == [[float(i)] * 5 for i in range(20)]


def test_parameters_and_gradients_that_somebody_holds_stay_as_they_were() -> None:
    net, _, step = training(MAKERS["momentum"])
    x, y = batch(0)
    warm(step, x, y)
    arrays = [p.detach().numpy() for p in net.parameters()]
    gradients = [p.grad for p in net.parameters()]
    before = [numbers(g) for g in gradients]
    step(x, y)
    for gradient, was, p in zip(gradients, before, net.parameters(), strict=True):
        np.testing.assert_array_equal(numbers(gradient), was)
        assert p.grad is not gradient
    for array, p in zip(arrays, net.parameters(), strict=True):
        np.testing.assert_array_equal(array, p.detach().numpy())  # memory that NumPy sees is written in place
    del arrays, gradients, array, gradient
    for _ in range(3):
        step(x, y)
    assert natively(lambda: step(x, y)) == 1


def test_writes_are_counted() -> None:
    net, _, step = training(MAKERS["sgd"])
    x, y = batch(0)
    warm(step, x, y)
    weight = net[0].weight
    version, count = weight._storage.version, weight._version
    assert natively(lambda: step(x, y)) == 1
    assert (weight._storage.version, weight._version) == (version + 1, count + 1)


# what must be seen


def test_changes_of_what_is_read_are_seen() -> None:
    global SCALE
    factor = 1.0
    model = Scaled()
    compiled = torch.compile(lambda x: (model(x) * SCALE * factor).detach())
    x = torch.ones(2, 4)

    def agrees() -> None:
        assert compiled(x).tolist() == (model(x) * SCALE * factor).tolist()

    def settled() -> int:
        warm(compiled, x)
        return natively(lambda: compiled(x))

    changes: list[Callable[[], Any]] = [
        lambda: setattr(model, "scale", 3.0),
        lambda: setattr(model, "training", False),
        lambda: setattr(model.layer, "bias", nn.Parameter(torch.ones(4))),
        lambda: model.layer.weight.data.fill_(0.5),
        lambda: setattr(model.layer.weight, "data", torch.full((4, 4), 0.25)),
        lambda: model.layer.weight.requires_grad_(False),
        lambda: model.register_forward_hook(lambda module, given, result: result + 1),
    ]
    assert settled() == 1
    for change in changes:
        change()
        agrees()
        assert settled() == 1
    SCALE = 5.0
    agrees()
    factor = 7.0
    agrees()
    SCALE = 2.0
    agrees()


def test_an_attribute_that_is_gone_is_an_error_as_ever() -> None:
    model = Scaled()
    compiled = torch.compile(model)
    x = torch.ones(2, 4)
    warm(compiled, x)
    del model.scale
    with pytest.raises(AttributeError, match="scale"):
        compiled(x)
    model.scale = 2.0
    assert compiled(x).tolist() == model(x).tolist()


def test_modes_are_seen() -> None:
    model = Scaled()
    compiled = torch.compile(lambda x: (model(x) * 2).detach())
    x = torch.ones(2, 4)
    warm(compiled, x)
    assert natively(lambda: compiled(x)) == 1
    with torch.no_grad():
        assert natively(lambda: compiled(x)) == 0
    with torch.inference_mode():
        assert compiled(x).is_inference()
    with scope(poison=True):
        assert natively(lambda: compiled(x)) == 0
    assert not compiled(x).is_inference()


def test_results_of_inference_mode_count_no_writes() -> None:
    model = Scaled()
    compiled = torch.compile(lambda x: model(x) * 2)
    x = torch.ones(2, 4)
    results: list[Any] = []
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            warm(compiled, x)
            assert natively(lambda: results.extend(compiled(x) for _ in range(5))) == 5
            expected = (model(x) * 2).tolist()
        for result in results:
            assert result.is_inference() is (mode is torch.inference_mode) and result.tolist() == expected
        results.clear()


def test_other_arguments_are_left_to_python() -> None:
    compiled = torch.compile(lambda x, y: x * 2 + y)
    x, y = torch.ones(3), torch.ones(3)
    warm(compiled, x, y)
    for args in ((x[:2], y[:2]), (x.double(), y.double()), (x, x), (torch.ones(6)[::2], y), (x, 1.5), (x, np.ones(3))):
        expected = (torch.as_tensor(args[0]) * 2 + args[1]).tolist()
        assert compiled(*args).tolist() == expected
    needs = torch.ones(3, requires_grad=True)
    assert compiled(needs, y).requires_grad
    warm(compiled, x, y)
    assert natively(lambda: compiled(x, y)) == 1
    with pytest.raises(TypeError):
        compiled(x)
    with pytest.raises(TypeError):
        compiled(x, y, z=y)


class Special(torch.Tensor):
    """A subclass of the user's."""


def test_subclasses_are_arguments_too() -> None:
    compiled = torch.compile(lambda x: x + 1)
    plain, special = torch.ones(3), torch.ones(3).as_subclass(Special)
    for _ in range(5):
        assert compiled(plain).tolist() == compiled(special).tolist() == [2, 2, 2]
    warm(compiled, special)
    assert natively(lambda: compiled(special)) == 1
    assert natively(lambda: compiled(plain)) == 0


def test_work_that_is_pending_runs_before() -> None:
    compiled = torch.compile(lambda x: x + 1)
    x = torch.zeros(3)
    warm(compiled, x)
    x.add_(5)
    assert compiled(x).tolist() == [6, 6, 6]
    pending = torch.zeros(3) + 2
    assert compiled(x).tolist() == [6, 6, 6] and pending.tolist() == [2, 2, 2]


def test_inside_another_compiled_function_it_is_captured() -> None:
    inner = torch.compile(lambda x: x + 1)
    x = torch.zeros(3)
    warm(inner, x)
    outer = torch.compile(lambda x: inner(x) * 2)
    warm(outer, x)
    assert natively(lambda: outer(x)) == 1 and outer(x).tolist() == [2, 2, 2]


# errors and threads


def test_a_failed_check_is_raised_after_what_was_written() -> None:
    def run(native: bool) -> list[Any]:
        NATIVE_CALLS.set(native)
        net, _, step = training(MAKERS["sgd"])
        x, y = batch(0)
        warm(step, x, y)
        with pytest.raises(IndexError, match="out of bounds"):
            step(x, torch.tensor([0, 1, 7, 0, 1]))
        seen = natively(lambda: step(x, y))
        assert seen == int(native)
        return [np.isnan(numbers(p)).any() for p in net.parameters()]

    assert run(True) == run(False)


def test_errors_of_numbers_read_from_python_are_raised() -> None:
    _, optimizer, step = training(MAKERS["adam"])
    x, y = batch(0)
    warm(step, x, y)
    group = optimizer.param_groups[0]
    group["lr"] = "fast"
    for _ in range(2):
        with pytest.raises((TypeError, ValueError)):
            step(x, y)
    group["lr"] = 0.01
    assert natively(lambda: step(x, y)) == 1


class Reentrant:
    """A learning rate that calls the step while it is being read."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call: Callable[[], Any] | None = call
        self.calls = 0

    def __neg__(self) -> float:
        call, self.call = self.call, None
        if call is not None:
            self.calls += 1
            call()
        return -0.01


def test_a_call_inside_a_call_is_left_to_python() -> None:
    net, optimizer, step = training(MAKERS["sgd"])
    x, y = batch(0)
    warm(step, x, y)
    rate = Reentrant(lambda: step(x, y))
    optimizer.param_groups[0]["lr"] = rate
    assert natively(lambda: step(x, y)) == 1 and rate.calls == 1
    assert all(np.isfinite(numbers(p)).all() for p in net.parameters())


@pytest.mark.parametrize("size", [4, 96], ids=["short", "long"])
def test_threads_call_at_once(size: int) -> None:
    """Long programs let other threads run Python meanwhile."""
    compiled = torch.compile(lambda x, y: x @ y + 1)
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        x = torch.full((size, size), float(seed))
        y = torch.eye(size)
        x.data_ptr(), y.data_ptr()
        start.wait()
        for _ in range(200):
            result = compiled(x, y)
            if not (result.numpy() == seed + 1).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert natively(run) > 0 and not wrong


def test_programs_that_take_long_let_the_lock_go() -> None:
    def releases(size: int) -> bool:
        compiled = torch.compile(lambda x: x @ x)
        warm(compiled, torch.ones(size, size))
        native = compiled._recent.native
        return bool(native._plan.get("release"))

    assert [releases(size) for size in (8, 256)] == [False, True]
