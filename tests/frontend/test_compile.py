"""`graphc.compile`: replays equal plain runs, nothing stale is used, and no Python runs at a replay."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
import graphc.nn.functional as F
from graphc import optim


def training(compiled: bool, make: Any, turns: int = 7) -> tuple[list[float], list[Any]]:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 3))
    optimizer = make(net.parameters())
    data, classes = torch.randn(8 * turns, 4), torch.randint(0, 3, (8 * turns,))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step) if compiled else step
    losses = []
    for i in range(turns):
        losses.append(run(data[8 * i : 8 * i + 8], classes[8 * i : 8 * i + 8]).item())
        if i == 4:
            optimizer.param_groups[0]["lr"] /= 2
    return losses, [p.tolist() for p in net.parameters()] + [p.grad.tolist() for p in net.parameters()]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1),
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: optim.Adam(p, lr=0.01),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_a_compiled_training_step_is_the_plain_one(make: Any) -> None:
    before = torch.counters()
    assert training(True, make) == training(False, make)
    after = torch.counters()
    assert after["captures"] - before["captures"] <= 3
    assert after["traces"] - before["traces"] == after["captures"] - before["captures"]
    assert after["replays"] - before["replays"] >= 4


def test_captured_tensors_are_read_as_they_are_now() -> None:
    scale = torch.tensor([2.0, 3.0])

    @torch.compile
    def f(x: Any) -> Any:
        return x * scale

    assert f(torch.ones(2)).tolist() == [2, 3]
    scale.add_(1)
    assert f(torch.ones(2)).tolist() == [3, 4]
    before = torch.counters()
    scale[0] = 10
    assert f(torch.ones(2)).tolist() == [10, 4]
    assert torch.counters()["replays"] - before["replays"] == 1


FACTOR = 2


def test_python_values_are_guarded() -> None:
    global FACTOR
    holder = {"k": 1, "list": [1, 2]}
    offset = 5

    def f(x: Any) -> Any:
        return x * FACTOR + offset + holder["k"] + holder["list"][1]

    g = torch.compile(f)
    x = torch.ones(1)
    FACTOR = 2
    assert g(x).tolist() == f(x).tolist()
    before = torch.counters()
    assert g(x).tolist() == f(x).tolist()
    assert torch.counters()["replays"] - before["replays"] == 1
    FACTOR = 3
    assert g(x).tolist() == f(x).tolist() == [11.0]
    offset = 6
    assert g(x).tolist() == f(x).tolist() == [12.0]
    holder["k"] = 2
    assert g(x).tolist() == f(x).tolist() == [13.0]
    holder["list"][1] = 7
    assert g(x).tolist() == f(x).tolist() == [18.0]
    FACTOR = 2
    assert g(x).tolist() == f(x).tolist()
    assert any("FACTOR" in reason for reason in torch.explain_recompiles())


def test_attributes_of_modules_are_guarded() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    run = torch.compile(lambda x: net(x))
    x = torch.ones(1, 2)
    with torch.no_grad():
        run(x), run(x)
        net.eval()
        assert run(x).tolist() == net(x).tolist()
        assert run(x).tolist() == net(x).tolist()
        net[0].weight.data = torch.zeros(2, 2)
        assert run(x).tolist() == net(x).tolist() == net[0].bias.view(1, 2).tolist()


def test_arguments_of_other_shapes_and_numbers_are_captured_anew() -> None:
    calls = []

    @torch.compile
    def f(x: Any, k: int, scale: float = 1.0) -> Any:
        calls.append(k)
        return x.sum() * k * scale

    assert f(torch.ones(2), 3).item() == 6
    assert f(torch.ones(3), 3).item() == 9
    assert f(torch.ones(3), 4).item() == 12
    del calls[:]
    assert [f(torch.ones(2), 3, 0.5 + i).item() for i in range(6)] == [6 * (0.5 + i) for i in range(6)]


def test_a_changing_float_is_read_at_run_time() -> None:
    @torch.compile
    def f(x: Any, scale: float) -> Any:
        return x * scale

    x = torch.ones(2, dtype=torch.float64)
    before = torch.counters()
    for i in range(8):
        assert f(x, 0.1 * i).tolist() == (x * (0.1 * i)).tolist()
    assert torch.counters()["captures"] - before["captures"] <= 2
    assert f(torch.arange(2), 2.5).dtype is torch.float32


def test_a_function_that_looks_at_values_just_works() -> None:
    @torch.compile
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x * -1

    for _ in range(3):
        assert f(torch.ones(2)).tolist() == [2, 2]
        assert f(-torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="cannot be captured as a whole"):
        torch.compile(lambda x: x * x.sum().item(), fullgraph=True)(torch.ones(2))


def test_results_keep_their_structure_and_identity() -> None:
    state = torch.zeros(2)

    @torch.compile
    def f(x: Any) -> Any:
        state.add_(x)
        y = x + 1
        return {"y": y, "same": [y, state, x], "n": 3, "none": None}

    for i in range(3):
        x = torch.ones(2)
        out = f(x)
        assert out["y"].tolist() == [2, 2]
        assert out["same"][1] is state and out["same"][2] is x
        assert state.tolist() == [i + 1.0] * 2
        out["same"][0].add_(1)
        assert out["y"].tolist() == [3, 3], "two results over one memory"
        assert (out["n"], out["none"]) == (3, None)


def test_views_of_results_share_memory_after_a_replay() -> None:
    @torch.compile
    def f(x: Any) -> Any:
        y = x * 2
        return y, y[0]

    for _ in range(3):
        y, first = f(torch.ones(2, 2))
        first.zero_()
        assert y.tolist() == [[0, 0], [2, 2]]


def test_an_old_result_is_not_overwritten_by_a_replay() -> None:
    weight = torch.ones(2)

    @torch.compile
    def f(x: Any) -> Any:
        weight.mul_(2)
        return weight * x

    kept = [f(torch.ones(2)) for _ in range(4)]
    snapshot = weight.detach().clone()
    f(torch.ones(2))
    assert [k.tolist() for k in kept] == [[2, 2], [4, 4], [8, 8], [16, 16]]
    assert snapshot.tolist() == [16, 16]


def test_arguments_written_in_place() -> None:
    @torch.compile
    def f(x: Any) -> Any:
        x.add_(1)
        return x.sum()

    for _ in range(3):
        x = torch.zeros(2)
        assert f(x).item() == 2 and x.tolist() == [1, 1]
        wide = torch.zeros(3, 2)
        assert f(wide[1]).item() == 2 and wide.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_a_module_that_is_compiled_still_trains() -> None:
    net = nn.Linear(2, 1)
    run = torch.compile(net)
    for _ in range(3):
        net.weight.grad = None
        run(torch.ones(1, 2)).sum().backward()
        assert net.weight.grad is not None and net.weight.grad.tolist() == [[1, 1]]
    with torch.no_grad():
        before = torch.counters()["replays"]
        for _ in range(3):
            assert run(torch.ones(1, 2)).tolist() == net(torch.ones(1, 2)).tolist()
        assert torch.counters()["replays"] - before == 2
    assert run.weight is net.weight


def test_gradients_accumulate_over_replays() -> None:
    w = torch.tensor([1.0, 2.0], requires_grad=True)

    @torch.compile
    def f(x: Any) -> None:
        (w * x).sum().backward()

    for i in range(4):
        f(torch.ones(2))
        assert w.grad is not None and w.grad.tolist() == [i + 1.0] * 2


def test_gradients_that_no_optimizer_clears_accumulate() -> None:
    first, second = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4))
    optimizer = optim.SGD([first], lr=0.1)

    def step() -> Any:
        optimizer.zero_grad()
        loss = (first**2).sum() + (second**3).sum()
        loss.backward()
        optimizer.step()
        return loss

    run = torch.compile(step)
    for count in range(1, 5):
        run()
        assert second.grad is not None
        assert second.grad.tolist() == [3.0 * count] * 4


def test_an_error_inside_leaves_everything_usable() -> None:
    @torch.compile
    def f(x: Any) -> Any:
        return x @ torch.ones(5)

    with pytest.raises(RuntimeError, match=r"size mismatch|cannot be multiplied|inconsistent"):
        f(torch.ones(3))
    assert f(torch.ones(5)).item() == 5
    assert f(torch.ones(5)).item() == 5


def test_what_cannot_be_guarded_is_run_plainly() -> None:
    numbers = iter(range(10))

    @torch.compile
    def from_iterator(x: Any) -> Any:
        return x + next(numbers)

    assert [from_iterator(torch.zeros(1)).item() for _ in range(4)] == [0, 1, 2, 3]

    drawn = torch.compile(lambda x: x + random.random())
    assert len({drawn(torch.zeros(1)).item() for _ in range(4)}) == 4

    array = np.ones(2, np.float32)
    by_array = torch.compile(lambda x: x + torch.tensor(array))
    assert by_array(torch.zeros(2)).tolist() == [1, 1]
    array[0] = 5
    assert by_array(torch.zeros(2)).tolist() == [5, 1]
    by_argument = torch.compile(lambda x, a: x + torch.tensor(a))
    assert by_argument(torch.zeros(2), array).tolist() == [5, 1]
    array[1] = 7
    assert by_argument(torch.zeros(2), array).tolist() == [5, 7]
