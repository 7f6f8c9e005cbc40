"""Bounds of the functions of one and two floats that are written in other operators, read off their f64 reference on a
grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from graphc.ir import OPS, Node, TensorType
from graphc.ir.types import f64
from tests.fuzz.interval import Bound, Rejected, need, rounded

Interval = tuple[float, float]

ULPS = 16  # docs/math.md says up to 6.6 of the largest values near by
STEP = 1e-4

_WIDE, _POSITIVE, _UNIT, _CHANCE = (-30.0, 30.0), (0.3, 30.0), (-0.95, 0.95), (0.04, 0.96)

# Where each function is smooth and its values are not too steep to be compared.
DOMAINS: dict[str, Interval] = {
    **dict.fromkeys(("atan", "asinh", "i0e", "i1e", "bessel_j0", "bessel_j1"), _WIDE),
    **dict.fromkeys(("sinh", "cosh", "sinc", "i0", "i1", "log_ndtr"), (-8.0, 8.0)),
    **dict.fromkeys(("asin", "acos", "atanh", "erfinv"), _UNIT),
    **dict.fromkeys(("logit", "ndtri", "entr"), _CHANCE),
    **dict.fromkeys(("lgamma", "digamma", "trigamma", "bessel_y0", "bessel_y1"), _POSITIVE),
    **dict.fromkeys(("modified_bessel_k0", "modified_bessel_k1"), _POSITIVE),
    **dict.fromkeys(("scaled_modified_bessel_k0", "scaled_modified_bessel_k1"), _POSITIVE),
    "acosh": (1.2, 30.0),
    "airy_ai": (-4.0, 4.0),
    "erfc": (-5.0, 5.0),
    "erfcx": (-3.0, 20.0),
}
PAIR_DOMAINS: dict[str, tuple[Interval, Interval]] = {
    "hypot": (_WIDE, _WIDE),
    "logaddexp": ((-20.0, 20.0), (-20.0, 20.0)),
    "logaddexp2": ((-20.0, 20.0), (-20.0, 20.0)),
    "xlogy": (_WIDE, _POSITIVE),
    "xlog1py": (_WIDE, (-0.8, 30.0)),
    "atan2": (_WIDE, _POSITIVE),
    "gammainc": ((0.3, 8.0), (0.2, 8.0)),
    "gammaincc": ((0.3, 8.0), (0.2, 8.0)),
    "zeta": ((1.4, 6.0), (0.3, 8.0)),
}
# Evaluated element by element, so on few.
_SLOW = ("airy_ai", "gammainc", "gammaincc", "zeta")


def domain_of(op: str) -> tuple[Interval, ...]:
    return PAIR_DOMAINS[op] if op in PAIR_DOMAINS else (DOMAINS[op],)


def inside(x: Bound, domain: Interval) -> bool:
    return domain[0] <= x.lo - x.error and x.hi + x.error <= domain[1]


def function_bound(node: Node, operands: Sequence[Bound]) -> Bound:
    """Raises Rejected when an operand may be outside the function's domain."""
    need(all(map(inside, operands, domain_of(node.op))))
    lo, hi, slopes = _shape(node.op, tuple((x.lo - x.error, x.hi + x.error) for x in operands))
    error = sum(x.error * slope for x, slope in zip(operands, slopes, strict=True))
    return Bound(lo, hi, error + rounded(node.dtype, ULPS, max(abs(lo), abs(hi))))


@lru_cache(maxsize=4096)
def _shape(op: str, intervals: tuple[Interval, ...]) -> tuple[float, float, tuple[float, ...]]:
    """The least and the largest value over `intervals`, and the steepest slope by each operand."""
    points = 129 if len(intervals) == 1 else 7 if op in _SLOW else 33
    axes = [np.linspace(lo, hi, points) for lo, hi in intervals]
    grid = [np.ascontiguousarray(a.reshape(-1)) for a in np.meshgrid(*axes)]

    def at(*arrays: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return OPS[op].evaluate(arrays, {}, TensorType(f64, arrays[0].shape))

    values = at(*grid)
    slopes, slack = [], 0.0
    for k, (lo, hi) in enumerate(intervals):
        left, right = (at(*(x + sign * STEP if i == k else x for i, x in enumerate(grid))) for sign in (-1.0, 1.0))
        steepest = float(np.abs(right - left).max()) / (2 * STEP)
        slopes.append(1.5 * steepest + 1e-6)
        slack += steepest * (hi - lo) / (points - 1)
    if not np.isfinite([slack, values.min(), values.max()]).all():
        raise Rejected
    return float(values.min()) - slack, float(values.max()) + slack, tuple(slopes)
