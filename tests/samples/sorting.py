"""Samples of orders and of places in sorted rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.types import DTYPES, DType, f32
from tests.samples.base import BadSample, DTypeError, OpSamples, Sample, array, specials, t

Rng = np.random.Generator


def _argsort(rng: Rng) -> list[Sample]:
    def attrs(axis: int, descending: bool) -> dict[str, Any]:
        return {"axis": axis, "descending": descending}

    samples = [Sample((array(rng, (3, 7), dtype),), attrs(1, False)) for dtype in DTYPES]
    samples += [Sample((array(rng, (5, 4), dtype),), attrs(0, True)) for dtype in DTYPES]
    shapes: list[tuple[tuple[int, ...], int]] = [((1,), 0), ((0,), 0), ((2, 0, 3), 1), ((2, 3, 4), 1)]
    samples += [
        Sample((array(rng, shape, f32),), attrs(axis, down)) for shape, axis in shapes for down in (False, True)
    ]
    return samples + [Sample((rng.permutation(specials(f32)),), attrs(0, down)) for down in (False, True)]


def _apart(rng: Rng) -> list[Sample]:
    """Elements so far apart that small steps keep their order."""
    cases: list[tuple[tuple[int, ...], int, bool]] = [((7,), 0, False), ((3, 4), 1, True), ((4, 2), 0, False)]
    return [
        Sample((rng.permutation(np.prod(shape)).reshape(shape) * 0.25,), {"axis": axis, "descending": down})
        for shape, axis, down in cases
    ]


def _argselect(rng: Rng) -> list[Sample]:
    def attrs(axis: int, start: int, count: int) -> dict[str, Any]:
        return {"axis": axis, "descending": bool(rng.random() < 0.5), "start": start, "count": count}

    samples = [Sample((array(rng, (3, 7), dtype),), attrs(1, 2, 3)) for dtype in DTYPES]
    samples += [Sample((array(rng, (2, 400), dtype),), attrs(1, 150, 90)) for dtype in DTYPES]
    cases: list[tuple[tuple[int, ...], int, int, int]] = [
        ((500, 3), 0, 0, 5),
        ((2, 600, 3), 1, 595, 5),
        ((600,), 0, 300, 1),
        ((600,), 0, 0, 600),
        ((5,), 0, 2, 0),
        ((0,), 0, 0, 0),
        ((2, 0, 3), 1, 0, 0),
    ]
    return samples + [Sample((array(rng, shape, f32),), attrs(*places)) for shape, *places in cases]


def _searchsorted(rng: Rng) -> list[Sample]:
    def rows(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        return np.sort(array(rng, shape, dtype).astype(np.float64 if dtype.is_float else dtype.numpy)).astype(
            dtype.numpy
        )

    samples = [Sample((rows((5,), d), array(rng, (2, 3), d)), {"right": False}) for d in DTYPES]
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((2, 6), (2, 3)),
        ((0,), (3,)),
        ((2, 4), (2, 0)),
        ((1,), (2,)),
    ]
    samples += [
        Sample((rows(a, f32), array(rng, c, f32)), {"right": right}) for a, c in pairs for right in (False, True)
    ]
    ties = np.array([1, 2, 2, 2, 5])
    return samples + [Sample((ties, np.array([0, 1, 2, 3, 5, 6])), {"right": right}) for right in (False, True)]


SORTING: dict[str, OpSamples] = {
    "argsort": OpSamples(
        _argsort,
        (BadSample((t("f32[2]"),), r"argsort: axis 1 is out of range for f32\[2\]", {"axis": 1, "descending": False}),),
    ),
    "sort": OpSamples(
        _argsort,
        (BadSample((t("f32[2]"),), r"sort: axis 1 is out of range for f32\[2\]", {"axis": 1, "descending": False}),),
        _apart,
    ),
    "argselect": OpSamples(
        _argselect,
        (
            BadSample(
                (t("f32[2,3]"),),
                r"argselect: places 1 to 4 are not all in axis 1 of f32\[2,3\]",
                {"axis": 1, "descending": False, "start": 1, "count": 3},
            ),
        ),
    ),
    "searchsorted": OpSamples(
        _searchsorted,
        (
            BadSample((t("f32[2,3]"), t("f32[3,2]")), "searchsorted: the rows are one row", {"right": False}),
            BadSample((t("f32[2]"), t("i32[2]")), "searchsorted", {"right": False}, DTypeError),
        ),
    ),
}
