"""Conformance of CUDA devices: every operator and its derivatives, against the NumPy reference."""

from __future__ import annotations

import pytest

from tests.cuda.machine import Machine
from tests.ops.corpus import DERIVATIVES, FORWARD, forward, gradients, groups

TOGETHER = 4  # operators in a program
SHIM_VARIANT = "quick"  # most kernels run once, over a few elements


@pytest.mark.parametrize("operators", groups(FORWARD, TOGETHER), ids="-".join)
def test_forward(cuda: Machine, operators: list[str]) -> None:
    case = forward(operators)
    case.judge(cuda.run(case.graph, case.arrays))


@pytest.mark.parametrize("operators", groups(DERIVATIVES, TOGETHER), ids="-".join)
def test_derivatives(cuda: Machine, operators: list[str]) -> None:
    case = gradients(operators)
    case.judge(cuda.run(case.graph, case.arrays))
