"""Row 1 of the reliability goals: random graphs through the whole compiler against the NumPy oracle in float64.

Integers, bools, NaN, infinities and the sign of zeros are exact; other floats are within an error bound that is
computed for each graph, so no tolerance is tuned by hand. Each graph runs on ordinary numbers, and on ones with NaN,
infinities, zeros and subnormals among them in memory that is aligned to its elements only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.codegen.programs import buffers, executable, mismatches, results
from tests.fuzz.graphs import random_graph, random_inputs

FEW, MANY, AT_ONCE = 200, 10_000, 20
SALT = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40)


def salted(arrays: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """The arrays with a tenth of their floats replaced by special values."""
    rng = np.random.default_rng(seed)
    found = []
    for array in arrays:
        if array.dtype.kind == "f":
            special = rng.choice(np.array(SALT, array.dtype), array.shape)
            array = np.asarray(np.where(rng.random(array.shape) < 0.1, special, array)).astype(array.dtype)
        found.append(array)
    return found


def check(seeds: range) -> None:
    wrong = []
    for seed in seeds:
        graph = random_graph(seed)
        program = executable(graph)
        plain = random_inputs(graph, seed)
        for what, arrays, misaligned in (("", plain, False), (" with NaN", salted(plain, seed), True)):
            got = results(graph, program.run(buffers(arrays, misaligned)))
            wrong += [f"graph {seed}{what}: {text}" for text in mismatches(graph, arrays, got)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("first", range(0, FEW, AT_ONCE))
def test_random_graphs(first: int) -> None:
    check(range(first, first + AT_ONCE))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, FEW + MANY, 10 * AT_ONCE))
def test_many_random_graphs(first: int) -> None:
    check(range(first, first + 10 * AT_ONCE))
