"""Operands that do not fit are refused with a message that names them."""

from __future__ import annotations

import re

import pytest

from graphc.errors import GraphcError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.contraction import parse_spec
from graphc.ir.node import Location
from graphc.ir.opdef import OPS
from tests.samples import SAMPLES, BadSample

CASES = [pytest.param(op, bad, id=f"{op}-{i}") for op, s in SAMPLES.items() for i, bad in enumerate(s.bad)]


@pytest.mark.parametrize(("op", "bad"), CASES)
def test_bad_operands(op: str, bad: BadSample) -> None:
    b = Builder()
    inputs = tuple(b.input(i, type) for i, type in enumerate(bad.types))
    with b.at(frozenset({Location("model.py", 12)})), pytest.raises(GraphcError) as caught:
        b.apply(op, inputs, bad.attrs)
    assert type(caught.value) is bad.error
    assert re.search(bad.match, str(caught.value)), str(caught.value)
    assert isinstance(caught.value, RuntimeError), "PyTorch code catches RuntimeError"
    assert str(caught.value).endswith("\n  at model.py:12")


@pytest.mark.parametrize("op", ["input", "constant", "iota", "random_bits", "random_normal"])
def test_operators_whose_type_is_given(op: str) -> None:
    with pytest.raises(ShapeError, match=f"{op}: the type of this operator is given"):
        OPS[op].infer([], {})


def test_formula_extents() -> None:
    spec = parse_spec("b c 2h+r, o c r -> b o h")
    assert spec.extents((2, 3, 9), (4, 3, 3)) == {"b": 2, "o": 4, "h": 4, "c": 3, "r": 3}
    assert spec.extents((2, 3, 2), (4, 3, 3))["h"] == 0, "a window that does not fit has no place"
    assert spec.summed == ("c", "r")
