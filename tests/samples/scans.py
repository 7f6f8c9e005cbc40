"""Samples of running sums, products and extremes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.types import DTYPES, f32, f64
from tests.samples.base import FLOATS, INTEGERS, BadSample, DTypeError, OpSamples, Sample, array, distinct, specials, t

Rng = np.random.Generator
SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((7,), 0),
    ((3, 40), 1),
    ((3, 40), 0),
    ((2, 5, 19), 1),
    ((4, 3, 2), 1),
    ((1, 1), 1),
    ((0,), 0),
    ((2, 0, 3), 1),
)


def _scans(dtypes: tuple[object, ...], operands: int) -> Callable[[Rng], list[Sample]]:
    def make(rng: Rng) -> list[Sample]:
        made = [
            Sample(tuple(array(rng, shape, f32, -1.5, 1.5) for _ in range(operands)), {"axis": axis, "reverse": back})
            for shape, axis in SHAPES
            for back in (False, True)
        ]
        made += [
            Sample(tuple(array(rng, (2, 6, 3), d, -1.5, 1.5) for _ in range(operands)), {"axis": 1, "reverse": False})  # type: ignore[arg-type]
            for d in dtypes
        ]
        for dtype in (f32, f64):
            special = rng.permutation(specials(dtype))
            given = (special,) * operands
            made += [Sample(given, {"axis": 0, "reverse": back}) for back in (False, True)]
        before_one = tuple(array(rng, (3, 40, 1), f32, -1.5, 1.5) for _ in range(operands))
        made += [Sample(before_one, {"axis": 1, "reverse": back}) for back in (False, True)]
        return made

    return make


def _smooth(operands: int) -> Callable[[Rng], list[Sample]]:
    def make(rng: Rng) -> list[Sample]:
        cases = ((0, False), (1, True))
        more = tuple(rng.uniform(-1.5, 1.5, (4, 5)) for _ in range(operands - 1))
        zeros = rng.uniform(-1.5, 1.5, (4, 5))
        zeros[1, 2] = zeros[2, 2] = zeros[0, 0] = 0.0
        return [Sample((zeros, *more), {"axis": axis, "reverse": back}) for axis, back in cases]

    return make


def _distinct(rng: Rng) -> list[Sample]:
    return [Sample((distinct(rng, (4, 5)),), {"axis": axis, "reverse": back}) for axis, back in ((0, False), (1, True))]


def _bad(op: str, operands: int, group: str) -> tuple[BadSample, ...]:
    attrs = {"axis": 1, "reverse": False}
    cases = [BadSample((t("f32[2]"),) * operands, rf"{op}: axis 1 is out of range", attrs)]
    if group == "number":
        cases.append(BadSample((t("bool[2,3]"),) * operands, f"{op}: wants float or integer", attrs, DTypeError))
    return tuple(cases)


_NUMBERS = (*FLOATS, *INTEGERS)
SCANS: dict[str, OpSamples] = {
    "scan_sum": OpSamples(_scans(_NUMBERS, 1), _bad("scan_sum", 1, "number"), _smooth(1), exact=False),
    "scan_prod": OpSamples(_scans(_NUMBERS, 1), _bad("scan_prod", 1, "number"), _smooth(1)),
    "scan_max": OpSamples(_scans(DTYPES, 1), _bad("scan_max", 1, "any"), _distinct),
    "scan_min": OpSamples(_scans(DTYPES, 1), _bad("scan_min", 1, "any"), _distinct),
    "recurrence": OpSamples(
        _scans(_NUMBERS, 2),
        (
            *_bad("recurrence", 2, "number"),
            BadSample(
                (t("f32[2]"), t("f32[3]")),
                "recurrence: both operands must have one shape",
                {"axis": 0, "reverse": False},
            ),
        ),
        _smooth(2),
    ),
}
