"""The functions whose errors are measured: how graphc and PyTorch call them, NumPy's form, and where they are tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Interval = tuple[float, float]
Call = Callable[..., Any]

_INF = math.inf


@dataclass(frozen=True)
class Function:
    """`call` is given a module with PyTorch's names, and the operands. `domain` bounds every operand; `middle` are
    intervals where something happens, which get a third of the arguments.
    """

    name: str
    call: Call
    domain: Interval = (-_INF, _INF)
    middle: tuple[Interval, ...] = ((-4.0, 4.0),)
    numpy: Call | None = None
    arity: int = 1
    about: str = ""  # where it is tried, if that is not the whole domain of the function


def _plain(name: str) -> Call:
    return lambda m, *xs: getattr(m, name)(*xs)


def _layer(name: str) -> Call:
    return lambda m, *xs: getattr(m.nn.functional, name)(*xs)


def _special(name: str) -> Call:
    return lambda m, *xs: getattr(m.special, name)(*xs)


_ANY = (-_INF, _INF)
_POSITIVE = (0.0, _INF)
_EXP = ((-4.0, 4.0), (-110.0, 90.0), (-760.0, 720.0))
_LOG = ((0.0, 4.0), (0.5, 2.0), (0.0, 1e4))
_TURNS = ((-8.0, 8.0), (-1e4, 1e4), (-1e7, 1e7))
_UNIT = ((-1.0, 1.0), (0.9, 1.0), (-0.1, 0.1))
_PAIRS = ((-8.0, 8.0), (-1e3, 1e3))

FUNCTIONS: tuple[Function, ...] = (
    Function("exp", _plain("exp"), _ANY, _EXP, np.exp),
    Function("exp2", _plain("exp2"), _ANY, ((-4.0, 4.0), (-150.0, 128.0), (-1080.0, 1024.0)), np.exp2),
    Function("expm1", _plain("expm1"), _ANY, _EXP, np.expm1),
    Function("log", _plain("log"), _POSITIVE, _LOG, np.log),
    Function("log1p", _plain("log1p"), (-1.0, _INF), ((-1.0, 1.0), (-0.01, 0.01), (0.0, 1e4)), np.log1p),
    Function("log2", _plain("log2"), _POSITIVE, _LOG, np.log2),
    Function("log10", _plain("log10"), _POSITIVE, _LOG, np.log10),
    Function("sqrt", _plain("sqrt"), _POSITIVE, _LOG, np.sqrt),
    Function("rsqrt", _plain("rsqrt"), _POSITIVE, _LOG),
    Function("sin", _plain("sin"), _ANY, _TURNS, np.sin),
    Function("cos", _plain("cos"), _ANY, _TURNS, np.cos),
    Function("tan", _plain("tan"), _ANY, _TURNS, np.tan),
    Function("asin", _plain("asin"), (-1.0, 1.0), _UNIT, np.arcsin),
    Function("acos", _plain("acos"), (-1.0, 1.0), _UNIT, np.arccos),
    Function("atan", _plain("atan"), _ANY, ((-4.0, 4.0), (-100.0, 100.0)), np.arctan),
    Function("sinh", _plain("sinh"), _ANY, _EXP, np.sinh),
    Function("cosh", _plain("cosh"), _ANY, _EXP, np.cosh),
    Function("tanh", _plain("tanh"), _ANY, ((-4.0, 4.0), (-20.0, 20.0)), np.tanh),
    Function("asinh", _plain("asinh"), _ANY, ((-4.0, 4.0), (-1e4, 1e4)), np.arcsinh),
    Function("acosh", _plain("acosh"), (1.0, _INF), ((1.0, 4.0), (1.0, 1.01), (1.0, 1e4)), np.arccosh),
    Function("atanh", _plain("atanh"), (-1.0, 1.0), _UNIT, np.arctanh),
    Function("sigmoid", _plain("sigmoid"), _ANY, _EXP),
    Function("erf", _plain("erf"), _ANY, ((-4.0, 4.0), (-0.1, 0.1))),
    Function("erfc", _plain("erfc"), (-1e4, 1e4), ((-4.0, 4.0), (0.0, 10.0), (0.0, 27.0))),
    Function("erfinv", _plain("erfinv"), (-1.0, 1.0), _UNIT),
    Function("lgamma", _plain("lgamma"), _POSITIVE, ((0.0, 4.0), (0.0, 100.0)), None, 1, "x > 0"),
    Function("digamma", _plain("digamma"), _POSITIVE, ((0.0, 4.0), (0.0, 100.0)), None, 1, "x > 0"),
    Function("i0", _plain("i0"), (-80.0, 80.0), ((-8.0, 8.0), (-80.0, 80.0)), np.i0, 1, "abs(x) < 80"),
    Function("i1", _special("i1"), (-80.0, 80.0), ((-8.0, 8.0), (-80.0, 80.0)), None, 1, "abs(x) < 80"),
    Function("ndtri", _special("ndtri"), (0.0, 1.0), ((0.0, 1.0), (0.0, 0.01))),
    Function("gelu", _layer("gelu"), (-1e6, 1e6), ((-4.0, 4.0), (-12.0, 12.0)), None, 1, "abs(x) < 1e6"),
    Function("silu", _layer("silu"), (-80.0, _INF), ((-4.0, 4.0), (-80.0, 80.0)), None, 1, "x > -80"),
    Function("softplus", _layer("softplus"), (-_INF, 20.0), ((-4.0, 4.0), (-80.0, 20.0)), None, 1, "x < 20"),
    Function("logsigmoid", _layer("logsigmoid"), (-_INF, 80.0), ((-4.0, 4.0), (-80.0, 80.0)), None, 1, "x < 80"),
    Function("mish", _layer("mish"), (-80.0, 20.0), ((-4.0, 4.0), (-80.0, 20.0)), None, 1, "-80 < x < 20"),
    Function("elu", _layer("elu"), _ANY, ((-4.0, 4.0), (-20.0, 1.0))),
    Function("pow", _plain("pow"), _POSITIVE, ((0.0, 8.0), (0.5, 2.0), (0.0, 100.0)), np.power, 2, "x, y > 0"),
    Function("atan2", _plain("atan2"), _ANY, _PAIRS, np.arctan2, 2),
    Function("hypot", _plain("hypot"), _ANY, _PAIRS, np.hypot, 2),
    Function("logaddexp", _plain("logaddexp"), (1.0, 1e3), ((1.0, 8.0), (1.0, 1e3)), np.logaddexp, 2, "x, y > 1"),
)
BY_NAME = {f.name: f for f in FUNCTIONS}


def arguments(function: Function, dtype: type[np.floating], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """About `count` operands of each kind: random bit patterns of the domain, and numbers of the middle intervals."""
    return [_one(function, dtype, count, rng) for _ in range(function.arity)]


def _one(function: Function, dtype: type[np.floating], count: int, rng: np.random.Generator) -> np.ndarray:
    lo, hi = function.domain
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    parts: list[np.ndarray] = []
    found, wanted = 0, count - count // 3 * 2
    for _ in range(1000):
        patterns = rng.integers(0, np.iinfo(bits).max, count, bits, endpoint=True).view(dtype)
        kept = patterns[np.isfinite(patterns) & (patterns > lo) & (patterns < hi)][: wanted - found]
        parts.append(kept)
        found += len(kept)
        if found >= wanted:
            break
    each = (count - found) // len(function.middle)
    for number, (low, high) in enumerate(function.middle):
        size = each if number else count - found - each * (len(function.middle) - 1)
        drawn = rng.uniform(low, high, size).astype(dtype)
        parts.append(np.where((drawn > lo) & (drawn < hi), drawn, dtype((low + high) / 2)))
    made = np.concatenate(parts)
    return rng.permutation(made) if function.arity > 1 else made
