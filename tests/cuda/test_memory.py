"""What memory of a device is for, and memory full of one value."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest

import graphc
from graphc_runtime.devices.cuda import cuda_device

pytestmark = pytest.mark.usefixtures("cuda")

SIZE = 5000  # elements: more than what travels together
MANY = 1000
UNNAMED = "(not said what for)"


def _said() -> list[str]:
    """What the blocks of at least SIZE floats are for."""
    return [what for nbytes, what in cuda_device(0).pool.largest(MANY) if nbytes >= 4 * SIZE]


def test_a_buffer_says_which_line_of_the_user_made_it() -> None:
    unnamed = sum(what == UNNAMED for what in _said())
    first = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    held: list[Any] = [graphc.tensor(np.arange(SIZE, dtype=np.float32)).cuda() for _ in range(3)]
    held += [graphc.full((SIZE,), 0.5 + k, device="cuda") for k in range(12)]
    for _ in range(12):
        held.append(held[0] * 2)
        held[-1].data_ptr()
    double = graphc.compile(lambda x: x * 2 - 1)
    held += [double(held[0]) for _ in range(12)]
    held.append(held[0].clone().copy_(held[1]))
    weight = held[0].clone().requires_grad_()
    optimizer = graphc.optim.AdamW([weight])
    for _ in range(12):
        optimizer.zero_grad()
        held.append(weight.square())
        held[-1].mean().backward()
        optimizer.step()
    last = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    for tensor in held:
        tensor.data_ptr()
    lines = [re.findall(r"test_memory\.py:(\d+)", what) for what in _said()]
    named = [found for found in lines if any(first < int(n) < last for n in found)]
    assert len(named) >= len(held) + 4, "results, the weight, its gradient, two averages"
    assert sum(what == UNNAMED for what in _said()) <= unnamed


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int16", "bfloat16"])
def test_memory_of_one_value(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is brought for it, however large it is."""
    brought: list[int] = []
    driver, size = cuda_device(0).driver, 1_500_007
    copy_in = driver.copy_in

    def counted(target: int, host: int, nbytes: int, stream: Any) -> None:
        brought.append(nbytes)
        copy_in(target, host, nbytes, stream)

    monkeypatch.setattr(driver, "copy_in", counted)
    for value in (3, 0):
        tensor = graphc.full((size,), value, dtype=getattr(graphc, dtype), device="cuda")
        tensor.data_ptr()
        assert sum(brought) <= 1 << 20
        assert (tensor.cpu() == value).all()
    assert graphc.full((0,), value, device="cuda").tolist() == []
