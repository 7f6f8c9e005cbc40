"""Modules and optimizers inside `graphc.compile`: schedules and step counts compile nothing, real changes are seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc import optim


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.scale = 2.0

    def forward(self, x):
        return self.layer(x) * self.scale if self.training else self.layer(x)


def training(make: Callable, compiled: bool) -> tuple[Model, optim.Optimizer, Callable]:
    torch.manual_seed(0)
    model = Model()
    optimizer = make(model.parameters())

    def step(x):
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, torch.compile(step) if compiled else step


def counted(run: Callable[[], None]) -> dict[str, int]:
    before = torch.counters()
    run()
    return {name: value - before[name] for name, value in torch.counters().items()}


def data(i: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(i).standard_normal((5, 4)).astype(np.float32))


MAKERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.05),
    "momentum": lambda ps: optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda ps: optim.Adam(ps, lr=0.01),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.01, amsgrad=True),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_thousand_steps_with_a_schedule_compile_nothing_more(name: str) -> None:
    model, optimizer, step = training(MAKERS[name], compiled=True)
    schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    x = data(0)
    for _ in range(3):
        step(x)

    def rest() -> None:
        for _ in range(1000):
            step(x)
            schedule.step()
        model.layer.weight.sum().item()

    seen = counted(rest)
    assert seen["captures"] == seen["recompiles"] == 0 and seen["replays"] == 1000
    assert seen["compiles"] <= 1, "only the sum at the end may be new"


@pytest.mark.parametrize("name", MAKERS)
def test_compiled_and_plain_steps_are_the_same_through_every_change(name: str) -> None:
    """Learning rate, momentum or betas, training mode, attributes, a loaded state and new weights in the middle."""

    def run(compiled: bool) -> list[list[float]]:
        model, optimizer, step = training(MAKERS[name], compiled)
        group = optimizer.param_groups[0]
        results = []
        for i in range(24):
            if i == 4:
                group["lr"] *= 0.5
            elif i == 7:
                group.update({"momentum": 0.5} if "momentum" in group else {"betas": (0.8, 0.95)})
            elif i == 10:
                group["weight_decay"] = 0.1
            elif i == 13:
                model.eval()
            elif i == 15:
                model.train().scale = 3.0
            elif i == 17:
                optimizer.load_state_dict(optimizer.state_dict())
            elif i == 19:
                model.load_state_dict({key: value * 0.5 for key, value in model.state_dict().items()})
            elif i == 21:
                model.layer.bias.requires_grad_(False)
            elif i == 22:
                model.layer.bias.requires_grad_(True)
            results.append([step(data(i)).item(), *model.layer.weight.detach().numpy().ravel().tolist()])
        return results

    np.testing.assert_allclose(run(compiled=True), run(compiled=False), rtol=2e-5, atol=1e-6)


def test_what_changes_the_computation_is_captured_anew_and_the_rest_is_not() -> None:
    model, optimizer, step = training(MAKERS["sgd"], compiled=True)
    group = optimizer.param_groups[0]
    x = data(0)
    step(x)
    step(x)
    for change, captures in (
        (lambda: None, 0),
        (lambda: group.update(lr=0.01), 0),
        (lambda: model.train(), 0),
        (lambda: model.eval(), 1),
        (lambda: setattr(model, "scale", 5.0), 1),
        (lambda: group.update(weight_decay=0.1), 1),
        (lambda: group.update(weight_decay=0.2), 0),
    ):
        change()
        assert counted(lambda: step(x))["captures"] == captures


def test_dropout_draws_anew_at_every_replay() -> None:
    torch.manual_seed(0)
    layer = nn.Dropout(0.5)
    drop = torch.compile(lambda x: layer(x))
    x = torch.ones(200)
    masks = [tuple(drop(x).tolist()) for _ in range(6)]
    assert len(set(masks)) == 6
    layer.eval()
    assert drop(x).tolist() == x.tolist()


def test_batch_norm_moves_its_moments_in_a_compiled_step() -> None:
    results = []
    for compiled in (False, True):
        norm = nn.BatchNorm1d(4)
        run = torch.compile(lambda x, norm=norm: norm(x)) if compiled else norm
        outputs = [run(data(i)).detach().numpy() for i in range(5)]
        results.append((outputs, norm.running_mean.numpy(), norm.running_var.numpy(), norm.num_batches_tracked.item()))
    plain, captured = results
    np.testing.assert_allclose(captured[0], plain[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(captured[1], plain[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(captured[2], plain[2], rtol=1e-5, atol=1e-6)
    assert captured[3] == plain[3] == 5
