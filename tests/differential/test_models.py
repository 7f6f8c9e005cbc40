"""Whole models, trained side by side with PyTorch from the same weights: plainly and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.compare import torch
from tests.differential.models import MODELS
from tests.differential.models.base import Model

STEPS = 4


def trained(model: Model, wrap: Callable[[Any], Any]) -> list[np.ndarray]:
    """Losses of each step, then what the model shows."""
    rng = np.random.default_rng(1)
    step = wrap(model.step)
    seen: list[np.ndarray] = []
    for _ in range(STEPS):
        made = step(*model.batch(rng))
        seen += [np.asarray(each.item()) for each in (made if isinstance(made, tuple) else (made,))]
        model.after()
    return seen + [each.detach().numpy() for each in model.look()]


@pytest.mark.parametrize("wrap", [lambda step: step, graphc.compile], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, wrap: Callable[[Any], Any]) -> None:
    torch.manual_seed(0)
    theirs, ours = MODELS[name](torch), MODELS[name](graphc)
    start = {key: graphc.tensor(value.detach().numpy()) for key, value in theirs.net.state_dict().items()}
    ours.net.load_state_dict(start)
    for place, (found, wanted) in enumerate(zip(trained(ours, wrap), trained(theirs, lambda step: step), strict=True)):
        scale = float(np.abs(wanted).max(initial=0.0))
        assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * max(scale, 1e-3)), f"{place}: {found}, {wanted}"
