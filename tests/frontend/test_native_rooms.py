"""Native flushes run programs for all sizes: operands are copied to where there is room, results are cut out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import any_size, interpreting, programs, served
from graphc.options import INTERPRET
from graphc.tensors import changing
from tests.frontend.test_stored_parts import counted


@pytest.fixture(autouse=True)
def fresh(native: None, native_recording: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing was seen before, and programs that are seen are soon compiled for all sizes, and not for one."""
    monkeypatch.setattr(programs, "_variants", {})
    monkeypatch.setattr(served, "_like", type(served._like)())
    monkeypatch.setattr(any_size, "compiling", lambda nodes, device: len(nodes))
    monkeypatch.setattr(any_size, "COPIED", 0)
    monkeypatch.setattr(interpreting, "SERVED", 0)
    monkeypatch.setattr(changing, "MOST_CHANGES", 1 << 30)  # no call is computed at once
    INTERPRET.set(True)
    yield
    INTERPRET.reset()


def realised(rng: np.random.Generator, *shape: int) -> Any:
    made = graphc.from_numpy(rng.standard_normal(shape).astype(np.float32)).clone()
    made.tolist()
    return made


def test_sizes_that_come_again_run_natively() -> None:
    rng, sizes = np.random.default_rng(0), list(range(3, 40))
    wide = {n: realised(rng, 4, n, 3) for n in sizes}  # the size is no first dimension
    rows = {n: realised(rng, n, 2) for n in sizes}
    weights = realised(rng, 3)

    def run(n: int) -> list[Any]:
        whole = wide[n] * weights + 1
        part = (rows[n] * 0.5).exp() + whole.sum((0, 2))[:, None]
        return [each.numpy() for each in (whole, part, part.mean(0), graphc.cat([part[:1], part]).cumsum(0))]

    def wanted(n: int) -> list[np.ndarray]:
        x, y = wide[n].numpy().astype(np.float64), rows[n].numpy().astype(np.float64)
        whole = x * weights.numpy() + 1
        part = np.exp(y * 0.5) + whole.sum((0, 2))[:, None]
        return [whole, part, part.mean(0), np.concatenate([part[:1], part]).cumsum(0)]

    for _ in range(5):
        for n in sizes:
            run(n)
    order = rng.permutation(sizes * 2).tolist()  # they grow and shrink
    made: list[list[Any]] = []
    done = counted(lambda: made.extend(run(n) for n in order))
    assert done["native_flushes"] > len(order) / 2 and done["programs_built"] == 0
    for n, results in zip(order, made, strict=True):
        for got, expected in zip(results, wanted(n), strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
