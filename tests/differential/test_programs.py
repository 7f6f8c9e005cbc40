"""Row 6 of the reliability goals: random programs of views, writes and gradients give what PyTorch gives."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

programs = pytest.importorskip("tests.differential.programs", reason="PyTorch is not installed")

NUMBER = st.integers(0, 60)
PROGRAMS = st.lists(
    st.tuples(st.sampled_from(programs.NAMES), st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)), min_size=4, max_size=25
)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(PROGRAMS)
def test_programs(program: list[programs.Instruction]) -> None:
    programs.run(program)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_programs(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        length = rng.randint(4, 40)
        programs.run(
            [(rng.choice(programs.NAMES), tuple(rng.randrange(1000) for _ in range(4))) for _ in range(length)]
        )
