"""Samples of the functions that are written in other operators, and of special functions on the host."""

from __future__ import annotations

import numpy as np

from graphc.errors import DTypeError
from graphc.ir.types import bf16, f16, f32, f64
from tests.samples.base import BadSample, OpSamples, Sample, array, t
from tests.samples.elementwise import Smooth, ops, smooth, within

Rng = np.random.Generator


def _between(low: float, high: float) -> Smooth:
    return smooth(within(low, high))


def _points(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64, -2, 2), array(rng, (2, 3), f64, 0.5, 2)))]


def _positive(rng: Rng) -> list[Sample]:
    shapes = [Sample(tuple(array(rng, shape, f64, 0.5, 8) for _ in range(2))) for shape in ((2, 3), (), (0,))]
    return shapes + [Sample(tuple(array(rng, (4,), dtype, 1.5, 8) for _ in range(2))) for dtype in (f32, f16)]


def _above_one(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64, 1.5, 4), array(rng, (2, 3), f64, 0.8, 3)))]


def _rounded(rng: Rng) -> list[Sample]:
    pairs = ((f32, bf16), (f32, f16), (f32, f32), (f64, f32), (f64, bf16), (f16, f16), (bf16, bf16))
    return [
        Sample((array(rng, shape, dtype, -9, 9),), {"values": values, "gradients": dtype})
        for shape in ((3, 7), (), (0,))
        for dtype, values in pairs
    ]


def _rounded_smooth(rng: Rng) -> list[Sample]:
    """By f64 itself: what is rounded is no smooth function."""
    return [Sample((array(rng, (2, 3), f64, -2, 2),), {"values": f64, "gradients": f64})]


def _host(name: str) -> OpSamples:
    return OpSamples(_positive, ops(name, 2, "float", False)[name].bad, _above_one, False, constant=(0,))


COMPOSITES: dict[str, OpSamples] = {
    **ops("sinh cosh asinh atan", 1, "float", False, _between(-1.5, 1.5)),
    **ops("atanh asin acos erfinv", 1, "float", False, _between(-0.8, 0.8)),
    **ops("acosh", 1, "float", False, _between(1.5, 3)),
    **ops("sinc", 1, "float", False, _between(0.3, 0.9)),
    **ops("logit ndtri entr", 1, "float", False, _between(0.2, 0.8)),
    **ops("erfc erfcx log_ndtr i0 i1 i0e i1e", 1, "float", False, _between(0.2, 1.5)),
    **ops("lgamma digamma trigamma", 1, "float", False, _between(1.2, 4)),
    **ops("bessel_j0 bessel_j1 bessel_y0 bessel_y1", 1, "float", False),
    **ops("modified_bessel_k0 modified_bessel_k1", 1, "float", False),
    **ops("scaled_modified_bessel_k0 scaled_modified_bessel_k1", 1, "float", False),
    **ops("copysign hypot logaddexp logaddexp2 xlogy xlog1py atan2", 2, "float", False, _points),
    "rounded": OpSamples(
        _rounded,
        (
            BadSample((t("f32[2]"),), "rounded: .*no wider", {"values": f64, "gradients": f32}, error=DTypeError),
            BadSample((t("i32[2]"),), "rounded: wants floats", {"values": f16, "gradients": f16}, error=DTypeError),
        ),
        _rounded_smooth,
    ),
    **{name: _host(name) for name in ("zeta", "gammainc", "gammaincc")},
}
