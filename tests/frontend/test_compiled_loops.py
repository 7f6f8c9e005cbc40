"""Random training loops, compiled and plain: layers, optimizers, and what users change between the steps."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

import graphc as torch
import graphc.nn as nn
from graphc import optim
from tests.frontend.histories import check_history

SIZE = 6
MOST_ERROR = 1e-3


def _layer(draw: random.Random) -> nn.Module:
    kind = draw.randrange(9)
    if kind < 3:
        return nn.Linear(SIZE, SIZE, bias=kind > 0)
    if kind == 3:
        return nn.BatchNorm1d(SIZE)
    if kind == 4:
        return nn.LayerNorm(SIZE)
    if kind == 5:
        return nn.Dropout(draw.choice([0.0, 0.3]))
    return [nn.ReLU(), nn.Tanh(), nn.GELU()][kind - 6]


def _optimizer(draw: random.Random, parameters: Any) -> optim.Optimizer:
    # A bias before a batch norm has a gradient of rounding errors: with a small `eps` they would become whole steps.
    kind = draw.randrange(6)
    if kind == 0:
        return optim.SGD(parameters, lr=0.05)
    if kind == 1:
        return optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=draw.random() < 0.5)
    if kind == 2:
        return optim.Adam(parameters, lr=0.01, eps=0.01, amsgrad=draw.random() < 0.3)
    if kind == 3:
        return optim.AdamW(parameters, lr=0.01, eps=0.01)
    if kind == 4:
        return optim.RMSprop(parameters, lr=0.005, eps=0.01, momentum=0.5)
    return optim.Adagrad(parameters, lr=0.02, eps=0.01)


def _change(draw: random.Random, net: Any, optimizer: Any, kept: dict[str, Any]) -> None:
    """What somebody does between two steps."""
    kind = draw.randrange(18)
    parameters = list(net.parameters())
    chosen = parameters[draw.randrange(len(parameters))]
    if kind == 0:
        optimizer.param_groups[0]["lr"] *= 0.5
    elif kind == 1:
        net.train(not net.training)
    elif kind == 2:
        kept["net"] = copy.deepcopy(net.state_dict())
    elif kind == 3 and "net" in kept:
        net.load_state_dict(kept["net"])
    elif kind == 4:
        kept["optimizer"] = copy.deepcopy(optimizer.state_dict())
    elif kind == 5 and "optimizer" in kept:
        optimizer.load_state_dict(kept["optimizer"])
    elif kind == 6:
        chosen.requires_grad_(not chosen.requires_grad)
    elif kind == 7:
        with torch.no_grad():
            chosen.mul_(0.5)
    elif kind == 8:
        chosen.data = chosen.data * 0.9
    elif kind == 9:
        chosen.grad = None
    elif kind == 10:
        net.zero_grad(set_to_none=draw.random() < 0.5)
    elif kind == 11:
        optimizer.state.clear()
    elif kind == 12:
        for layer in net:
            if isinstance(layer, nn.Dropout):
                layer.p = draw.choice([0.0, 0.2, 0.5])
    elif kind == 13:
        place = draw.randrange(len(net))
        if isinstance(net[place], nn.ReLU | nn.Tanh | nn.GELU):
            net[place] = draw.choice([nn.ReLU, nn.Tanh, nn.GELU])()
    elif kind == 14:
        kept["held"] = chosen.detach()
    elif kind == 15:
        kept["gradient"] = chosen.grad
    elif kind == 16:
        torch.manual_seed(draw.randrange(100))
    elif kind == 17:
        optimizer.param_groups[0]["weight_decay"] = draw.choice([0.0, 0.01])


def _history(seed: int, compiled: bool) -> list[Any]:
    draw = random.Random(seed)
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(SIZE, SIZE), *[_layer(draw) for _ in range(draw.randrange(1, 5))])
    optimizer = _optimizer(draw, net.parameters())
    clips, accumulates, clears = draw.random() < 0.3, draw.random() < 0.2, draw.random() < 0.7
    whole, sets_to_none = draw.random() < 0.7, draw.random() < 0.7

    def step(x: Any, y: Any) -> Any:
        loss = nn.functional.mse_loss(net(x), y)
        if whole:
            loss.backward()
            if clips:
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            if clears:
                optimizer.zero_grad(set_to_none=sets_to_none)
            return loss.detach()
        return loss

    call = torch.compile(step) if compiled else step
    numbers = np.random.default_rng(seed)
    seen: list[Any] = []
    kept: dict[str, Any] = {}
    for turn in range(14):
        size = 8 if draw.random() < 0.8 else 5
        x, y = (torch.tensor(numbers.standard_normal((size, SIZE)).astype(np.float32)) for _ in range(2))
        try:
            loss = call(x, y)
            if not whole:
                loss.backward()
                if not accumulates or turn % 2:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=sets_to_none)
            seen.append(loss.detach().numpy().copy())
        except RuntimeError as error:
            seen.append(type(error))
        seen += [value.numpy().copy() for value in net.state_dict().values()]
        seen += [None if p.grad is None else p.grad.numpy().copy() for p in net.parameters()]
        seen += [kept[name].numpy().copy() for name in ("held", "gradient") if kept.get(name) is not None]
        if draw.random() < 0.35:
            _change(draw, net, optimizer, kept)
    return seen


@pytest.mark.parametrize("part", range(4))
def test_compiled_loops_do_what_plain_ones_do(part: int) -> None:
    for seed in range(part * 6, part * 6 + 6):
        check_history(_history, seed, MOST_ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_many_compiled_loops_do_what_plain_ones_do(part: int) -> None:
    for seed in range(1000 + part * 30, 1030 + part * 30):
        check_history(_history, seed, MOST_ERROR)
