"""Row 5 of the reliability goals: every sample of every operator gives what PyTorch gives, or is refused as there."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.differential.samples import OPERATORS, Op


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_operator(op: Op) -> None:
    harness = pytest.importorskip("tests.differential.harness")
    harness.check(op)


def test_each_name_has_one_record() -> None:
    assert [name for name, count in Counter(op.name for op in OPERATORS).items() if count > 1] == []
