"""Draws of ever other sizes are the numbers that they are in programs of their own, and are not compiled each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import programs
from graphc.options import scope
from tests.frontend.test_stored_parts import counted


@pytest.fixture(autouse=True)
def fresh(native: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(programs, "_variants", {})
    with scope(interpret=True):
        yield


DRAWS: dict[str, Callable[[int], Any]] = {
    "uniform": lambda n: graphc.rand(n, 3),
    "normal": lambda n: graphc.randn(2, n),
    "doubles": lambda n: graphc.randn(n, dtype=graphc.float64),
    "two sizes": lambda n: graphc.randn(n, 2 * n % 17 + 3) * 0.5,
    "whole numbers": lambda n: graphc.randint(-3, 40, (n, 2)),
    "masks": lambda n: F.dropout(graphc.rand(n, 4), 0.4),
    "a function of them": lambda n: (graphc.randn(n, 5) * 2 + 1).exp().sum(1),
}


@pytest.mark.share(2)
@pytest.mark.parametrize("what", DRAWS)
def test_they_are_the_same_numbers(what: str) -> None:
    draw, sizes = DRAWS[what], [*range(20, 60), *range(58, 30, -3)]

    def drawn() -> list[np.ndarray]:
        graphc.manual_seed(5)
        return [draw(n).numpy() for n in sizes]

    got: list[np.ndarray] = []
    done = counted(lambda: got.extend(drawn()))
    assert done["any_size"] + done["interpreted"] >= len(sizes) - 8
    assert done["programs_built"] <= 8
    if what != "whole numbers":
        assert not done["interpreted"]
    with scope(interpret=False):
        wanted = drawn()
    for one, other in zip(got, wanted, strict=True):
        if what == "a function of them":  # sums of rows with room are added in another order
            np.testing.assert_allclose(one, other, rtol=1e-6)
        else:
            np.testing.assert_array_equal(one, other)
