"""What a model's test needs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Rng = np.random.Generator


@dataclass
class Model:
    """A network with its training: `batch` draws the arguments of `step`, which gives its losses; `after` follows each
    step, `look` gives tensors at the end.
    """

    net: Any
    batch: Callable[[Rng], tuple[Any, ...]]
    step: Callable[..., Any]
    after: Callable[[], object] = lambda: None
    look: Callable[[], list[Any]] = list


Make = Callable[[Any], Model]


def normal(torch: Any, rng: Rng, *shape: int) -> Any:
    """A float32 tensor of normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def uniform(torch: Any, rng: Rng, *shape: int) -> Any:
    """A float32 tensor of numbers from 0 to 1."""
    return torch.from_numpy(rng.random(shape, dtype=np.float32))


def below(torch: Any, rng: Rng, most: int, *shape: int) -> Any:
    """An int64 tensor of numbers from 0 to `most - 1`."""
    return torch.from_numpy(rng.integers(0, most, shape))
