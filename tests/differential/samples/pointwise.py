"""Samples of operators that work one element at a time."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, bad, f, ints, mask, pos, s, special

POINTWISE: tuple[Op, ...] = (
    Op(
        "add",
        (
            s(f(3, 4), f(3, 4)),
            s(f(3, 4), f(4), alpha=2),
            s(f(2, 1, 3), f(4, 1)),
            s(f(3), 2.5),
            s(ints(3), 2.5),
            s(ints(3), ints(3, dtype="int32")),
            s(mask(3), ints(3, dtype="uint8")),
            s(f(), f(2, 0)),
            s(f(), f()),
        ),
        (bad("size", f(3), f(4)), bad("alpha|integral", ints(3), ints(3), alpha=0.5)),
    ),
    Op("exp", (s(f(3, 4)), s(special()), s(ints(3)), s(mask(2)), s(f()), s(f(0, 3)))),
    Op("sqrt", (s(pos(3, 4)), s(special()), s(ints(3, low=0)), s(np.zeros((0,))))),
)
