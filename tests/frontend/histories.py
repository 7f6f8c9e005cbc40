"""Random tests of compiled functions: what calls leave behind, compiled and plain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def check_history(history: Callable[[int, bool], list[Any]], seed: int, error: float) -> None:
    """`history(seed, compiled)` gives arrays and other values: the same for both, arrays up to `error`, absolute below
    one and relative above.
    """
    expected, found = history(seed, False), history(seed, True)
    assert len(expected) == len(found)
    for place, (a, b) in enumerate(zip(expected, found, strict=True)):
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            limit = error * max(1.0, float(np.abs(a).max(initial=0.0)))
            assert np.allclose(a, b, rtol=error, atol=limit, equal_nan=True), f"seed {seed}: {place}"
        else:
            assert a == b, f"seed {seed}: {place}"
