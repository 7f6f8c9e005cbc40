"""Native flushes of what is pending on CUDA devices: they compute and leave what those in Python do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc.counting import FRONT
from graphc.native import operators
from graphc.native.library import library
from graphc.recording import Recorder, using
from graphc_runtime.devices.cuda import cuda_device
from graphc_runtime.devices.cuda_driver import DriverError
from graphc_runtime.errors import DeviceError
from tests.cuda.machine import Machine
from tests.frontend.native_cases import both, training
from tests.frontend.test_native_flushes import STEPS as OF_THE_HOST
from tests.frontend.test_native_flushes import natively, state

SHIM_VARIANT = "quick"


@pytest.fixture(autouse=True)
def native(cuda: Machine) -> Iterator[None]:
    """Native code records what was recorded before, from the first operation on."""
    assert library() is not None
    before = bool(operators._undone)
    operators.install()
    yield
    if not before:
        operators.remove()


def _large(x: Any, y: Any) -> Any:
    """Memory that native code may overwrite."""
    table = graphc.zeros(128, 256, device="cuda") + x[0, 0]
    total = 0.0
    for row in range(3):
        table[row] += y[0, 0]
        total += table.sum().item()
    return total


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "product": lambda x, y: (x @ y).tolist(),
    "views": lambda x, y: ((x[1:3] * y[:2]).tolist(), graphc.exp(x.t()).tolist()),
    "drawn": lambda x, y: (F.dropout(x, 0.5) + graphc.randn_like(y)).tolist(),
    "of the host": lambda x, y: (x.cpu() + 1).sum().item() + (x * 2).sum().item(),
    "a step": lambda x, y: F.cross_entropy(x @ y, y.argmax(1)).item(),
    "large": _large,
    **{name: OF_THE_HOST[name] for name in ("several", "number", "written", "gradients", "same twice", "half")},
}


def in_a_loop(step: Callable[[Any, Any], Any], count: int = 7) -> list[Any]:
    """What steps give, and what they leave in the recorder."""
    with using(Recorder()):
        graphc.manual_seed(2)
        x, y = graphc.randn(4, 4).cuda(), graphc.randn(4, 4).cuda()
        found: list[Any] = []
        for _ in range(count):
            gc.collect()
            found += [step(x, y), state()]
        return found


@pytest.mark.parametrize("name", STEPS)
def test_a_loop_gives_and_leaves_what_it_does_in_python(name: str) -> None:
    ours, theirs = both(lambda: in_a_loop(STEPS[name]))
    assert ours == theirs


@pytest.mark.parametrize("name", ["product", "several", "number", "views", "drawn", "a step", "written"])
def test_a_flush_is_native_from_the_third_time_on(name: str) -> None:
    in_a_loop(STEPS[name], 4)
    before = FRONT.flushes
    count = natively(lambda: in_a_loop(STEPS[name], 20))
    assert count >= 0.6 * (FRONT.flushes - before)


def test_numbers_are_brought_anew() -> None:
    x = graphc.ones(4).cuda()

    def run(i: int) -> Any:
        return (x * (0.25 * i)).tolist()

    for i in range(40):
        assert run(i) == [0.25 * i] * 4
    assert natively(lambda: [run(i) for i in range(40, 50)]) >= 8
    assert run(50) == [12.5] * 4


def test_plain_training_steps_flush_natively() -> None:
    def losses() -> list[float]:
        net, optimizer, _ = training(lambda p: graphc.optim.SGD(p, lr=0.1, momentum=0.9), dropout=0.2)
        net.cuda()
        x, y = graphc.randn(5, 4).cuda(), (graphc.arange(5) % 3).cuda()
        found: list[float] = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    before = FRONT.native_flushes
    ours, theirs = both(losses)
    assert ours == theirs and ours[-1] < ours[0]
    assert FRONT.native_flushes - before >= 6


def test_checks_are_looked_at_later() -> None:
    table = graphc.arange(8.0).cuda()
    right, wrong = graphc.tensor([1, 6]).cuda(), graphc.tensor([1, 9]).cuda()

    def run(rows: Any) -> Any:
        made = F.embedding(rows, table[:, None])
        graphc.cuda.synchronize()
        return made

    for _ in range(5):
        assert run(right)[:, 0].tolist() == [1, 6]
    for _ in range(2):
        with pytest.raises(IndexError, match="9"):
            run(wrong).tolist()
        assert run(right)[:, 0].tolist() == [1, 6]


def test_values_of_the_host_are_not_shown_while_checks_wait() -> None:
    """A check that failed on the device is told before results of the host that came later."""
    table, own = graphc.arange(8.0).cuda(), graphc.ones(3)
    wrong, right = graphc.tensor([9]).cuda(), graphc.tensor([2]).cuda()
    pick = graphc.compile(lambda rows: table[rows])
    for _ in range(4):
        pick(right)
        assert (own * 2).tolist() == [2, 2, 2]
    kept = pick(wrong)
    with pytest.raises(IndexError, match="9"):
        (own * 2).tolist()
    assert (own * 2).tolist() == [2, 2, 2] and kept.shape == (1,)


def test_other_streams_are_left_to_python() -> None:
    x, y = graphc.randn(4, 4).cuda(), graphc.randn(4, 4).cuda()

    def run() -> Any:
        return (x @ y).tolist()

    expected = run()
    for _ in range(5):
        assert run() == expected
    assert natively(run) == 1
    with graphc.cuda.stream(graphc.cuda.Stream()):
        assert natively(lambda: [run() for _ in range(3)]) == 0
        assert run() == expected
    assert natively(run) == 1 and run() == expected


def test_a_launch_that_fails_leaves_all_pending(cuda: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if cuda.driver is None:
        pytest.skip("a GPU does not refuse launches on demand")
    x = graphc.ones(4).cuda()

    def run() -> Any:
        return (x * 3).tolist()

    for _ in range(5):
        run()

    def refuse(*_: Any) -> None:
        raise DriverError("not now")

    made = x * 3
    with monkeypatch.context() as patch:
        patch.setattr(cuda_device(0).driver, "launch", refuse)
        patch.setattr(cuda_device(0).driver, "launch_graph", refuse)
        with pytest.raises(DeviceError, match="not now"):
            made.tolist()
    assert made.tolist() == run() == [3, 3, 3, 3]


def test_nothing_is_held_too_long() -> None:
    x, y = graphc.randn(64, 64).cuda(), graphc.randn(64, 64).cuda()

    def run() -> Any:
        return (x @ y + 1).sum().item()

    for _ in range(5):
        run()
    gc.collect()
    before = graphc.cuda.memory_allocated()
    assert natively(lambda: [run() for _ in range(50)]) >= 45
    np.testing.assert_allclose(run(), (x.cpu().numpy() @ y.cpu().numpy() + 1).sum(), rtol=1e-4)
    assert graphc.cuda.memory_allocated() <= before


def test_memory_that_other_streams_read_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large memory is written in place, but not while another stream may read what was there."""
    made: list[Any] = []

    def run(side: Any) -> Any:
        table = graphc.zeros(128, 256, device="cuda") + 1
        table.sum().item()
        before = table.data_ptr()
        if side is not None:
            with graphc.cuda.stream(side):
                made.append(table.mul(2))
                made[-1].sum().item()
        table[3] = 5
        total = table.sum().item()
        assert total == 128 * 256 + 4 * 256
        return table.data_ptr() == before

    for _ in range(6):
        stays = run(None)
    assert stays, "else there is nothing to see here"
    side = graphc.cuda.Stream()
    assert not any(run(side) for _ in range(6))
    assert all(value.sum().item() == 2 * 128 * 256 for value in made)
