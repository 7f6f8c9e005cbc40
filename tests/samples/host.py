"""Samples of the operators that run on the host."""

from __future__ import annotations

import numpy as np

from graphc.ir.ops.polynomials import POLYNOMIALS
from graphc.ir.types import DTYPES, f32, f64
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


def _transfer(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, shape, dtype),), {"device": "cpu"}) for shape in ((2, 3), (), (0,)) for dtype in DTYPES]


HOST: dict[str, OpSamples] = {
    "transfer": OpSamples(
        _transfer,
        (BadSample((t("f32[2]"),), r"transfer: wants a device", {"device": "nowhere:"}),),
        lambda rng: [Sample((array(rng, (2, 3), f64),), {"device": "cpu"})],
    ),
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
}
