"""Bilinear algorithms for short filters with the fewest multiplications, made from interpolation points.

`outputs` neighbouring results of a filter with `taps` taps take `outputs + taps - 1` products instead of `outputs *
taps`: both sides are transformed as if polynomials were evaluated at so many points (Toom 1963, Cook 1966; Winograd,
"Arithmetic Complexity of Computations", 1980). All coefficients are exact fractions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from graphc.ir.record import record

Matrix = tuple[tuple[Fraction, ...], ...]

# In the order in which they are taken; infinity is always one more. These keep rounding errors lower than other small
# numbers do (Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution", 2020).
POINTS = tuple(map(Fraction, ("0", "1", "-1", "1/2", "-2")))
MAX_PLACES = len(POINTS) + 1


@record
class Filter:
    """`result[i] = sum_k data[i + k] * tap[k]` as `results @ ((taps @ tap) * (data @ data))`.

    `data` is square, with integers; `taps` has a column for each tap, `results` a row for each result.
    """

    data: Matrix
    taps: Matrix
    results: Matrix

    @property
    def places(self) -> int:
        """Products, which is also how many elements of the data they take."""
        return len(self.data)


@lru_cache(maxsize=64)
def minimal_filter(outputs: int, taps: int) -> Filter:
    """The algorithm for so many results and taps, which take at most MAX_PLACES products."""
    places = outputs + taps - 1
    points = POINTS[: places - 1]
    data, scales = [], []
    for i, point in enumerate(points):
        others = [p for k, p in enumerate(points) if k != i]
        row, factor = _primitive(_from_roots(others))
        data.append((*row, Fraction(0)))
        scales.append(factor / math.prod(point - p for p in others))
    row, factor = _primitive(_from_roots(points))
    data.append(tuple(row))
    scales.append(factor)
    return Filter(
        tuple(data),
        tuple(tuple(scale * v for v in row) for scale, row in zip(scales, _powers(points, taps), strict=True)),
        tuple(zip(*_powers(points, outputs), strict=True)),
    )


def _powers(points: Sequence[Fraction], count: int) -> list[tuple[Fraction, ...]]:
    """The first powers of each point; at infinity only the last one counts."""
    rows = [tuple(p**k for k in range(count)) for p in points]
    return [*rows, (*(Fraction(0),) * (count - 1), Fraction(1))]


def _from_roots(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients, lowest first, of the product of all `x - root`."""
    poly = [Fraction(1)]
    for root in roots:
        raised, kept = [Fraction(0), *poly], [*poly, Fraction(0)]
        poly = [a - root * b for a, b in zip(raised, kept, strict=True)]
    return poly


def _primitive(row: Sequence[Fraction]) -> tuple[list[Fraction], Fraction]:
    """The row over what its coefficients have in common, which leaves integers, and that."""
    common = Fraction(math.gcd(*(v.numerator for v in row)), math.lcm(*(v.denominator for v in row)))
    return [v / common for v in row], common
