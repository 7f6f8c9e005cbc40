"""Samples of numerical derivatives and of sums back to a broadcast shape."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, s

X, Y = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 3.0, 7.0])

SLOPES: tuple[Op, ...] = (
    Op(
        "gradient",
        (
            s(f(3, 4)),
            s(f(3, 4), spacing=2.0),
            s(f(3, 4), spacing=[2.0, 3.0], edge_order=2),
            s(f(3, 4), spacing=(X, Y)),
            s(f(3, 4), spacing=(Y,), dim=1, edge_order=2),
            s(f(3, 4), dim=-1),
            s(ints(3, 4), dim=(1, 0)),
        ),
        (
            bad("only supports edge_order=1 and edge_order=2", f(4), edge_order=3),
            bad("spacing argument of length 1 and a dim argument of length 2", f(3, 4), spacing=[2.0], dim=(0, 1)),
            bad(r"at least edge_order\+1", f(1, 3), dim=0),
            bad("appears multiple times", f(3, 3), dim=(0, 0)),
        ),
    ),
    Op(
        "Tensor.sum_to_size",
        (s(f(3, 4), 1, 4), s(f(3, 4), 4), s(f(3, 4), 3, 4), s(f(3, 4), (3, 1)), s(f(2, 1, 3), 1, 1)),
        (bad("is not expandable to size", f(3, 4), 3, 5), bad("is not expandable", f(4), 3, 4)),
    ),
)
