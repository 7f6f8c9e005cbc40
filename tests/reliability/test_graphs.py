"""Row 1 of the reliability goals: random graphs through the whole compiler against the NumPy oracle in float64.

Integers, bools, NaN, infinities and the sign of zeros are exact; other floats are within an error bound that is
computed for each graph, so no tolerance is tuned by hand.
"""

from __future__ import annotations

import pytest

from tests.codegen.programs import mismatches, run
from tests.fuzz.graphs import random_graph, random_inputs

FEW, MANY, AT_ONCE = 200, 10_000, 20


def check(seeds: range) -> None:
    wrong = []
    for seed in seeds:
        graph = random_graph(seed)
        arrays = random_inputs(graph, seed)
        got = run(graph, arrays, misaligned=seed % 2 == 1)
        wrong += [f"graph {seed}: {text}" for text in mismatches(graph, arrays, got)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("first", range(0, FEW, AT_ONCE))
def test_random_graphs(first: int) -> None:
    check(range(first, first + AT_ONCE))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FEW, FEW + MANY, 10 * AT_ONCE))
def test_many_random_graphs(first: int) -> None:
    check(range(first, first + 10 * AT_ONCE))
