"""Programs print what PyTorch prints, values, dtypes, shapes and errors alike (recorded by `record_torch.py`)."""

from __future__ import annotations

import json

import pytest

import graphc as torch
import graphc.nn
from tests.frontend.cases_tensors import CASES
from tests.frontend.record_torch import FILE, outcome, promotion

RECORDED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", sorted(CASES))
def test_prints_what_torch_prints(name: str) -> None:
    expected = RECORDED["cases"][name]
    got = outcome(CASES[name], torch)
    if expected.startswith("!"):
        assert got.startswith(expected), "the error must say what PyTorch's says; it may say more"
    else:
        assert got == expected


def test_every_recorded_case_exists() -> None:
    assert set(RECORDED["cases"]) == set(CASES)


def test_type_promotion_is_that_of_torch() -> None:
    assert promotion(torch) == RECORDED["promotion"]
