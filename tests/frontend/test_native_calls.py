"""Calls of compiled functions begin in native code; what is not ready there gets to Python as it was given."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import graphc as torch
from tests.frontend.native_cases import warm

pytestmark = pytest.mark.usefixtures("native_replays")


def test_a_replayed_call_enters_no_python_function() -> None:
    compiled = torch.compile(lambda x, y: (x @ y, x + y))
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    warm(compiled, x, y)
    entered: list[str] = []

    def note(frame: Any, event: str, what: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        for _ in range(3):
            compiled(x, y)
    finally:
        sys.setprofile(None)
    assert not entered


def test_arguments_with_and_without_names_are_told_apart() -> None:
    def scaled(x: Any, shift: Any = None, scale: Any = None) -> Any:
        return x + shift if scale is None else x * scale

    compiled = torch.compile(scaled)
    x, y = torch.full((3,), 3.0), torch.full((3,), 2.0)
    for _ in range(5):
        assert compiled(x, scale=y).tolist() == [6.0] * 3
    for _ in range(5):
        assert compiled(x, y).tolist() == [5.0] * 3
    assert compiled(x, scale=y).tolist() == [6.0] * 3
    assert compiled(shift=y, x=x).tolist() == [5.0] * 3
    with pytest.raises(TypeError):
        compiled(x, y, y, y)


def test_what_python_does_instead_gets_all_arguments() -> None:
    compiled = torch.compile(lambda *args, **named: [*args, *named.values()])
    x = torch.ones(2)
    warm(compiled, x)
    for count in range(4):
        names = {f"n{i}": torch.full((1,), float(i)) for i in range(count)}
        made = compiled(*[x] * count, **names)
        assert [t.tolist() for t in made] == [[1.0, 1.0]] * count + [[float(i)] for i in range(count)]
