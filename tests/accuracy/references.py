"""The file of measured errors and exact values, and the page that shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.accuracy.functions import FUNCTIONS

ROOT = Path(__file__).parents[2]
REFERENCES = Path(__file__).parent / "references.json"
PAGE = ROOT / "docs" / "ulp.md"
SYSTEMS = ("graphc", "PyTorch", "NumPy")

_HEAD = """# Errors of elementary functions

Written by `python -m tests.accuracy.measure` (which needs PyTorch and mpmath). The largest error seen, in units in the
last place of the result (correctly rounded results are within 0.5), and the argument where it is: for graphc, beside
it for PyTorch {torch} and NumPy {numpy} with the same arguments on the same machine ({cpu}).

f32: {f32} arguments a function, a third of them random bit patterns of the domain, the others from intervals where
the function has its shape (`tests/accuracy/functions.py`). The 48 of each system that seem worst against a float64
reference are compared with mpmath (300 bits). f64: {f64} such arguments, all compared with mpmath. Sampling finds most
of what is bad, not all of it: [math.md](math.md) has the errors over all 2³² patterns of the functions that others are
made of. `inf` says that a result has the wrong class: an infinity, a NaN or the sign of a zero. Near their zeros
`lgamma` and `digamma` lose digits; so does `gelu` far below 0, where x is multiplied by 1 + erf(x / sqrt(2)), as in
PyTorch. `tests/accuracy/test_ulp.py` holds each function to its error here.

| function | where | type | graphc | PyTorch | NumPy |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Worst:
    """The largest error of a system, in ulp, and the operands where it is."""

    error: float
    at: list[float]


@dataclass(frozen=True)
class Reference:
    """What was measured of one function in one dtype: `tried` are operands for the test, `exact` the values there."""

    worst: Mapping[str, Worst]
    tried: list[list[float]]
    exact: list[tuple[float, float]]
    count: int

    def as_json(self) -> dict[str, Any]:
        return {
            "worst": {k: [_text(w.error), *w.at] for k, w in self.worst.items()},
            "count": self.count,
            "tried": self.tried,
            "exact": [[_text(hi), _text(lo)] for hi, lo in self.exact],
        }


def read(entry: Mapping[str, Any]) -> Reference:
    """An entry of the file."""
    worst = {k: Worst(float(error), at) for k, (error, *at) in entry["worst"].items()}
    return Reference(worst, entry["tried"], [(float(hi), float(lo)) for hi, lo in entry["exact"]], entry["count"])


def load() -> dict[str, Any]:
    return json.loads(REFERENCES.read_text(encoding="utf-8"))


def _text(value: float) -> float | str:
    """A number that JSON knows: infinities and NaN as text."""
    return value if math.isfinite(value) else str(value)


def exact_pair(value: Any) -> tuple[float, float]:
    """`value` of mpmath as the sum of two f64; an infinity where that is too large for one."""
    hi = float(value)
    return (hi, 0.0) if math.isinf(hi) or math.isnan(hi) else (hi, float(value - hi))


def shown(worst: Worst | None) -> str:
    """The cell of a table."""
    if worst is None:
        return ""
    error = f"{worst.error:.2f}" if worst.error < 1000 else f"{worst.error:.1e}"
    return f"{error} ({', '.join(f'{x:.9g}' for x in worst.at)})"


def page(known: Mapping[str, Any], about: Mapping[str, str]) -> str:
    """docs/ulp.md."""
    rows = []
    for function in FUNCTIONS:
        for dtype in ("f32", "f64"):
            found = read(known[f"{function.name} {dtype}"])
            cells = [shown(found.worst.get(system)) for system in SYSTEMS]
            name, where = (f"`{function.name}`", function.about or "everywhere") if dtype == "f32" else ("", "")
            rows.append(f"| {name} | {where} | {dtype} | {' | '.join(cells)} |")
    return _HEAD.format(**about) + "\n".join(rows) + "\n"
