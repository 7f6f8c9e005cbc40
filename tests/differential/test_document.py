"""docs/pytorch.md and the list of missing names are those of today."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.differential.document import ABSENT, PAGE, make

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


def test_the_page_is_up_to_date() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        page, absent = make(torch)
    again = "run python -m tests.differential.document"
    assert absent == ABSENT.read_text(encoding="utf-8"), again
    assert page == PAGE.read_text(encoding="utf-8"), again


def test_four_hundred_names_are_compared() -> None:
    """Names that PyTorch has, each with samples (`test_samples.py` runs them)."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `torch")]
    assert sum(int(row[4]) for row in rows if row[4].strip()) >= 400
