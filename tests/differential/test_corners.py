"""Values where types and numbers end: wrap-around, signs, NaN, infinities, both zeros and subnormal numbers.

Everything of one test is recorded first and looked at last, so that it is one program.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from tests.differential.calls import array_of, torch

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
FLOATS = NAMES[6:]
WHOLE = {
    "bool": [True, False, True],
    "uint8": [1, 200, 255],
    "int8": [-128, -3, 127],
    "int16": [-32768, -5, 32767],
    "int32": [-(2**31), -7, 2**31 - 1],
    "int64": [-(2**63), -9, 2**63 - 1],
}
EDGES = [math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, -2.5, 1e-8]
NUMBERS = (True, -3, 2.5)
SINGLE = ("uint8", "int64", "float16", "float64")  # 0-d operands
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "lt": operator.lt,
}
ROUNDING = {"float16": 2.0**-9, "bfloat16": 2.0**-6, "float32": 1e-6, "float64": 1e-12}
Run = Callable[[Any], Any]


def values(name: str) -> list[Any]:
    return WHOLE.get(name, [-2.5, -0.0, 3.0])


def tensor(library: Any, name: str, numbers: Any) -> Any:
    return library.tensor(numbers, dtype=getattr(library, name))


def attempt(library: Any, run: Run) -> Any:
    try:
        return run(library)
    except Exception as error:
        return next(c for c in type(error).__mro__ if c.__module__ == "builtins" and c is not NotImplementedError)


def compare(runs: dict[str, Run], zeros: bool = True) -> None:
    """Asserts that all of `runs` give the same dtypes, values and errors; with `zeros` the same zeros too."""
    found = {what: attempt(graphc, run) for what, run in runs.items()}
    wrong = [text for what, run in runs.items() if (text := difference(found[what], attempt(torch, run), zeros))]
    assert wrong == [], wrong[:10]


def difference(found: Any, wanted: Any, zeros: bool) -> str:
    if isinstance(found, type) or isinstance(wanted, type):
        return "" if found is wanted else f"{found}, PyTorch {wanted}"
    if str(found.dtype) != str(wanted.dtype) or tuple(found.shape) != tuple(wanted.shape):
        return f"{found.dtype}{list(found.shape)}, PyTorch {wanted.dtype}{list(wanted.shape)}"
    ours, theirs = array_of(found), array_of(wanted)
    rtol = ROUNDING.get(str(wanted.dtype)[6:], 0.0)
    same = np.isclose(ours.astype(float), theirs.astype(float), rtol=rtol, atol=0, equal_nan=True)
    if not rtol:
        same = ours == theirs
    elif zeros:
        same &= (ours != 0) | (np.signbit(ours) == np.signbit(theirs))
    return "" if same.all() else f"{ours.ravel()[:12]}, PyTorch {theirs.ravel()[:12]}"


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    op = OPERATORS[name]
    runs: dict[str, Run] = {}
    for left in NAMES:
        x = values(left)
        for number in NUMBERS:
            runs[f"{left}, {number}"] = lambda t, left=left, x=x, number=number: op(tensor(t, left, x), number)
            if left == "bool" and name in ("floordiv", "mod"):
                continue  # by False, which is an error when it is looked at
            runs[f"{number}, {left}"] = lambda t, left=left, x=x, number=number: op(number, tensor(t, left, x))
        for right in SINGLE:
            y = values(right)[1 if right == "uint8" or name == "pow" else 2]
            runs[f"{left}, {right}[]"] = lambda t, left=left, right=right, x=x, y=y: op(
                tensor(t, left, x), tensor(t, right, y)
            )
        if left in FLOATS:
            runs[f"edges of {left}"] = lambda t, left=left: op(
                tensor(t, left, EDGES)[:, None], tensor(t, left, EDGES[:-1])
            )
        else:
            runs[f"grid of {left}"] = lambda t, left=left, x=x: op(
                tensor(t, left, x)[:, None], tensor(t, left, [v for v in x if v])
            )
    compare(runs)


UNARY = (
    "abs",
    "sign",
    "neg",
    "sqrt",
    "exp",
    "floor",
    "ceil",
    "round",
    "trunc",
    "frac",
    "reciprocal",
    "rsqrt",
    "square",
)
REDUCING = ("max", "min", "argmax", "argmin", "amax", "amin", "sum", "prod", "mean", "median", "nanmedian", "nansum")


@pytest.mark.parametrize("name", FLOATS)
def test_functions_of_special_numbers(name: str) -> None:
    rows = {
        "all": [math.nan, 1.0, -0.0, 0.0, math.inf, -math.inf, 2.0],
        "no NaN": [1.0, -0.0, 0.0, math.inf, -math.inf, 2.0],
        "subnormal": [6e-8, 1e-40, 5e-324, -1e-310],
    }
    runs: dict[str, Run] = {}
    for what, row in rows.items():
        for function in (*REDUCING, "isnan", "isinf", "isfinite", "signbit", "nan_to_num", "relu", "sgn"):
            runs[f"{function} of {what}"] = lambda t, f=function, row=row: getattr(t, f)(tensor(t, name, row))
        for function in ("max", "cummin", "sort"):
            runs[f"{function} along {what}"] = lambda t, f=function, row=row: getattr(t, f)(tensor(t, name, row), 0)[0]
        runs[f"topk of {what}"] = lambda t, row=row: t.topk(tensor(t, name, row), 3)[0]
        for low, high in ((0.0, 1.0), (math.nan, None), (None, -0.5)):
            runs[f"clamp {low} {high} of {what}"] = lambda t, row=row, low=low, high=high: t.clamp(
                tensor(t, name, row), low, high
            )
    compare(runs, zeros=False)  # of equal zeros either may come out
    signed = {f: (lambda t, f=f: getattr(t, f)(tensor(t, name, rows["no NaN"]))) for f in UNARY}
    compare(signed)


def test_functions_of_integers() -> None:
    runs: dict[str, Run] = {}
    for name in NAMES[:6]:
        for function in (*UNARY, "max", "min", "argmax", "sum", "prod", "median", "all", "any", "bitwise_not", "std"):
            runs[f"{function} of {name}"] = lambda t, f=function, name=name: getattr(t, f)(
                tensor(t, name, values(name))
            )
        for function in ("cumsum", "cumprod", "clamp_min"):
            runs[f"{function} of {name}"] = lambda t, f=function, name=name: getattr(t, f)(
                tensor(t, name, values(name)), 0
            )
    compare(runs)


def test_a_vector_without_elements_adds_its_history_to_what_it_is_joined_with() -> None:
    found: list[list[Any]] = []
    for library in (torch, graphc):
        plain, other = library.ones(2, 3), library.full((2, 1), 3.0, requires_grad=True)
        empty = library.zeros(0, requires_grad=True)
        said: list[Any] = []
        for operands in ([plain, empty], [empty, other, plain, empty], [empty, empty], [plain, library.zeros(0)]):
            dim = max(x.ndim for x in operands) - 1
            joined = library.cat(operands, dim)
            said += [tuple(joined.shape), joined.requires_grad]
            if joined.requires_grad:
                empty.grad = other.grad = None
                (joined * 2).sum().backward()
                said += [None if x.grad is None else x.grad.tolist() for x in (empty, other)]
        found.append(said)
    assert found[0] == found[1]
    assert found[0][:4] == [(2, 3), True, [], None]
