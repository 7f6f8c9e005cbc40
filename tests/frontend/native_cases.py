"""What tests of native replays share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as torch
import graphc.nn as nn
from graphc import optim
from graphc.native import operators
from graphc.recording_hooks import WHEN_OFTEN
from graphc_runtime.counters import COUNTERS


def natively(run: Callable[[], Any]) -> int:
    """How many programs `run` runs in native replays."""
    before = COUNTERS.locked.runs
    run()
    return COUNTERS.locked.runs - before


def entered(run: Callable[[], Any]) -> list[str]:
    """The Python functions that `run` enters, without comprehensions in it, functions in Python 3.11."""
    names, own = list[str](), {run.__code__, *run.__code__.co_consts}

    def note(frame: Any, event: str, what: Any) -> None:
        if event == "call" and frame.f_code not in own:
            names.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return names


def warm(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Capture, replay, make the plan."""
    for _ in range(3):
        function(*args, **kwargs)


def numbers(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy()
    if isinstance(value, dict):
        return {key: numbers(v) for key, v in value.items()}
    return [numbers(v) for v in value] if isinstance(value, list | tuple) else value


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = 2.0

    def forward(self, x: Any) -> Any:
        return torch.relu(self.layer(x)) * self.scale


def training(make: Callable[..., Any], size: int = 4, dropout: float = 0.0) -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    layers = (nn.Linear(size, size), nn.Dropout(dropout), nn.ReLU(), nn.Linear(size, size), nn.Linear(size, 3))
    net = nn.Sequential(*layers)
    optimizer, criterion = make(net.parameters()), nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return net, optimizer, torch.compile(step)


MAKERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def batch(i: int) -> tuple[Any, Any]:
    x = np.random.default_rng(i).standard_normal((5, 4)).astype(np.float32)
    return torch.tensor(x), torch.tensor((np.arange(5) + i) % 3)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "one": lambda x, y: x @ y,
    "tuple": lambda x, y: (x + y, x - y),
    "list": lambda x, y: [x * y, x.sum()],
    "argument": lambda x, y: (x, x + y),
    "constant": lambda x, y: (x + y, 3, None),
    "written": lambda x, y: x.add_(y),
    "integers": lambda x, y: (x > y).sum(),
    "dictionary": lambda x, y: {"sum": x + y, "parts": [x * y, (y - x, 4)]},
    "named": lambda x, y: (x + y).max(0),
    "nested": lambda x, y: ((x, x + y), [y * 2]),
    "drawn": lambda x, y: x + torch.rand(4, 4) * y,
}


def both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """What a function gives with native recording and without."""
    ours = run()
    operators.remove()
    often, WHEN_OFTEN[:] = WHEN_OFTEN[:], [lambda: False]  # which would install it again
    try:
        return ours, run()
    finally:
        WHEN_OFTEN[:] = often
        operators.install()
