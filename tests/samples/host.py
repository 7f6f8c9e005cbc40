"""Samples of the operators that run on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.ir.types import DTYPES, f32
from tests.samples.base import BadSample, OpSamples, Sample, array, specials, t

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


HOST: dict[str, OpSamples] = {
    "argsort": OpSamples(
        _argsort,
        (BadSample((t("f32[2]"),), r"argsort: axis 1 is out of range for f32\[2\]", {"axis": 1, "descending": False}),),
    ),
}
