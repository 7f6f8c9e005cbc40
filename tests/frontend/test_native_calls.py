"""Calls of compiled functions begin in native code; what is not ready there gets to Python as it was given."""

from __future__ import annotations

import copy
import gc
import pickle
from typing import Any

import pytest

import graphc as torch
import graphc.nn as nn
from tests.frontend.native_cases import FUNCTIONS, entered, warm

pytestmark = pytest.mark.usefixtures("native_replays")


def doubled(x: Any) -> Any:
    return x * 2


def test_a_replayed_call_enters_no_python_function() -> None:
    compiled = torch.compile(lambda x, y: (x @ y, x + y))
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    warm(compiled, x, y)
    assert not entered(lambda: [bool(compiled(x, y)) for _ in range(3)])


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


def test_modules_and_named_arguments_enter_no_python_function() -> None:
    compiled = torch.compile(lambda x, *, scale, shift: x * scale + shift)
    layer = nn.Linear(4, 4).requires_grad_(False)
    module = torch.compile(lambda x: layer(x))
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    warm(compiled, x, scale=y, shift=x)
    warm(module, x)
    assert compiled(x, scale=y, shift=x) is not module(x)  # two blocks of memory, which come back
    assert not entered(lambda: [compiled(x, scale=y, shift=x) is module(x) for _ in range(3)])
    expected = (x * x + y).tolist()
    assert compiled(x, shift=y, scale=x).tolist() == expected, "other names at the same places"
    assert compiled(x, **{"shift": y, "scale": x}).tolist() == expected
    with pytest.raises(TypeError):
        compiled(x, scale=y, shifted=x)
    with pytest.raises(TypeError):
        compiled(x, y, x)


@pytest.mark.parametrize("calls", [0, 1, 5])
@pytest.mark.parametrize(
    "copies",
    [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))],  # noqa: S301
)
def test_copies_capture_for_themselves(copies: Any, calls: int) -> None:
    x = torch.ones(3)
    compiled = torch.compile(doubled)
    for _ in range(calls):
        compiled(x)
    made = copies(compiled)
    del compiled
    gc.collect()
    assert [made(x).tolist() for _ in range(5)] == [[2.0] * 3] * 5


def test_what_python_does_instead_gets_all_arguments() -> None:
    compiled = torch.compile(lambda *args, **named: [*args, *named.values()])
    x = torch.ones(2)
    warm(compiled, x)
    for count in range(4):
        names = {f"n{i}": torch.full((1,), float(i)) for i in range(count)}
        made = compiled(*[x] * count, **names)
        assert [t.tolist() for t in made] == [[1.0, 1.0]] * count + [[float(i)] for i in range(count)]


def test_inference_mode_is_part_of_what_a_call_is() -> None:
    """Functions may ask for the mode, and whether a tensor is of it."""
    asks = torch.compile(lambda x: (x + 1 if torch.is_inference_mode_enabled() else x * 10, (x + 2).is_inference()))
    own = torch.compile(lambda x: x + 1 if x.is_inference() else x * 10)
    writes = torch.compile(lambda x: x.add_(1))
    x = torch.ones(2)
    with torch.inference_mode():
        frozen = torch.ones(2)
    for _ in range(5):
        with torch.inference_mode():
            assert asks(x)[0].tolist() == [2, 2] and asks(x)[1]
            writes(frozen)
        with torch.no_grad():
            assert asks(x)[0].tolist() == [10, 10] and not asks(x)[1]
            assert own(frozen).tolist() == (frozen + 1).tolist() and own(x).tolist() == [10, 10]
            with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode"):
                writes(frozen)
    assert frozen.tolist() == [6, 6]


@pytest.mark.parametrize("name", ["one", "tuple", "list", "written", "dictionary", "drawn"])
def test_a_plan_has_room_for_what_a_call_owns(name: str) -> None:
    compiled = torch.compile(FUNCTIONS[name])
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    kept: list[Any] = [compiled(x, y) for _ in range(8)]
    native = compiled._recent.native
    (owned,) = [words for words in native._plan.keep if getattr(words, "address", 0) == native._plan.get("owned")]
    used = [place for place, word in enumerate(owned.values) if word]
    assert kept and used and used[-1] + 8 < len(owned.values)
