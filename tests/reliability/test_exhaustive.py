"""Row 7 of the reliability goals: functions of one float32 over its bit patterns, against float64 references.

NaN, infinities and the signs of zeros must agree exactly, subnormal results are held to the same bound as others. The
bounds are the worst errors over all 2**32 patterns (docs/math.md), rounded up. `make test` takes one of every 4,096
patterns, `make fuzz` takes them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir.types import f32
from tests.codegen.kernel_harness import BLOCK, native
from tests.codegen.kernel_interpreter import ulp_error

LANES = 16


def _sigmoid(x: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "exp": (np.exp, 1),
    "exp2": (np.exp2, 1),
    "expm1": (np.expm1, 2),
    "log": (np.log, 1),
    "log1p": (np.log1p, 2),
    "tanh": (np.tanh, 2),
    "sigmoid": (_sigmoid, 2),
    "erf": (np.vectorize(math.erf, otypes=[np.float64]), 2),
    "sin": (np.sin, 2),
    "cos": (np.cos, 2),
    "sqrt": (np.sqrt, 0.5),
}


def worst(name: str, patterns: np.ndarray) -> tuple[float, float]:
    """The largest error in ulp over float32 `patterns` (u32), and where it is; 0.5 when all results are the nearest."""
    x = patterns.view(np.float32)
    got = native(name, (f32,), LANES)(x)
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name][0](x.astype(np.float64))
        nearest = exact.astype(np.float32)
    differ = (got.view(np.int32) != nearest.view(np.int32)) & ~(np.isnan(got) & np.isnan(nearest))
    if not differ.any():
        return 0.5, 0.0
    error = ulp_error(got[differ], exact[differ])
    place = int(np.argmax(error))
    return float(error[place]), float(x[differ][place])


def check(name: str, patterns: np.ndarray) -> None:
    error, x = worst(name, patterns)
    assert error <= FUNCTIONS[name][1], f"{name}({x!r}) is wrong by {error} ulp"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_4096th_pattern(name: str) -> None:
    blocks = np.arange(0, 1 << 32, 4096, dtype=np.uint64)
    # One pattern from each block of 4096; which one changes from block to block, so that all low bits occur.
    patterns = (blocks + (blocks >> 12) * 2654435761 % 4096).astype(np.uint32)
    edges = np.arange(-8, 8, dtype=np.int64) + np.array([[0], [0x00800000], [0x3F800000], [0x7F800000]])
    signs = np.array([[[0]], [[0x80000000]]])
    check(name, np.concatenate([patterns, (edges + signs).ravel().astype(np.uint32)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_pattern(name: str) -> None:
    count = 8 * BLOCK
    for start in range(0, 1 << 32, count):
        check(name, np.arange(start, start + count, dtype=np.uint64).astype(np.uint32))
