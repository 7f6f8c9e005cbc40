"""Random functions with gradients, compiled and plain: parameters, buffers, `.grad`, and what somebody does to them
between the calls.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as torch
from tests.frontend.histories import check_history

SIZE = 4
MOST_ERROR = 1e-4


class State:
    """What a function reads besides its arguments."""

    parameters: list[Any]
    buffers: list[Any]
    scale: float
    flag: bool


def _state(draw: random.Random, device: str) -> State:
    numbers = np.random.default_rng(draw.randrange(1 << 30))
    arrays = [numbers.standard_normal((SIZE, SIZE)).astype(np.float32) * 0.5 for _ in range(5)]
    tensors = [torch.tensor(array, device=device) for array in arrays]
    state = State()
    state.parameters, state.buffers = [t.requires_grad_() for t in tensors[:3]], tensors[3:]
    state.scale, state.flag = 1.0, True
    return state


Step = Callable[[State, list[Any]], None]


def _forward(draw: random.Random) -> Step:
    """A statement that adds a value."""
    kind, i, j = draw.randrange(9), draw.randrange(16), draw.randrange(16)

    def step(state: State, v: list[Any]) -> None:
        x, p = v[i % len(v)], state.parameters[j % 3]
        if kind == 0:
            v.append(x @ p)
        elif kind == 1:
            v.append(torch.tanh(x + p[j % SIZE]))
        elif kind == 2:
            v.append(x * state.scale if state.flag else x - state.scale)
        elif kind == 3:
            v.append(x + state.buffers[j % 2])
        elif kind == 4:
            v.append(p.t() * 0.5)
        elif kind == 5:
            v.append(torch.relu(x).detach() + x)
        elif kind == 6:
            v.append(p.view(2, -1).sum(1).repeat(8).view(SIZE, SIZE) * 0.1)
        elif kind == 7:
            y = x.clone()
            y[j % SIZE] = p.mean()
            v.append(y)
        else:
            with torch.no_grad():
                v.append(x.sigmoid() * p)

    return step


def _after(draw: random.Random) -> Step:
    """A statement after backward."""
    kind, i = draw.randrange(8), draw.randrange(6)

    def step(state: State, v: list[Any]) -> None:
        p, b = state.parameters[i % 3], state.buffers[i % 2]
        with torch.no_grad():
            if kind == 0 and p.grad is not None:
                p.sub_(p.grad * 0.1)
            elif kind == 1 and p.grad is not None:
                p.grad.zero_()
            elif kind == 2:
                p.grad = None
            elif kind == 3:
                b.mul_(0.9).add_(p * 0.1)
            elif kind == 4 and p.grad is not None:
                p.data.add_(p.grad, alpha=-0.05)
            elif kind == 5 and p.grad is not None:
                p.grad.mul_(0.5)
            elif kind == 6:
                b[i % SIZE] = v[-1].detach()[0]
            elif kind == 7 and p.grad is not None:
                b.copy_(p.grad)

    return step


def _between(draw: random.Random, state: State, held: list[Any]) -> None:
    """What somebody does before the next call."""
    kind, i = draw.randrange(12), draw.randrange(6)
    p, b = state.parameters[i % 3], state.buffers[i % 2]
    if kind == 0:
        p.grad = None
    elif kind == 1:
        p.grad = torch.ones_like(p)
    elif kind == 2 and p.grad is not None:
        held.append(p.grad)  # a look at it must stay as it is, or change as the tensor does
    elif kind == 3:
        held.append(p.detach())
    elif kind == 4:
        state.scale = draw.choice([0.5, 1.0])
    elif kind == 5:
        state.flag = not state.flag
    elif kind == 6:
        p.requires_grad_(not p.requires_grad)
    elif kind == 7:
        state.buffers[i % 2] = b.clone()
    elif kind == 8:
        b.zero_()
    elif kind == 9 and p.grad is not None:
        p.grad = p.grad.clone()
    elif kind == 10:
        held.append(p.grad if p.grad is None else p.grad[1:])


def training_history(seed: int, compiled: bool, device: str = "cpu") -> list[Any]:
    """What a random function leaves behind in some calls."""
    draw = random.Random(seed)
    state = _state(draw, device)
    forward = [_forward(draw) for _ in range(draw.randrange(1, 6))]
    after = [_after(draw) for _ in range(draw.randrange(4))]
    with_backward, with_view = draw.random() < 0.8, draw.random() < 0.3

    def function(x: Any, factor: float = 1.0) -> tuple[Any, Any]:
        v = [x]
        for step in forward:
            step(state, v)
        loss = (v[-1] * factor).pow(2).mean()
        if with_backward and loss.requires_grad:
            loss.backward()
            loss = loss.detach()
        for step in after:
            step(state, v)
        return loss, v[-1].detach() if not with_view else v[-1].detach().t()

    call = torch.compile(function) if compiled else function
    seen: list[Any] = []
    held: list[Any] = []
    numbers = np.random.default_rng(seed)
    for _ in range(10):
        x = torch.tensor(numbers.standard_normal((SIZE, SIZE)).astype(np.float32), device=device)
        options = {"factor": draw.choice([1.0, 2.0])} if draw.random() < 0.2 else {}
        try:
            loss, value = call(x, **options)
            if loss.requires_grad and draw.random() < 0.5:
                loss.backward()
            seen += [loss.requires_grad, loss.detach().cpu().numpy().copy(), value.cpu().numpy().copy()]
        except RuntimeError as error:
            seen.append(type(error))
        held.append(None)
        for tensor in (*state.parameters, *state.buffers, *(p.grad for p in state.parameters), *held):
            seen.append(None if tensor is None else tensor.detach().cpu().numpy().copy())
        if draw.random() < 0.4:
            _between(draw, state, held)
    return seen


@pytest.mark.parametrize("part", range(4))
def test_compiled_steps_do_what_plain_ones_do(part: int) -> None:
    for seed in range(part * 8, part * 8 + 8):
        check_history(training_history, seed, MOST_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_compiled_steps_do_what_plain_ones_do(part: int) -> None:
    for seed in range(1000 + part * 50, 1050 + part * 50):
        check_history(training_history, seed, MOST_ERROR)
