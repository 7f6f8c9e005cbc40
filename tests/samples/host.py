"""Samples of the operators that run on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.ops.polynomials import POLYNOMIALS
from graphc.ir.types import DTYPES, DType, f32, f64
from tests.samples.base import BadSample, DTypeError, OpSamples, Sample, array, specials, t

Rng = np.random.Generator


def _polynomials(rng: Rng) -> list[Sample]:
    degrees = np.array([-1.0, 0.0, 1.0, 2.5, 7.0, np.nan])
    samples: list[Sample] = []
    for family in POLYNOMIALS:
        samples.append(Sample((array(rng, (6,), f64, -1.5, 1.5), degrees), {"family": family}))
        samples.append(Sample((array(rng, (2, 3), f32), np.full((2, 3), 4, np.float32)), {"family": family}))
    return [*samples, Sample((array(rng, (0,), f32), array(rng, (0,), f32)), {"family": "hermite_h"})]


def _airy(rng: Rng) -> list[Sample]:
    shapes = [Sample((array(rng, shape, f64, -9, 9),)) for shape in ((2, 3), (), (0,))]
    return [*shapes, *(Sample((specials(dtype),)) for dtype in (f32, f64))]


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


KEY = np.array([7, 3], np.int64)


def _poisson(rng: Rng) -> list[Sample]:
    rates = (np.array([0.0, 0.5, 3.0, 40.0]), np.array([[1.5]]), np.zeros((0,)), np.array([np.nan, np.inf, -1.0]))
    return [Sample((KEY, r.astype(d.numpy)), {}) for r in rates for d in DTYPES if d.is_float]


def _binomial(rng: Rng) -> list[Sample]:
    pairs = (([0.0, 5.0, 9.0], [0.5, 0.2, 1.0]), ([], []), ([np.nan, 3.0, -1.0], [0.5, 2.0, 0.5]))
    return [
        Sample((KEY, np.array(n).astype(d.numpy), np.array(p).astype(d.numpy)), {})
        for n, p in pairs
        for d in DTYPES
        if d.is_float
    ]


HOST: dict[str, OpSamples] = {
    "random_poisson": OpSamples(
        _poisson,
        (
            BadSample((t("i64[3]"), t("f32[2]")), r"random_poisson: wants a key", error=DTypeError),
            BadSample((t("i64[2]"), t("i64[2]")), r"random_poisson: wants floats", error=DTypeError),
        ),
    ),
    "random_binomial": OpSamples(
        _binomial,
        (BadSample((t("i64[2]"), t("f32[2]"), t("f32[3]")), r"random_binomial: wants operands of one type"),),
    ),
    "orthogonal_polynomial": OpSamples(
        _polynomials,
        (
            BadSample((t("f32[2]"), t("f32[3]")), "orthogonal_polynomial", {"family": "legendre_p"}),
            BadSample((t("f32[2]"), t("f32[2]")), "no family 'bernoulli'", {"family": "bernoulli"}),
        ),
        exact=False,
    ),
    "airy_ai": OpSamples(_airy, (BadSample((t("i32[2]"),), "airy_ai", {}, DTypeError),), exact=False),
    "argsort": OpSamples(
        _argsort,
        (BadSample((t("f32[2]"),), r"argsort: axis 1 is out of range for f32\[2\]", {"axis": 1, "descending": False}),),
    ),
    "searchsorted": OpSamples(
        _searchsorted,
        (
            BadSample((t("f32[2,3]"), t("f32[3,2]")), "searchsorted: the rows are one row", {"right": False}),
            BadSample((t("f32[2]"), t("i32[2]")), "searchsorted", {"right": False}, DTypeError),
        ),
    ),
}
