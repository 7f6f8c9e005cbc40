"""Optimizers and schedules side by side with PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

STEPS = 12
RNG = np.random.default_rng(4)
START = [RNG.standard_normal((3, 2)), RNG.standard_normal(4)]
TARGET = [RNG.standard_normal((3, 2)), RNG.standard_normal(4)]

OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "SGD nesterov": lambda o, p: o.SGD(p, lr=0.1, momentum=0.9, nesterov=True, maximize=True),
    "Adam": lambda o, p: o.Adam(p, lr=0.1, weight_decay=0.1),
    "Adam amsgrad": lambda o, p: o.Adam(p, lr=0.1, amsgrad=True, maximize=True),
    "AdamW": lambda o, p: o.AdamW(p, lr=0.1, weight_decay=0.1),
    "Adamax": lambda o, p: o.Adamax(p, lr=0.1, weight_decay=0.1),
    "NAdam": lambda o, p: o.NAdam(p, lr=0.1, weight_decay=0.1),
    "NAdam decoupled": lambda o, p: o.NAdam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam": lambda o, p: o.RAdam(p, lr=0.1, weight_decay=0.1),
    "RAdam decoupled": lambda o, p: o.RAdam(p, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True),
    "RMSprop": lambda o, p: o.RMSprop(p, lr=0.05, weight_decay=0.1),
    "RMSprop centered": lambda o, p: o.RMSprop(p, lr=0.05, momentum=0.5, centered=True),
    "Adagrad": lambda o, p: o.Adagrad(p, lr=0.3, lr_decay=0.1, initial_accumulator_value=0.2, weight_decay=0.1),
    "Adadelta": lambda o, p: o.Adadelta(p, lr=0.9, rho=0.8, weight_decay=0.1),
    "Rprop": lambda o, p: o.Rprop(p, lr=0.1),
    "Adafactor": lambda o, p: o.Adafactor(p, lr=0.1, weight_decay=0.1),
    "Adafactor settings": lambda o, p: o.Adafactor(p, lr=0.3, beta2_decay=-0.5, eps=(1e-4, 0.1), d=2.0, maximize=True),
    "Muon": lambda o, p: o.Muon(p[:1], lr=0.1),
    "Muon adamw": lambda o, p: o.Muon(
        p[:1], lr=0.1, weight_decay=0, nesterov=False, ns_steps=3, adjust_lr_fn="match_rms_adamw"
    ),
    "ASGD": lambda o, p: o.ASGD(p, lr=0.1, t0=5, weight_decay=0.1),
    "LBFGS": lambda o, p: o.LBFGS(p, lr=0.5, max_iter=3, history_size=4),
    "LBFGS wolfe": lambda o, p: o.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
}


def loss_of(library: Any, parameters: list[Any]) -> Any:
    targets = [library.tensor(t) for t in TARGET]
    first = ((parameters[0] - targets[0]) ** 2).sum() + ((parameters[1] - targets[1]) ** 4).sum()
    return first + (parameters[0].sum() * parameters[1].sum()) ** 2 * 0.01


def train(library: Any, name: str) -> tuple[list[list[np.ndarray]], Any, list[Any]]:
    parameters = [library.nn.Parameter(library.tensor(a)) for a in START]
    optimizer = OPTIMIZERS[name](library.optim, parameters)
    values = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(library, parameters)
        loss.backward()
        return loss

    for _ in range(STEPS):
        closure()
        optimizer.step(closure) if "LBFGS" in name else optimizer.step()
        values.append([p.detach().numpy().copy() for p in parameters])
    return values, optimizer, parameters


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_and_states_are_pytorchs(name: str) -> None:
    wanted, theirs, their_parameters = train(torch, name)
    found, ours, our_parameters = train(graphc, name)
    rtol, atol = (0.05, 0.02) if "Muon" in name else (1e-6, 1e-8)  # Muon rounds to bf16, in another order here
    for step, (a, b) in enumerate(zip(found, wanted, strict=True)):
        for ours_, theirs_ in zip(a, b, strict=True):
            np.testing.assert_allclose(ours_, theirs_, rtol=rtol, atol=atol, err_msg=f"step {step}")
    if "LBFGS" in name:
        assert ours.state[our_parameters[0]]["func_evals"] == theirs.state[their_parameters[0]]["func_evals"]
        return
    for mine, other in zip(our_parameters, their_parameters, strict=True):
        state = {k: v for k, v in theirs.state[other].items() if v is not None}
        assert set(ours.state[mine]) == set(state)
        for key, value in state.items():
            got = ours.state[mine][key]
            exact = {"rtol": max(rtol, 1e-5), "atol": atol}
            np.testing.assert_allclose(np.asarray(got.detach()), np.asarray(value), **exact, err_msg=key)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "LBFGS" not in n])
def test_a_compiled_step_is_the_plain_one(name: str) -> None:
    def run(compiled: bool) -> list[list[float]]:
        parameters = [graphc.nn.Parameter(graphc.tensor(a)) for a in START]
        optimizer = OPTIMIZERS[name](graphc.optim, parameters)

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_of(graphc, parameters)
            loss.backward()
            optimizer.step()
            return loss

        once = graphc.compile(step) if compiled else step
        for _ in range(6):
            once()
        return [p.tolist() for p in parameters]

    before = graphc.counters()
    compiled = run(True)
    after = graphc.counters()
    assert after["replays"] - before["replays"] >= 3
    for a, b in zip(compiled, run(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "LBFGS" not in n])
def test_a_state_goes_over_to_pytorch_and_back(name: str) -> None:
    _, ours, _ = train(graphc, name)
    _, theirs, _ = train(torch, name)
    mine, other = ours.state_dict(), theirs.state_dict()
    ignored = {"foreach", "capturable", "differentiable", "fused"}
    assert set(mine["param_groups"][0]) | ignored >= set(other["param_groups"][0])
    assert mine["state"].keys() == other["state"].keys()
    again = OPTIMIZERS[name](graphc.optim, [graphc.nn.Parameter(graphc.tensor(a)) for a in START])
    again.load_state_dict(mine)
    assert str(again.state_dict()["param_groups"]) == str(mine["param_groups"])


SCHEDULES: dict[str, Any] = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 1 - 0.01 * e),
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.5),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.5, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.25, 0.75, 6),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 8, 2.0),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 2, 0.01),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, 5),
    "CyclicLR triangular2": lambda s, o: s.CyclicLR(o, [0.01, 0.02], [0.1, 0.2], 3, mode="triangular2"),
    "CyclicLR exp_range": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, mode="exp_range", gamma=0.9),
    "CyclicLR own": lambda s, o: s.CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda x: 1 / x, cycle_momentum=False),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.2, total_steps=40),
    "OneCycleLR linear": lambda s, o: s.OneCycleLR(
        o, [0.2, 0.3], epochs=5, steps_per_epoch=8, anneal_strategy="linear", three_phase=True
    ),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 5), s.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 5), s.ExponentialLR(o, 0.9)], [5]),
    "SequentialLR warm-up": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 4), s.CosineAnnealingLR(o, 20), s.StepLR(o, 2)], [4, 24]
    ),
}


def rates(library: Any, name: str, steps: int = 36) -> tuple[list[Any], Any]:
    parameters = [library.nn.Parameter(library.tensor([1.0])) for _ in range(2)]
    optimizer = library.optim.SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.3}], 0.1, 0.9)
    schedule = SCHEDULES[name](library.optim.lr_scheduler, optimizer)
    found = []
    for _ in range(steps):
        found.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups] + [tuple(schedule.get_last_lr())])
        optimizer.step()
        schedule.step()
    return found, schedule


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_pytorchs(name: str) -> None:
    found, schedule = rates(graphc, name)
    wanted, _ = rates(torch, name)
    for epoch, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-9, err_msg=f"epoch {epoch}")
    _, other = rates(graphc, name, 1)
    other.load_state_dict(schedule.state_dict())
    assert other.get_last_lr() == schedule.get_last_lr()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "factor": 0.5, "patience": 1, "threshold_mode": "abs", "threshold": 0.1},
        {"patience": 0, "cooldown": 2, "min_lr": 1e-3},
    ],
    ids=str,
)
def test_reducing_on_a_plateau(options: dict[str, Any]) -> None:
    measures = [math.sin(i / 3) + 1 / (1 + i) for i in range(40)]

    def run(library: Any) -> list[float]:
        optimizer = library.optim.SGD([library.nn.Parameter(library.tensor([1.0]))], lr=0.5)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **{"patience": 3, **options})
        found = []
        for measure in measures:
            schedule.step(library.tensor(measure))
            found.append(optimizer.param_groups[0]["lr"])
        return found

    np.testing.assert_allclose(run(graphc), run(torch), rtol=1e-9)


BAD: dict[str, Any] = {
    "negative rate": lambda t, p: t.optim.RMSprop(p, lr=-1.0),
    "betas": lambda t, p: t.optim.NAdam(p, betas=(1.0, 0.9)),
    "rho": lambda t, p: t.optim.Adadelta(p, rho=1.5),
    "etas": lambda t, p: t.optim.Rprop(p, etas=(1.5, 1.2)),
    "LBFGS groups": lambda t, p: t.optim.LBFGS([{"params": p}, {"params": [t.nn.Parameter(t.ones(1))]}]),
    "step without closure": lambda t, p: t.optim.LBFGS(p).step(),
    "plateau factor": lambda t, p: t.optim.lr_scheduler.ReduceLROnPlateau(t.optim.SGD(p, 0.1), factor=1.0),
    "cycle of no steps": lambda t, p: t.optim.lr_scheduler.OneCycleLR(t.optim.SGD(p, 0.1), 0.1),
    "no momentum": lambda t, p: t.optim.lr_scheduler.CyclicLR(t.optim.Adagrad(p), 0.1, 0.2),
    "milestones": lambda t, p: t.optim.lr_scheduler.SequentialLR(
        o := t.optim.SGD(p, 0.1), [t.optim.lr_scheduler.StepLR(o, 1)], [1]
    ),
    "no optimizer": lambda t, p: t.optim.lr_scheduler.StepLR(p, 1),
}


@pytest.mark.parametrize("name", BAD)
def test_what_pytorch_refuses_is_refused(name: str) -> None:
    def kind(library: Any) -> type[BaseException]:
        with pytest.raises(Exception) as caught:
            BAD[name](library, [library.nn.Parameter(library.ones(2))])
        return next(c for c in caught.type.__mro__ if c.__module__ == "builtins")

    assert issubclass(kind(graphc), kind(torch))


FLAGGED = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop")


@pytest.mark.parametrize("name", [*FLAGGED, "Adafactor"])
def test_defaults_are_pytorch_s(name: str) -> None:
    ours = getattr(graphc.optim, name)([graphc.nn.Parameter(graphc.ones(2))]).defaults
    assert ours == getattr(torch.optim, name)([torch.nn.Parameter(torch.ones(2))]).defaults


@pytest.mark.parametrize("name", FLAGGED)
def test_foreach_changes_no_step(name: str) -> None:
    def step(**flags: bool) -> list[float]:
        parameter = graphc.nn.Parameter(graphc.tensor([1.0, -2.0]))
        optimizer = getattr(graphc.optim, name)([parameter], **flags)
        (parameter**2).sum().backward()
        optimizer.step()
        return parameter.tolist()

    assert step(foreach=True) == step(foreach=False) == step()


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_flags_that_pytorch_refuses_together_are_refused(name: str) -> None:
    for flags in ({"fused": True, "foreach": True}, {"fused": True, "differentiable": True}):
        for library in (torch, graphc):
            parameter = library.nn.Parameter(library.ones(2))
            with pytest.raises(RuntimeError, match="`fused`"):
                getattr(library.optim, name)([parameter], **flags)


def test_steps_that_gradients_flow_through_are_refused() -> None:
    parameter = graphc.nn.Parameter(graphc.ones(2))
    with pytest.raises(NotImplementedError, match="differentiable=True"):
        graphc.optim.SGD([parameter], differentiable=True)
    optimizer = graphc.optim.SGD([parameter])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["differentiable"] = True
    with pytest.raises(NotImplementedError, match="differentiable=True"):
        optimizer.load_state_dict(saved)
