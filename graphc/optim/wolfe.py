"""A line search that ends where the strong Wolfe conditions hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from graphc import Tensor

_DECREASE = 1e-4  # of the slope at the start
_FLATTER = 0.9  # times the slope at the start
_MOST = 25  # evaluations in the search


@dataclass(frozen=True)
class _Point:
    """A place on the line: its distance, loss, gradient and slope."""

    t: float
    loss: float
    gradient: Tensor
    slope: float


def _cubic(a: _Point, b: _Point, bounds: tuple[float, float] | None = None) -> float:
    """The minimum of the cubic through both points with their slopes, within `bounds` (default: between the points);
    the middle where there is none.
    """
    low, high = bounds or (min(a.t, b.t), max(a.t, b.t))
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2
    d2 = math.sqrt(square)
    if a.t <= b.t:
        place = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    else:
        place = a.t - (a.t - b.t) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2 * d2))
    return min(max(place, low), high)


def strong_wolfe(
    evaluate: Callable[[float], tuple[float, Tensor]],
    length: float,
    direction: Tensor,
    loss: float,
    gradient: Tensor,
    slope: float,
    tolerance: float = 1e-9,
) -> tuple[float, Tensor, float, int]:
    """Loss, gradient, length of the step and number of evaluations.

    `evaluate(t)` gives loss and gradient at `t` along `direction`; `loss`, `gradient` and `slope` are those at 0.
    J. Nocedal, S. Wright, "Numerical optimization", 2006, algorithms 3.5 and 3.6 with cubic interpolation.
    """
    longest = float(direction.abs().max())

    def look(t: float) -> _Point:
        found, at = evaluate(t)
        return _Point(t, found, at, float(at.dot(direction)))

    start = _Point(0.0, loss, gradient, slope)
    previous, point, used = start, look(length), 1
    bracket: list[_Point] = []
    done = False
    for turn in range(_MOST):
        too_high = point.loss > loss + _DECREASE * point.t * slope
        if too_high or (turn > 0 and point.loss >= previous.loss):
            bracket = [previous, point]
            break
        if abs(point.slope) <= -_FLATTER * slope:
            bracket, done = [point], True
            break
        if point.slope >= 0:
            bracket = [previous, point]
            break
        nearest, farthest = point.t + 0.01 * (point.t - previous.t), point.t * 10
        following = _cubic(previous, point, (nearest, farthest))
        previous, point, used = point, look(following), used + 1
    else:
        bracket = [start, point]
    turn = used
    stuck = False
    low, high = (0, 1) if bracket[0].loss <= bracket[-1].loss else (1, 0)
    while not done and turn < _MOST:
        if abs(bracket[1].t - bracket[0].t) * longest < tolerance:
            break
        t = _cubic(bracket[0], bracket[1])
        least, greatest = sorted((bracket[0].t, bracket[1].t))
        margin = 0.1 * (greatest - least)
        # Near an end of the bracket for the second time, or outside: go in by a tenth of it.
        if min(greatest - t, t - least) < margin:
            if stuck or t >= greatest or t <= least:
                t = greatest - margin if abs(t - greatest) < abs(t - least) else least + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        point, used, turn = look(t), used + 1, turn + 1
        if point.loss > loss + _DECREASE * t * slope or point.loss >= bracket[low].loss:
            bracket[high] = point
            low, high = (0, 1) if bracket[0].loss <= bracket[1].loss else (1, 0)
            continue
        if abs(point.slope) <= -_FLATTER * slope:
            done = True
        elif point.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
    best = bracket[low] if len(bracket) > 1 else bracket[0]
    return best.loss, best.gradient, best.t, used
