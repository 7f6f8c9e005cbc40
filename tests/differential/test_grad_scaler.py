"""GradScaler side by side with PyTorch's, with gradients that overflow."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.compare import kind_of, message, torch

START = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)
# What the loss is multiplied by at each step: some make gradients infinite or NaN.
FACTORS = [1.0, np.inf, 1.0, 1.0, 1.0, np.nan, 2.0, 3e38, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0]


def _train(t: Any, dtype: str = "float32", clip: bool = False, **settings: Any) -> tuple[list[Any], list[np.ndarray]]:
    """Facts after each step, and weights."""
    first, second = (t.nn.Parameter(t.tensor(START).to(getattr(t, dtype))) for _ in range(2))
    optimizers = [t.optim.SGD([first], lr=0.01, momentum=0.9), t.optim.Adam([second], lr=0.01)]
    scaler = t.amp.GradScaler("cpu", **{"init_scale": 1024.0, "growth_interval": 3, **settings})
    facts: list[Any] = []
    weights: list[np.ndarray] = []
    for factor in FACTORS:
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses = [(first.float() ** 2).sum() * factor, (second.float() ** 3).sum()]
        for loss in scaler.scale(losses):
            loss.backward()
        if clip:
            scaler.unscale_(optimizers[0])
            t.nn.utils.clip_grad_norm_([first], 0.5)
        stepped = [scaler.step(optimizer) for optimizer in optimizers]
        scaler.update()
        facts.append((scaler.get_scale(), scaler._get_growth_tracker(), stepped))
        weights += [p.detach().double().numpy() for p in (first, second)]
    facts.append(scaler.state_dict())
    return facts, weights


@pytest.mark.parametrize(
    "settings",
    [{}, {"growth_factor": 3.0, "backoff_factor": 0.25}, {"enabled": False}, {"init_scale": 1e38}, {"clip": True}],
)
def test_scales_and_steps_left_out_are_pytorchs(settings: dict[str, Any]) -> None:
    wanted, their_weights = _train(torch, **settings)
    found, our_weights = _train(graphc, **settings)
    assert found == wanted
    for ours, theirs in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_of_bfloat16_and_float64() -> None:
    for dtype, close in (("bfloat16", 0.02), ("float64", 1e-6)):
        wanted, theirs = _train(torch, dtype)
        found, ours = _train(graphc, dtype)
        assert found == wanted
        np.testing.assert_allclose(ours[-1], theirs[-1], rtol=close, atol=close)


def _scaler(t: Any, **settings: Any) -> tuple[Any, Any, Any]:
    parameter = t.nn.Parameter(t.tensor(START))
    optimizer = t.optim.SGD([parameter], lr=0.1)
    return t.amp.GradScaler("cpu", **settings), optimizer, parameter


def _backward(t: Any, scaler: Any, parameter: Any) -> None:
    scaler.scale((parameter**2).sum()).backward()


def _twice(t: Any) -> None:
    scaler, optimizer, parameter = _scaler(t)
    _backward(t, scaler, parameter)
    scaler.unscale_(optimizer)
    scaler.unscale_(optimizer)


def _after_step(t: Any, again: str) -> None:
    scaler, optimizer, parameter = _scaler(t)
    _backward(t, scaler, parameter)
    scaler.step(optimizer)
    getattr(scaler, again)(optimizer)


def _new_scale(t: Any, value: Any) -> Any:
    scaler, _, parameter = _scaler(t)
    _backward(t, scaler, parameter)
    scaler.update(value(t))
    return scaler.get_scale()


def _restored(t: Any) -> Any:
    scaler, optimizer, parameter = _scaler(t, growth_interval=5)
    _backward(t, scaler, parameter)
    scaler.step(optimizer)
    scaler.update()
    fresh = t.amp.GradScaler("cpu")
    fresh.load_state_dict(scaler.state_dict())
    copied = pickle.loads(pickle.dumps(scaler))  # noqa: S301
    return fresh.state_dict(), copied.state_dict(), scaler.is_enabled()


def _setters(t: Any) -> Any:
    scaler, _, _ = _scaler(t)
    scaler.set_growth_factor(4.0)
    scaler.set_backoff_factor(0.1)
    scaler.set_growth_interval(7)
    return scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval(), scaler.get_scale()


def _halves(t: Any) -> None:
    parameter = t.nn.Parameter(t.tensor(START).half())
    optimizer = t.optim.SGD([parameter], lr=0.1)
    scaler = t.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(parameter.sum()).backward()
    scaler.step(optimizer)


CALLS: dict[str, Callable[[Any], Any]] = {
    "unscaled twice": _twice,
    "unscaled after a step": lambda t: _after_step(t, "unscale_"),
    "two steps": lambda t: _after_step(t, "step"),
    "a step before scale": lambda t: _scaler(t)[0].step(_scaler(t)[1]),
    "unscaled before scale": lambda t: _scaler(t)[0].unscale_(_scaler(t)[1]),
    "an update before scale": lambda t: _scaler(t)[0].update(),
    "an update without steps": lambda t: _new_scale(t, lambda t: None),
    "a new scale": lambda t: _new_scale(t, lambda t: 8.0),
    "a new scale of a tensor": lambda t: _new_scale(t, lambda t: t.tensor([16.0])),
    "a new scale of two numbers": lambda t: _new_scale(t, lambda t: t.tensor([16.0, 2.0])),
    "a new scale with gradients": lambda t: _new_scale(t, lambda t: t.ones(1, requires_grad=True)),
    "a closure": lambda t: _scaler(t)[0].step(_scaler(t)[1], closure=lambda: None),
    "growth": lambda t: _scaler(t, growth_factor=1.0),
    "backoff": lambda t: _scaler(t, backoff_factor=1.0),
    "outputs that are numbers": lambda t: _scaler(t)[0].scale(3),
    "gradients of float16": _halves,
    "kept and restored": _restored,
    "an empty state": lambda t: _scaler(t)[0].load_state_dict({}),
    "off": lambda t: (_scaler(t, enabled=False)[0].state_dict(), _scaler(t, enabled=False)[0].get_scale()),
    "setters": _setters,
    "containers": lambda t: [type(_scaler(t)[0].scale(c([t.ones(2), t.ones(1)]))).__name__ for c in (list, tuple)],
    "cuda where there is none": lambda t: t.amp.GradScaler().is_enabled(),
    "the older name": lambda t: t.cuda.amp.GradScaler().is_enabled(),
    "the older region": lambda t: t.cuda.amp.autocast()._enabled,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    outcomes = []
    for library in (torch, graphc):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                result: Any = CALLS[name](library)
            except Exception as error:
                result = kind_of(error), message(error)
        outcomes.append((result, [(w.category.__name__, str(w.message)) for w in told]))
    assert outcomes[1] == outcomes[0]


RULES: dict[str, Callable[[Any, Any], Any]] = {
    "SGD": lambda o, p: o.SGD(p, lr=0.05),
    "SGD momentum": lambda o, p: o.SGD(p, lr=0.05, momentum=0.9),
    "Adam": lambda o, p: o.Adam(p, lr=0.05),
    "AdamW amsgrad": lambda o, p: o.AdamW(p, lr=0.05, amsgrad=True),
    "RMSprop": lambda o, p: o.RMSprop(p, lr=0.05, momentum=0.5, centered=True),
    "RAdam": lambda o, p: o.RAdam(p, lr=0.05),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_compiled_step_is_captured_and_leaves_out_what_overflows(rule: str) -> None:
    found: dict[bool, Any] = {}
    for compiled in (False, True):
        graphc.manual_seed(1)
        net = graphc.nn.Sequential(graphc.nn.Linear(3, 4), graphc.nn.Tanh(), graphc.nn.Linear(4, 1))
        optimizer = RULES[rule](graphc.optim, net.parameters())
        scaler = graphc.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
        x = graphc.tensor(START)

        def step(x: Any, factor: Any, net: Any = net, optimizer: Any = optimizer, scaler: Any = scaler) -> Any:
            optimizer.zero_grad()
            with graphc.autocast("cpu"):
                loss = graphc.nn.functional.mse_loss(net(x), x.sum(1, keepdim=True)) * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        run = graphc.compile(step) if compiled else step
        replays = graphc.counters()["replays"]
        facts: list[Any] = []
        for factor in FACTORS:
            loss = run(x, graphc.tensor(factor)).item()
            weights = [p.detach().numpy().copy() for p in net.parameters()]
            facts.append((loss, scaler.get_scale(), scaler._get_growth_tracker(), weights))
        found[compiled] = facts
        assert not compiled or graphc.counters()["replays"] - replays >= len(FACTORS) - 4
    for ours, wanted in zip(found[True], found[False], strict=True):
        assert ours[1:3] == wanted[1:3]
        np.testing.assert_allclose(ours[0], wanted[0], rtol=1e-5)
        for a, b in zip(ours[3], wanted[3], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert all(np.isfinite(w).all() for w in found[True][-1][3])
