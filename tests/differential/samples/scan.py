"""Samples of running sums, products and extremes, differences and integrals."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, distinct, f, ints, mask, once, s, special

NAN, INF = np.nan, np.inf
EMPTY = np.zeros((0, 3))
RANGE = bad("Dimension out of range", f(2, 3), 2)
ZEROS = np.array([[0.5, 0.0, -1.5, 2.0], [1.0, -2.0, 3.0, 0.5], [0.0, 1.5, 0.0, 0.0]])
SUMS = (
    s(f(3, 4), 0),
    s(f(2, 3, 4), -1),
    s(f(2, 17), dim=1),
    s(ints(5, dtype="int8"), 0),
    s(mask(4), 0),
    s(ints(3), 0, dtype="torch.float64"),
    s(f(3, 2), axis=0),
    s(f(), 0),
    s(EMPTY, 0),
)
TIES = np.array([1.0, 3.0, 3.0, -1.0, 3.0, 4.0, 4.0])
WITH_NAN = np.array([1.0, NAN, 3.0, NAN, -1.0])
RUNNING = (
    s(distinct(3, 4), 0),
    s(distinct(2, 3, 2), -1),
    s(TIES, 0),
    s(-TIES, 0),
    s(WITH_NAN, 0),
    s(np.array([0.0, -0.0, 0.0, -0.0]), 0),
    s(ints(2, 5, dtype="int32"), 1),
    s(mask(5), 0),
    s(f(), 0),
    s(EMPTY, 0),
    s(EMPTY, 1),
)
X4 = np.array([0.0, 0.5, 2.0, 2.25])

SCAN: tuple[Op, ...] = (
    Op("cumsum", (*SUMS, s(special(), 0)), (RANGE, bad("", f(3), 0.5))),
    Op("cumprod", (*SUMS, s(ZEROS, 0), s(ZEROS, 1)), (RANGE,)),
    Op("cummax", RUNNING, (RANGE,)),
    Op("cummin", RUNNING, (RANGE,)),
    Op(
        "logcumsumexp",
        (
            s(f(3, 4), 0),
            s(f(2, 3, 4), -1),
            s(np.array([-2000.0, 3.0, 1000.0, 999.0, -5.0]), 0),
            once(s(np.array([-INF, -INF, -2000.0, 1.0, INF, 2.0, 5.0]), 0)),  # the second ones meet inf - inf
            once(s(np.array([1.0, NAN, 2.0]), 0)),  # likewise
            s(EMPTY, 0),
            s(f(), 0),
        ),
        (RANGE, bad("not implemented for 'Long'", ints(3), 0)),
    ),
    Op(
        "diff",
        (
            s(f(3, 4)),
            s(f(3, 4), 2, 0),
            s(f(3, 4), n=7),
            s(f(4), 1, 0, f(2), f(1)),
            s(f(2, 3), prepend=f(2, 1)),
            s(ints(5)),
            s(mask(5)),
            s(EMPTY, dim=0),
        ),
        (
            bad("at least one-dimensional", f()),
            bad("order must be non-negative", f(3), -1),
            bad("same dimension as input", f(3), prepend=f(1, 1)),
            bad("except along the differencing dimension", f(2, 3), append=f(3, 1)),
        ),
    ),
    *(
        Op(
            name,
            (
                s(f(3, 4)),
                s(f(3, 4), dx=0.5, dim=0),
                s(f(3, 4), X4),
                s(f(3, 4), f(3), dim=0),
                s(f(3, 4), f(3, 4)),
                s(ints(2, 3)),
                s(f(2, 1)),
            ),
            (
                bad("one `x` value for each sample point", f(3, 4), f(3)),
                bad("bool is not supported", mask(3)),
                bad("Dimension out of range", f(3), dim=1),
            ),
            grad_fn=False,  # PyTorch multiplies by a scalar tensor
        )
        for name in ("trapezoid", "trapz", "cumulative_trapezoid")
    ),
)
