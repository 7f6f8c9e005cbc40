"""`testing.assert_close` and the in-place functions beside PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.api import in_place

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

Case = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]
NAN = float("nan")

CASES: dict[str, Case] = {
    "equal": lambda t: ((t.ones(3), t.ones(3)), {}),
    "near": lambda t: ((t.ones(3) + 1e-6, t.ones(3)), {}),
    "apart": lambda t: ((t.ones(3) + 1e-4, t.ones(3)), {}),
    "apart, allowed": lambda t: ((t.ones(3) + 1e-4, t.ones(3)), {"rtol": 1e-3, "atol": 0}),
    "f64": lambda t: ((t.ones(3, dtype=t.float64) + 1e-6, t.ones(3, dtype=t.float64)), {}),
    "bf16": lambda t: ((t.ones(3, dtype=t.bfloat16) * 1.01, t.ones(3, dtype=t.bfloat16)), {}),
    "shape": lambda t: ((t.ones(3), t.ones(1, 3)), {}),
    "dtype": lambda t: ((t.ones(3), t.ones(3, dtype=t.float64)), {}),
    "dtype unchecked": lambda t: ((t.ones(3), t.ones(3, dtype=t.float64)), {"check_dtype": False}),
    "dtype unchecked, integer": lambda t: ((t.ones(3), t.ones(3, dtype=t.int64)), {"check_dtype": False}),
    "stride": lambda t: ((t.ones(3, 2).t(), t.ones(2, 3)), {}),
    "stride checked": lambda t: ((t.ones(3, 2).t(), t.ones(2, 3)), {"check_stride": True}),
    "NaN": lambda t: ((t.tensor([1.0, NAN]), t.tensor([1.0, NAN])), {}),
    "NaN equal": lambda t: ((t.tensor([1.0, NAN]), t.tensor([1.0, NAN])), {"equal_nan": True}),
    "infinity": lambda t: ((t.tensor([1.0, -t.inf]), t.tensor([1.0, -t.inf])), {}),
    "infinities": lambda t: ((t.tensor([1.0, t.inf]), t.tensor([1.0, -t.inf])), {}),
    "integers": lambda t: ((t.tensor([1, 2]), t.tensor([1, 2])), {}),
    "other integers": lambda t: ((t.tensor([1, 2]), t.tensor([1, 3])), {}),
    "other integers, allowed": lambda t: ((t.tensor([1, 2]), t.tensor([1, 3])), {"rtol": 0, "atol": 1}),
    "bools": lambda t: ((t.tensor([True, False]), t.tensor([True, True])), {}),
    "empty": lambda t: ((t.ones(0), t.ones(0)), {}),
    "numbers": lambda t: ((1.0, 1.0 + 1e-8), {}),
    "other numbers": lambda t: ((1.0, 1.1), {}),
    "arrays": lambda t: ((np.ones(3), np.ones(3)), {}),
    "array and tensor": lambda t: ((np.ones(3, np.float32), t.ones(3)), {}),
    "number and tensor": lambda t: ((1.0, t.tensor(1.0)), {}),
    "lists": lambda t: (([t.ones(2), 1.0], [t.ones(2), 1.0]), {}),
    "other lists": lambda t: (([t.ones(2), 1.0], [t.ones(2), 2.0]), {}),
    "lengths": lambda t: (([t.ones(2)], [t.ones(2), t.ones(2)]), {}),
    "mappings": lambda t: (({"a": t.ones(2)}, {"a": t.ones(2)}), {}),
    "other mappings": lambda t: (({"a": [t.ones(2)]}, {"a": [t.zeros(2)]}), {}),
    "keys": lambda t: (({"a": t.ones(2)}, {"b": t.ones(2)}), {}),
    "one tolerance": lambda t: ((t.ones(3), t.ones(3)), {"rtol": 1e-3}),
    "None": lambda t: ((None, None), {}),
    "None and tensor": lambda t: ((None, t.ones(1)), {}),
    "no tensor": lambda t: (("a", t.ones(1)), {}),
    "message": lambda t: ((t.ones(1), t.zeros(1)), {"msg": "mine"}),
    "gradients": lambda t: ((t.ones(3, requires_grad=True), t.ones(3)), {}),
}


def refused(library: Any, case: Case) -> type[BaseException] | None:
    args, kwargs = case(library)
    try:
        library.testing.assert_close(*args, **kwargs)
    except Exception as error:
        return next(kind for kind in (AssertionError, TypeError, ValueError) if isinstance(error, kind))
    return None


@pytest.mark.parametrize("name", CASES)
def test_what_pytorch_finds_close_is_close(name: str) -> None:
    assert refused(graphc, CASES[name]) is refused(torch, CASES[name])


def test_the_message_says_where_and_how_much() -> None:
    with pytest.raises(
        AssertionError, match=r"1 / 4 \(25\.0%\)\nFirst of them at index \(1, 0\): 3\.0 instead of 1\.0"
    ):
        graphc.testing.assert_close(graphc.tensor([[1.0, 1.0], [3.0, 1.0]]), graphc.ones(2, 2))
    with pytest.raises(AssertionError, match=r"for item \['a'\]\[1\]\n"):
        graphc.testing.assert_close({"a": [1, 2]}, {"a": [1, 3]})
    with pytest.raises(AssertionError, match=r"^mine"):
        graphc.testing.assert_close(graphc.ones(1), graphc.zeros(1), msg="mine")


IN_PLACE = [name for name in vars(in_place) if name.endswith("_") and not name.startswith("_")]
MORE: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(["clamp_", "clip_"], (0.2, 0.5)),
    **dict.fromkeys(["clamp_max_", "clamp_min_", "fill_"], (0.5,)),
    "as_strided_": ((2, 2), (1, 1)),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_functions_in_place_are_pytorch_s(name: str) -> None:
    values = [[0.1, 0.4, 0.7], [0.9, 0.3, 0.6]]
    found = []
    for library in (graphc, torch):
        start = library.tensor(values, dtype=library.float64) + (1 if "acosh" in name else 0)
        more: tuple[Any, ...] = MORE.get(name, ())
        if name in ("gcd_", "lcm_"):
            start, more = library.tensor([[4, 6], [9, 5]]), (library.tensor([6, 15]),)
        elif name in ("xlogy_", "ldexp_"):
            more = (library.tensor([1.0, 2.0, 3.0], dtype=library.float64),)
        elif name == "resize_as_":
            more = (library.zeros(3, 2, dtype=library.float64),)
        elif name == "addmv_":
            start, more = start[0].clone(), (start.t(), start[:, 0])
        result = getattr(library, name)(start, *more)
        assert result is start
        found.append(result)
    assert str(found[0].dtype) == str(found[1].dtype)
    np.testing.assert_allclose(found[0].numpy(), found[1].numpy(), 1e-12)
