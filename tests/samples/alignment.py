"""Samples of sums over alignments."""

from __future__ import annotations

import numpy as np

from graphc.ir.types import DType, f16, f32, f64
from tests.samples.base import BadSample, OpSamples, Sample, array, t

Rng = np.random.Generator


def _ctc(rng: Rng, dtype: DType) -> Sample:
    logs = array(rng, (5, 3, 4), dtype)
    targets = np.array([[1, 2], [3, 3], [2, 0]])
    return Sample((logs, targets, np.array([5, 4, 3]), np.array([2, 2, 0])), {"blank": 0})


def _make(rng: Rng) -> list[Sample]:
    return [_ctc(rng, dtype) for dtype in (f64, f32, f16)]


_BAD = (
    BadSample((t("f32[5,3]"), *[t("i64[3]")] * 3), "float logarithms .* are wanted", {"blank": 0}),
    BadSample(
        (t("f32[5,3,4]"), t("i64[3,2]"), t("i64[3]"), t("i64[3]")), "the blank 4 is none of the 4 classes", {"blank": 4}
    ),
)

ALIGNMENT: dict[str, OpSamples] = {
    "ctc_loss": OpSamples(_make, _BAD, lambda rng: [_ctc(rng, f64)], exact=False),
    "ctc_loss_slope": OpSamples(_make, _BAD, exact=False),
}
