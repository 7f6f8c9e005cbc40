"""Each function stays within the error that docs/ulp.md gives, at the arguments that were worst and at some others."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import graphc
from tests.accuracy.functions import BY_NAME, FUNCTIONS
from tests.accuracy.references import PAGE, load, read, shown
from tests.codegen.kernel_interpreter import ulp_error

KNOWN = load()


@cache
def _results() -> dict[str, np.ndarray]:
    """All functions at their arguments, by one program."""
    made = {}
    for key, entry in KNOWN.items():
        name, dtype = key.split()
        operands = np.array(read(entry).tried).T.astype(np.float32 if dtype == "f32" else np.float64)
        made[key] = BY_NAME[name].call(graphc, *map(graphc.tensor, operands))
    return {key: np.array(tensor.numpy()) for key, tensor in made.items()}


@pytest.mark.parametrize("key", KNOWN)
def test_errors_are_those_of_the_page(key: str) -> None:
    found = read(KNOWN[key])
    wide = np.array([np.longdouble(hi) + np.longdouble(lo) for hi, lo in found.exact])
    got = _results()[key]
    errors = ulp_error(got, wide)
    place = int(np.argmax(errors))
    assert errors[place] <= found.worst["graphc"].error * 1.001, (found.tried[place], got[place], wide[place])


def test_the_page_has_every_function() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert set(KNOWN) == {f"{f.name} {dtype}" for f in FUNCTIONS for dtype in ("f32", "f64")}
    for function in FUNCTIONS:
        row = next(line for line in text.splitlines() if line.startswith(f"| `{function.name}` |"))
        assert shown(read(KNOWN[f"{function.name} f32"]).worst["graphc"]) in row
