"""Result types of operators other than `+`, over all pairs of dtypes and classes of operands: PyTorch is the judge."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")

NAMES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
NUMBERS = (True, 2, 2.5)
Operand = Callable[[Any], Any]


def tensor(name: str, shape: tuple[int, ...]) -> Operand:
    return lambda t: t.ones(shape, dtype=getattr(t, name))


VECTORS = {name: tensor(name, (2,)) for name in NAMES}
SCALARS = {f"{name}[]": tensor(name, ()) for name in NAMES}
PLAIN: dict[str, Operand] = {str(n): lambda t, n=n: n for n in NUMBERS}


def outcome(library: Any, run: Callable[[Any], Any]) -> str:
    try:
        made = run(library)
        return f"{made.dtype}{list(made.shape)}"
    except Exception as error:
        kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        return "RuntimeError" if issubclass(kind, RuntimeError) else kind.__name__


def differences(
    function: Callable[[Any, Any, Any], Any], left: dict[str, Operand], right: dict[str, Operand]
) -> list[str]:
    wrong = []
    for (a, make_a), (b, make_b) in itertools.product(left.items(), right.items()):

        def run(t: Any, make_a: Operand = make_a, make_b: Operand = make_b) -> Any:
            return function(t, make_a(t), make_b(t))

        ours, theirs = outcome(graphc, run), outcome(torch, run)
        if ours != theirs:
            wrong.append(f"{a}, {b}: {ours}, PyTorch {theirs}")
    return wrong


BINARY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mul": lambda t, a, b: a * b,
    "true_div": lambda t, a, b: a / b,
    "floor_div": lambda t, a, b: a // b,
    "remainder": lambda t, a, b: a % b,
    "less": lambda t, a, b: a < b,
    "equal": lambda t, a, b: a == b,
    "where": lambda t, a, b: t.where(t.tensor([True, False]), a, b),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_operators(name: str) -> None:
    function = BINARY[name]
    tensors = {**VECTORS, **SCALARS}
    assert differences(function, tensors, {**tensors, **PLAIN}) == []
    assert differences(function, PLAIN, tensors) == []


@pytest.mark.parametrize("name", ["cat", "stack", "result_type"])
def test_functions_of_two_tensors(name: str) -> None:
    functions: dict[str, Callable[[Any, Any, Any], Any]] = {
        "cat": lambda t, a, b: t.cat((a, b)),
        "stack": lambda t, a, b: t.stack((a, b)),
        "result_type": lambda t, a, b: t.zeros(0, dtype=t.result_type(a, b)),
    }
    assert (
        differences(functions[name], VECTORS, VECTORS if name != "result_type" else {**VECTORS, **SCALARS, **PLAIN})
        == []
    )


@pytest.mark.parametrize("method", ["__iadd__", "__imul__", "__itruediv__", "copy_", "fill_"])
def test_in_place_operators_keep_the_dtype_or_refuse(method: str) -> None:
    left = {**VECTORS, **SCALARS}
    right = {**SCALARS, **PLAIN} if method == "fill_" else {**VECTORS, **SCALARS, **PLAIN}
    if method == "copy_":
        right = {**VECTORS, **SCALARS}
    assert differences(lambda t, a, b: getattr(a, method)(b), left, right) == []


def test_can_cast_and_promote_types() -> None:
    for a, b in itertools.product(NAMES, NAMES):
        for name in ("can_cast", "promote_types"):
            ours = getattr(graphc, name)(getattr(graphc, a), getattr(graphc, b))
            theirs = getattr(torch, name)(getattr(torch, a), getattr(torch, b))
            assert str(ours) == str(theirs), (name, a, b)


def test_the_default_dtype_decides_for_floats() -> None:
    def made(library: Any) -> list[str]:
        saved = library.get_default_dtype()
        library.set_default_dtype(library.float64)
        try:
            whole = library.tensor([1, 2])
            results = [
                library.tensor(1.5),
                library.zeros(1),
                whole / 2,
                whole * 1.5,
                library.arange(1.5),
                library.rand(1),
            ]
            return [str(t.dtype) for t in results] + [repr(library.tensor([1.5])), repr(library.zeros(1).float())]
        finally:
            library.set_default_dtype(saved)

    assert made(graphc) == made(torch)


# half precision: arithmetic is rounded once for each result, sums are carried in f32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_halves_are_carried_in_f32(dtype: str) -> None:
    ones = graphc.ones(5000, dtype=getattr(graphc, dtype))
    assert ones.sum().item() == torch.ones(5000, dtype=getattr(torch, dtype)).sum().item()
    assert ones.mean().item() == 1.0
    rows = np.random.default_rng(0).uniform(0.5, 1, (4, 600))
    for function in (lambda t, x: x.sum(1), lambda t, x: x.mean(1), lambda t, x: x @ x.t()):
        ours = function(graphc, graphc.tensor(rows).to(getattr(graphc, dtype)))
        theirs = function(torch, torch.tensor(rows).to(getattr(torch, dtype)))
        assert str(ours.dtype) == str(theirs.dtype)
        error = np.abs(ours.float().numpy() - theirs.float().numpy()) / np.abs(theirs.float().numpy())
        assert error.max() <= {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
