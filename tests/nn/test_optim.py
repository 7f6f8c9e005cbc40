"""Optimizers and schedules against plain NumPy loops, their state dictionaries, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc import optim


def descend(optimizer_of, steps: int, schedule_of=None) -> list[np.ndarray]:
    """The values of a parameter that minimises sum((p - target)²) from a fixed start."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    target = torch.tensor([0.0, 1.0, 2.0])
    optimizer = optimizer_of([parameter])
    schedule = schedule_of(optimizer) if schedule_of else None
    values: list[np.ndarray] = []
    for _ in range(steps):
        optimizer.zero_grad()
        ((parameter - target) ** 2).sum().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        values.append(parameter.detach().numpy().astype(np.float64).copy())
    return values


def gradient(p: np.ndarray) -> np.ndarray:
    return 2 * (p - np.array([0.0, 1.0, 2.0]))


def test_sgd_with_nesterov_momentum_and_decay() -> None:
    p, buffer = np.array([1.0, -2.0, 0.5]), None
    want = []
    for _ in range(6):
        d = gradient(p) + 0.1 * p
        buffer = d if buffer is None else 0.9 * buffer + d
        p = p - 0.05 * (d + 0.9 * buffer)
        want.append(p)
    got = descend(lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True), 6)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_adam() -> None:
    p = np.array([1.0, -2.0, 0.5])
    m, v, want = np.zeros(3), np.zeros(3), []
    for t in range(1, 7):
        g = gradient(p)
        m, v = 0.8 * m + 0.2 * g, 0.99 * v + 0.01 * g * g
        p = p - 0.1 / (1 - 0.8**t) * m / (np.sqrt(v) / math.sqrt(1 - 0.99**t) + 1e-8)
        want.append(p)
    got = descend(lambda ps: optim.Adam(ps, lr=0.1, betas=(0.8, 0.99)), 6)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_adamw_shrinks_weights_apart_from_the_gradient() -> None:
    parameter = nn.Parameter(torch.tensor([4.0]))
    optimizer = optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    (parameter * 0).sum().backward()
    optimizer.step()
    assert parameter.item() == pytest.approx(4 * (1 - 0.1 * 0.5))


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = optim.SGD([parameter], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 1.0
    assert parameter.item() == 0.0


def test_parameters_without_gradient_stay_and_their_count_too() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = optim.Adam([a, b], lr=0.1)
    for used in ((a, b), (a,), (a, b)):
        optimizer.zero_grad()
        sum((p * 2).sum() for p in used).backward()
        optimizer.step()
    assert optimizer.state[a]["step"].item() == 3 and optimizer.state[b]["step"].item() == 2


def test_groups_have_their_own_settings() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    (a + b).sum().backward()
    optimizer.step()
    assert (round(a.item(), 6), b.item()) == (0.9, 0.5)
    optimizer.param_groups[1]["lr"] = 0.0
    optimizer.step()
    assert (round(a.item(), 6), b.item()) == (0.8, 0.5)
    assert "Parameter Group 1\n    dampening: 0\n    differentiable: False\n" in repr(optimizer)
    assert "    lr: 0.0\n" in repr(optimizer)


@pytest.mark.parametrize("make", [lambda ps: optim.Adam(ps, lr=0.1), lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9)])
def test_a_loaded_state_goes_on_where_the_saved_one_stopped(make) -> None:
    def start(values):
        parameters = [nn.Parameter(torch.tensor(v)) for v in values]
        return parameters, make(parameters)

    def go(parameters, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            sum(((p - 3) ** 2).sum() for p in parameters).backward()
            optimizer.step()

    first, optimizer = start([[1.0, 2.0], [0.5]])
    go(first, optimizer, 3)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["params"] == [0, 1] and set(saved["state"]) == {0, 1}
    second, other = start([p.tolist() for p in first])
    other.param_groups[0]["lr"] = 7.0
    other.load_state_dict(saved)
    go(first, optimizer, 4)
    go(second, other, 4)
    assert [p.tolist() for p in first] == [p.tolist() for p in second]


def test_bad_arguments() -> None:
    p = nn.Parameter(torch.ones(1))
    for make, message in (
        (lambda: optim.SGD([p], lr=-1), "Invalid learning rate: -1"),
        (lambda: optim.SGD([p], momentum=-0.1), "Invalid momentum value: -0.1"),
        (lambda: optim.SGD([p], nesterov=True), "Nesterov momentum requires a momentum and zero dampening"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), "Invalid beta parameter at index 1: 1.0"),
        (lambda: optim.SGD([]), "optimizer got an empty parameter list"),
        (lambda: optim.SGD([p, p]), "duplicate parameters"),
        (lambda: optim.SGD([{"params": p}, {"params": p}]), "some parameters appear in more than one parameter group"),
        (lambda: optim.SGD([p * 2]), "can't optimize a non-leaf Tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for wrong in (p, ["p"]):
        with pytest.raises(TypeError, match=r"should be an iterable of Tensors|can only optimize Tensors"):
            optim.SGD(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="organized in ordered collections"):
        optim.SGD([{"params": {p}}])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optim.SGD([p]).load_state_dict({"state": {}, "param_groups": []})


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda o: optim.lr_scheduler.StepLR(o, 2), [1, 0.1, 0.1, 0.01, 0.01]),
        (lambda o: optim.lr_scheduler.ExponentialLR(o, 0.5), [0.5, 0.25, 0.125, 0.0625, 0.03125]),
        (lambda o: optim.lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)), [1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]),
        (
            lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 4, eta_min=0.2),
            [0.6 + 0.4 * math.cos(math.pi * t / 4) for t in range(1, 6)],
        ),
    ],
)
def test_schedules(make, want) -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    schedule = make(optimizer)
    assert schedule.get_last_lr() == [1.0]
    rates = []
    for _ in want:
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx(want)
    saved = schedule.state_dict()
    other = make(optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0))
    other.load_state_dict(saved)
    assert other.last_epoch == len(want) and other.get_last_lr() == schedule.get_last_lr()


def test_a_schedule_compiles_nothing_new() -> None:
    descend(lambda ps: optim.SGD(ps, lr=0.3, momentum=0.9), 3)
    before = torch.counters()["compiles"]
    descend(lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9), 20, lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 20))
    assert torch.counters()["compiles"] == before


def test_adam_compiles_a_fixed_number_of_programs() -> None:
    descend(lambda ps: optim.Adam(ps, lr=0.3), 3)
    before = torch.counters()["compiles"]
    descend(lambda ps: optim.Adam(ps, lr=0.3), 100)
    assert torch.counters()["compiles"] == before
