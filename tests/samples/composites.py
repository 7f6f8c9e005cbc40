"""Samples of the functions that are written in other operators."""

from __future__ import annotations

import numpy as np

from graphc.ir.types import f64
from tests.samples.base import OpSamples, Sample, array
from tests.samples.elementwise import ops, smooth, within

Rng = np.random.Generator


def _points(rng: Rng) -> list[Sample]:
    return [Sample((array(rng, (2, 3), f64, -2, 2), array(rng, (2, 3), f64, 0.5, 2)))]


COMPOSITES: dict[str, OpSamples] = {
    **ops("sinh cosh asinh atan", 1, "float", False, smooth(within(-1.5, 1.5))),
    **ops("sinc", 1, "float", False, smooth(within(0.3, 0.9))),
    **ops("logit", 1, "float", False, smooth(within(0.2, 0.8))),
    **ops("copysign", 2, "float", False, _points),
    **ops("atanh asin acos", 1, "float", False, smooth(within(-0.8, 0.8))),
    **ops("acosh", 1, "float", False, smooth(within(1.5, 3))),
    **ops("hypot logaddexp logaddexp2 xlogy xlog1py atan2", 2, "float", False, _points),
}
