"""Native replays of calls on CUDA devices: they do what replays in Python do, and leave the rest to Python."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.native.library import library
from graphc.options import NATIVE_CALLS
from graphc_runtime.devices.cuda import cuda_device
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.errors import DeviceError
from tests.cuda.machine import Machine
from tests.frontend.histories import check_history
from tests.frontend.native_cases import FUNCTIONS, MAKERS, batch, entered, natively, numbers, training, warm
from tests.frontend.test_compiled_training import training_history

SHIM_VARIANT = "quick"
OTHER_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "two draws": lambda x, y: x * graphc.rand(4, device=x.device) + y * graphc.rand(4, device=x.device),
    "its own number": lambda x, y: x * float(np.float32(0.1)) + y,
    "written twice": lambda x, y: (x.add_(1), y.mul_(x)),
    "sorted": lambda x, y: (x @ y).sort(),
    "gathered": lambda x, y: x[(y > 0).long().sum(0)],
}
CASES = {name: FUNCTIONS[name] for name in FUNCTIONS if name != "drawn"} | OTHER_FUNCTIONS


@pytest.fixture(autouse=True)
def native(cuda: Machine) -> Iterator[None]:
    """Native code is there, and on unless a test turns it off."""
    assert library() is not None
    NATIVE_CALLS.set(True)
    yield
    NATIVE_CALLS.reset()


def _cuda_numbers(value: Any) -> Any:
    if isinstance(value, graphc.Tensor):
        assert value.is_cuda
        return numbers(value.cpu())
    if isinstance(value, dict):
        return {key: _cuda_numbers(v) for key, v in value.items()}
    return [_cuda_numbers(v) for v in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", CASES)
def test_a_call_is_native_and_gives_what_python_gives(name: str) -> None:
    def run(on: bool) -> list[Any]:
        NATIVE_CALLS.set(on)
        graphc.manual_seed(1)
        compiled = graphc.compile(CASES[name])
        x, y = graphc.randn(4, 4).cuda(), graphc.randn(4, 4).cuda()
        results: list[Any] = []
        seen = natively(lambda: results.extend(_cuda_numbers(compiled(x, y)) for _ in range(8)))
        assert seen == (5 if on else 0)
        return [*results, _cuda_numbers(x)]

    for ours, theirs in zip(run(True), run(False), strict=True):
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("name", MAKERS)
def test_training_is_native_and_gives_what_python_gives(name: str) -> None:
    """With dropout, which draws, and a rate that changes, which is a number of each call."""

    def run(on: bool) -> tuple[list[Any], list[Any]]:
        NATIVE_CALLS.set(on)
        net, optimizer, step = training(MAKERS[name], dropout=0.25)
        net.cuda()
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        losses: list[Any] = []

        def steps(count: int) -> None:
            for _ in range(count):
                losses.append(step(*[t.cuda() for t in batch(len(losses))]))
                schedule.step()

        steps(4)
        seen = natively(lambda: steps(6))
        assert seen == (6 if on else 0)
        state = [p.detach().cpu().numpy() for p in net.parameters()]
        return [loss.item() for loss in losses], [*state, *(p.grad.cpu().numpy() for p in net.parameters())]

    (losses, state), (expected, others) = run(True), run(False)
    assert losses == expected and len(set(losses)) == len(losses)
    for ours, theirs in zip(state, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_somebody_holds_is_not_overwritten() -> None:
    net, _, step = training(MAKERS["momentum"])
    net.cuda()
    x, y = (t.cuda() for t in batch(0))
    warm(step, x, y)
    weight, kept = net[0].weight, []

    def steps() -> None:
        for _ in range(4):
            kept.append((weight.detach().clone(), weight.grad, weight.grad.clone(), step(x, y)))

    assert natively(steps) >= 3
    assert len({loss.item() for *_, loss in kept}) == 4
    for _, held, copied, _ in kept:
        np.testing.assert_array_equal(held.cpu().numpy(), copied.cpu().numpy())


def test_checks_are_looked_at_later_and_calls_go_on() -> None:
    net, _, step = training(MAKERS["sgd"])
    net.cuda()
    x, y = (t.cuda() for t in batch(0))
    wrong = graphc.tensor([0, 1, 7, 2, 1]).cuda()
    warm(step, x, y)
    assert natively(lambda: [step(x, wrong), step(x, y)]) == 2, "nobody has looked yet"
    with pytest.raises(IndexError, match="Target 7 is out of bounds"):
        step(x, y).item()
    assert natively(lambda: step(x, y)) == 1 and np.isfinite(step(x, y).item())


def test_many_checks_wait() -> None:
    """More than there is room for until somebody looks."""
    table = graphc.arange(8.0).cuda()
    pick = graphc.compile(lambda i: table[i] + 1)
    rows = graphc.tensor([1, 6]).cuda()
    warm(pick, rows)
    assert natively(lambda: [pick(rows) for _ in range(600)]) == 600
    pick(graphc.tensor([1, 9]).cuda())
    with pytest.raises(IndexError, match="9"):
        for _ in range(600):
            pick(rows)
    assert pick(rows).tolist() == [2, 7]


def test_other_streams_are_left_to_python() -> None:
    def run(x: Any, y: Any) -> Any:
        return x * 2 + y

    compiled = graphc.compile(run)
    x, y = graphc.ones(3).cuda(), graphc.ones(3).cuda()
    warm(compiled, x, y)
    assert natively(lambda: compiled(x, y)) == 1
    side = graphc.cuda.Stream()
    side.wait_stream(graphc.cuda.current_stream())
    results: list[Any] = []
    with graphc.cuda.stream(side):
        assert natively(lambda: results.append(compiled(x, y))) == 0
    graphc.cuda.current_stream().wait_stream(side)
    assert results[0].tolist() == [3, 3, 3]
    assert natively(lambda: compiled(results[0], y)) == 0, "memory of another stream"
    assert natively(lambda: results.append(compiled(x, y))) == 1
    assert results[1].tolist() == [3, 3, 3]


def test_a_launch_that_fails_changes_nothing(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda.driver is None:
        pytest.skip("a GPU does not refuse launches on demand")
    state = graphc.zeros(3).cuda()

    def add(x: Any) -> Any:
        state.add_(x)
        return state * 2

    compiled, x = graphc.compile(add), graphc.ones(3).cuda()
    warm(compiled, x)

    def refuse(*_: Any) -> None:
        raise DriverError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(cuda_device(0).driver, "launch", refuse)
        patch.setattr(cuda_device(0).driver, "launch_graph", refuse)
        with pytest.raises(DeviceError, match="not now"):
            compiled(x)
    before = state.tolist()
    assert natively(lambda: compiled(x)) == 1
    assert before == [3, 3, 3] and state.tolist() == [4, 4, 4]


def test_native_calls_can_be_turned_off() -> None:
    compiled = graphc.compile(lambda x: x + 1)
    x = graphc.ones(2).cuda()
    NATIVE_CALLS.set(False)
    warm(compiled, x)
    assert natively(lambda: compiled(x)) == 0


def test_nothing_is_held_too_long() -> None:
    """Memory in use does not grow with calls."""
    net, _, step = training(MAKERS["adam"])
    net.cuda()
    x, y = (t.cuda() for t in batch(0))
    warm(step, x, y)
    step(x, y), step(x, y)
    gc.collect()  # what other tests left
    before = graphc.cuda.memory_allocated()
    assert natively(lambda: [step(x, y) for _ in range(50)]) == 50
    assert graphc.cuda.memory_allocated() <= before


@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 200), marks=pytest.mark.slow)], ids=["few", "many"])
def test_random_training_steps_do_what_plain_ones_do(seeds: range) -> None:
    for seed in seeds:
        check_history(partial(training_history, device="cuda"), seed, 1e-4)


def test_no_more_functions_of_python_are_entered_for_more_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards, addresses, gradients and written memory are native, whatever their number."""

    def names(layers: int) -> list[str]:
        net = graphc.nn.Sequential(*[graphc.nn.Linear(4, 4) for _ in range(layers)]).cuda()
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        @graphc.compile
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = net(x).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        x = batch(0)[0].cuda()
        for _ in range(40):  # graphs for the places that memory has in turns
            step(x)
        with monkeypatch.context() as patch:
            patch.setattr(cuda_device(0).driver, "launch_graph", lambda *_: None)
            return entered(lambda: step(x))

    few = names(2)
    assert "GraphCache.run" in few and "Replay.run" not in few
    assert len(names(7)) < len(few) + 4, "how graphs are found differs"
